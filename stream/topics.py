"""Topics: created with the options that the services rely on, and their partitions."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import (
    InvalidPartitionsError,
    KafkaTimeoutError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from stream import clients
from stream.refusals import TopicError
from stream.service import shared_warnings
from stream.settings import StreamSettings


def ensure_topics(client: KafkaAdminClient, settings: StreamSettings, log: logging.Logger) -> None:
    """Create the service's missing topics, and add partitions to those that have too few.

    The data topic gets at least ``DATA_PARTITIONS`` partitions. The label topic and the predictor's
    output topics get at least as many as the data topic has.
    """
    options = _options(settings)
    wanted = {topic: options[topic] for topic in settings.topics}
    found = partition_counts(client, list(wanted))
    have = found.get(settings.data_topic, 0)
    if have > settings.data_partitions:
        shared_warnings(log).warn(
            f"partitions {settings.data_topic}",
            f"{settings.data_topic} has {have} partitions, more than DATA_PARTITIONS="
            f"{settings.data_partitions}; partitions cannot be removed",
        )
        for topic in settings.partitioned_topics & wanted.keys():
            wanted[topic]["num_partitions"] = have
    end = time.monotonic() + clients.REQUEST_TIMEOUT_MS / 1000
    # Other services do the same at the same time, and brokers hear of changes a bit later.
    while missing := [t for t in wanted if found.get(t, 0) < wanted[t]["num_partitions"]]:
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"topics with too few partitions: {missing}")
        for topic in missing:
            _create(client, topic, wanted[topic], found.get(topic), log)
        client.wait_for_topics(missing)
        found = partition_counts(client, list(wanted))


def _create(
    client: KafkaAdminClient,
    topic: str,
    options: dict[str, Any],
    have: int | None,
    log: logging.Logger,
) -> None:
    """Create a topic, or add the partitions that it lacks."""
    count = options["num_partitions"]
    if have is None:
        with suppress(TopicAlreadyExistsError):
            created = client.create_topics(
                {topic: options}, timeout_ms=clients.REQUEST_TIMEOUT_MS, raise_errors=False
            )
            _check(topic, "Create", created["topics"][0])
            log.info("created topic %s, partitions=%d", topic, count)
    else:
        with suppress(InvalidPartitionsError):
            added = client.create_partitions({topic: count}, raise_errors=False).to_dict()
            _check(topic, "Alter", added["results"][0])
            log.info("added partitions to topic %s, from %d to %d", topic, have, count)


def _check(topic: str, right: str, answer: dict[str, Any]) -> None:
    """Raise the error of an answer, with the topic and the broker's own explanation."""
    kind, told = for_code(answer["error_code"]), answer.get("error_message")
    if kind is TopicAuthorizationFailedError:
        raise kind(topic, right)
    if kind in (TopicAlreadyExistsError, InvalidPartitionsError):  # somebody else was faster
        raise kind(topic)
    if kind is not NoError:
        raise TopicError(topic, kind(*([told] if told else [])))


def create_missing_topics(settings: StreamSettings, log: logging.Logger) -> None:
    """Call `ensure_topics` with a client of its own."""
    with clients.closing(clients.admin(settings)) as client:
        ensure_topics(client, settings, log)


def partition_counts(client: KafkaAdminClient, topics: list[str]) -> dict[str, int]:
    """Return the number of partitions of those `topics` that exist.

    Raises
    ------
    TopicAuthorizationFailedError
        When the right to describe one of them is missing.
    """
    counts = {}
    for topic in client.describe_topics(topics):
        error = topic.get("error_code")
        if not error:
            counts[topic["name"]] = len(topic["partitions"])
        elif for_code(error) is TopicAuthorizationFailedError:
            raise TopicAuthorizationFailedError(topic["name"], "Describe")
    return counts


def _options(settings: StreamSettings) -> dict[str, dict[str, Any]]:
    def options(partitions: int, retention_bytes: int) -> dict[str, Any]:
        return {
            "num_partitions": partitions,
            "replication_factor": settings.replication_factor,
            "configs": {
                # No time limit: by default Kafka would delete the only model after a week.
                "retention.ms": "-1",
                "retention.bytes": str(retention_bytes),
                # Retention deletes whole segments, so they have to be much smaller than the limit.
                "segment.bytes": str(max(2**20, min(2**30, retention_bytes // 8))),
                "min.insync.replicas": str(min(2, max(1, settings.replication_factor - 1))),
            },
        }

    data = options(settings.data_partitions, settings.data_retention_bytes)
    output = options(settings.data_partitions, settings.prediction_retention_bytes)
    models = options(1, settings.model_retention_bytes)
    schema = options(1, settings.model_retention_bytes)
    # Compacted to the newest schema, and bounded whatever keys somebody else gives his records.
    schema["configs"]["cleanup.policy"] = "compact,delete"
    return {
        settings.data_topic: data,
        settings.schema_topic: schema,
        settings.model_topic: models,
        settings.status_topic: dict(models),
        settings.prediction_topic: output,
        settings.rejected_topic: dict(output),
        settings.label_topic: dict(data),
        settings.label_rejected_topic: dict(output),
    }
