"""Topics: their settings, their creation, their partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewPartitions
from kafka.errors import (
    InvalidPartitionsError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from stream import clients
from stream.settings import StreamSettings


def ensure_topics(client: KafkaAdminClient, settings: StreamSettings, log: logging.Logger) -> None:
    """Create the service's topics that are missing, and add partitions where there are too few.

    The data topic gets at least ``DATA_PARTITIONS``, the predictor's output topics at least as
    many as the data topic has.
    """
    options = _options(settings)
    wanted = {topic: options[topic] for topic in settings.topics}
    found = partition_counts(client, list(wanted))
    have = found.get(settings.data_topic)
    if have is not None and have > settings.data_partitions:
        log.warning(
            "%s has %d partitions, more than DATA_PARTITIONS=%d; a topic cannot shrink",
            settings.data_topic,
            have,
            settings.data_partitions,
        )
        for topic in (settings.data_topic, settings.prediction_topic, settings.rejected_topic):
            if topic in wanted:
                wanted[topic]["num_partitions"] = have
    missing = {topic: options for topic, options in wanted.items() if topic not in found}
    for topic, options in missing.items():
        with suppress(TopicAlreadyExistsError), _denied("Create", topic):
            client.create_topics({topic: options}, timeout_ms=clients.REQUEST_TIMEOUT_MS)
            log.info("made topic %s, partitions=%d", topic, options["num_partitions"])
    client.wait_for_topics(list(wanted))
    for topic, count in partition_counts(client, list(wanted)).items():
        target = wanted[topic]["num_partitions"]
        if count < target:
            with suppress(InvalidPartitionsError), _denied("Alter", topic):
                client.create_partitions({topic: NewPartitions(target)})
                log.info("grew topic %s from %d to %d partitions", topic, count, target)
    _wait_for_partitions(client, {topic: o["num_partitions"] for topic, o in wanted.items()})


def _wait_for_partitions(client: KafkaAdminClient, counts: dict[str, int]) -> None:
    """Wait until the brokers know of all partitions: those of a grown topic come a bit later."""
    end = time.monotonic() + clients.REQUEST_TIMEOUT_MS / 1000
    found = partition_counts(client, list(counts))
    while any(found.get(topic, 0) < count for topic, count in counts.items()):
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"topics with too few partitions: {found}")
        time.sleep(0.05)
        found = partition_counts(client, list(counts))
    client.wait_for_topics(list(counts))


def create_missing_topics(settings: StreamSettings, log: logging.Logger) -> None:
    """Do what `ensure_topics` does, with a client of its own."""
    with clients.closing(clients.admin(settings)) as client:
        ensure_topics(client, settings, log)


def partition_counts(client: KafkaAdminClient, topics: list[str]) -> dict[str, int]:
    """Return the number of partitions of each of `topics` that exists.

    Raises
    ------
    TopicAuthorizationFailedError
        When it may not be known whether one does.
    """
    counts = {}
    for topic in client.describe_topics(topics):
        error = topic.get("error_code")
        if not error:
            counts[topic["name"]] = len(topic["partitions"])
        elif for_code(error) is TopicAuthorizationFailedError:
            raise TopicAuthorizationFailedError(topic["name"], "Describe")
    return counts


@contextmanager
def _denied(right: str, topic: str) -> Iterator[None]:
    try:
        yield
    except TopicAuthorizationFailedError:  # its own text is the whole request and response
        raise TopicAuthorizationFailedError(topic, right) from None


def _options(settings: StreamSettings) -> dict[str, dict[str, Any]]:
    def options(partitions: int, retention_bytes: int) -> dict[str, Any]:
        return {
            "num_partitions": partitions,
            "replication_factor": settings.replication_factor,
            "configs": {
                # Size alone decides: by default Kafka would drop a sole old model after a week.
                "retention.ms": "-1",
                "retention.bytes": str(retention_bytes),
                # Retention drops whole segments, so they have to be well below it.
                "segment.bytes": str(max(2**20, min(2**30, retention_bytes // 8))),
                "min.insync.replicas": str(min(2, max(1, settings.replication_factor - 1))),
            },
        }

    data = options(settings.data_partitions, settings.data_retention_bytes)
    output = options(settings.data_partitions, settings.prediction_retention_bytes)
    models = options(1, settings.model_retention_bytes)
    schema = options(1, settings.model_retention_bytes)
    schema["configs"] = {
        "cleanup.policy": "compact",
        "min.insync.replicas": schema["configs"]["min.insync.replicas"],
    }
    return {
        settings.data_topic: data,
        settings.schema_topic: schema,
        settings.model_topic: models,
        settings.status_topic: dict(models),
        settings.prediction_topic: output,
        settings.rejected_topic: dict(output),
    }
