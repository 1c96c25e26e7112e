"""Kafka clients with the settings that the services rely on, and the reads they share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions
from kafka.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidPartitionsError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    for_code,
)

import stream.mends  # noqa: F401 - what it mends is the client itself
from stream.service import Backoff, Fatal, Stop, Warnings
from stream.settings import StreamSettings
from stream.tls import Tls

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 10_000
CLOSE_SECONDS = 1.5
BOOTSTRAP_TIMEOUT_MS = 5_000
MAX_MESSAGE_BYTES = 64 * 2**20
"""What a consumer fetches of one partition at a time; larger messages still come, one by one."""

SILENCE_SECONDS = 30.0
"""How long a read goes on in which nothing comes; a killed service's transaction ends sooner."""

_FOREVER_MS = 2**31 - 1


def connect(make: Callable[[], T], settings: StreamSettings, stop: Stop, log: logging.Logger) -> T:
    """Return what `make` returns once Kafka answers, with a warning a minute meanwhile.

    Raises
    ------
    Stopped
        When the service was told to end.
    Fatal
        When the brokers refuse this service, or this service refuses them.
    """
    pauses, warnings = Backoff(), _warnings(log)
    while True:
        stop.check()
        try:
            return stop.heeded(make)
        except KafkaConfigurationError as error:
            raise Fatal(str(error)) from None
        except (KafkaError, OSError) as error:
            give_up_if_refused(error, settings)
            if isinstance(error, RetriableError | OSError):
                warnings.warn(
                    "broker",
                    f"no broker answers at {settings.kafka_bootstrap_servers} with"
                    f" KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol}"
                    f" ({type(error).__name__}); trying again",
                )
            else:  # for instance fewer brokers than REPLICATION_FACTOR so far
                warnings.warn(
                    "kafka", f"{settings.kafka_bootstrap_servers}: {error!r}; trying again"
                )
        stop.wait(next(pauses))


def give_up_if_refused(
    error: BaseException, settings: StreamSettings, right: str = "Read", transaction: str = ""
) -> None:
    """End the service where trying again is of no use, because someone has to grant something.

    Parameters
    ----------
    error, settings, right, transaction
        As for `refusal`.

    Raises
    ------
    Fatal
    """
    if line := refusal(error, settings, right, transaction):
        raise Fatal(line) from None


def refusal(
    error: BaseException, settings: StreamSettings, right: str = "Read", transaction: str = ""
) -> str | None:
    """Say in one line what is refused: the credentials, the broker's certificate, or a right.

    Parameters
    ----------
    error : BaseException
        What a client raised; it may carry the broker's answer as an argument.
    settings : StreamSettings
    right : str
        What the client was about to do to the topic: ``Read`` or ``Write``.
    transaction : str
        Its transactional id.

    Returns
    -------
    str or None
        Naming the variable, or the operation and the topic; ``None`` where nothing is refused.
    """
    user = f"user {settings.kafka_sasl_plain_username or '(anonymous)'}"
    for found in (error, *error.args):
        if isinstance(found, SaslAuthenticationFailedError):
            return (
                f"{settings.kafka_bootstrap_servers}: the broker refuses {user}:"
                f" {' '.join(map(str, found.args)) or type(found).__name__};"
                " look at KAFKA_SASL_MECHANISM, KAFKA_SASL_PLAIN_USERNAME and"
                " KAFKA_SASL_PLAIN_PASSWORD"
            )
        if isinstance(found, AuthorizationError):
            return (
                f"{user} lacks the right to {_right(found, settings, right, transaction)};"
                " acls.sh grants what each service needs"
            )
    return _tls(settings).problem


def _right(
    error: AuthorizationError, settings: StreamSettings, right: str, transaction: str
) -> str:
    topics, *more = error.args or ("",)
    if isinstance(error, GroupAuthorizationFailedError):
        return f"{more[0] if more else 'Read'} the group {getattr(settings, 'group_id', '')}"
    if isinstance(error, TransactionalIdAuthorizationFailedError):
        return f"Write under the transactional id {transaction}"
    if isinstance(error, ClusterAuthorizationFailedError):
        return "IdempotentWrite on the cluster"
    names = [topics] if isinstance(topics, str) else sorted(topics)
    return f"{more[0] if more else right} the topic {', '.join(names)}"


@cache
def _warnings(log: logging.Logger) -> Warnings:
    """Return the same warnings at each wait for Kafka: several waits are one line a minute."""
    return Warnings(log)


def admin(settings: StreamSettings) -> KafkaAdminClient:
    """Make an admin client."""
    return KafkaAdminClient(**_common(settings))


def consumer(settings: StreamSettings, **options: Any) -> KafkaConsumer:
    """Make a consumer that sees committed records only, and commits nothing by itself.

    Parameters
    ----------
    settings : StreamSettings
    **options
        Over the defaults, under kafka-python's names.
    """
    return KafkaConsumer(
        **{
            **_common(settings),
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "max_partition_fetch_bytes": 4 * 2**20,
            "metadata_max_age_ms": 10_000,
            "metrics_enabled": False,
            **options,
        }
    )


def producer(settings: StreamSettings, **options: Any) -> KafkaProducer:
    """Make an idempotent producer whose records wait for the broker as long as it takes.

    Parameters
    ----------
    settings : StreamSettings
    **options
        Over the defaults, under kafka-python's names.
    """
    made = KafkaProducer(
        **{
            **_common(settings),
            "acks": "all",
            "metrics_enabled": False,
            "linger_ms": 20,
            "batch_size": 256 * 1024,
            "max_block_ms": 5_000,
            "delivery_timeout_ms": _FOREVER_MS,
            **options,
        }
    )
    if made.config["transactional_id"]:
        # Seen with 3.0.12: told by the broker that it is fenced, the client takes a new epoch,
        # which fences its successor in turn, and then reports the transaction that the broker
        # had aborted as committed. Without that recovery it raises, as it should.
        made._transaction_manager._supports_epoch_bump = lambda: False
    return made


def ensure_topics(client: KafkaAdminClient, settings: StreamSettings, log: logging.Logger) -> None:
    """Make the service's topics that are missing, and grow those with too few partitions.

    The data topic gets at least ``DATA_PARTITIONS``, the predictor's output topics at least as
    many as the data topic has.
    """
    options = _topics(settings)
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
            client.create_topics({topic: options}, timeout_ms=REQUEST_TIMEOUT_MS)
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
    end = time.monotonic() + REQUEST_TIMEOUT_MS / 1000
    found = partition_counts(client, list(counts))
    while any(found.get(topic, 0) < count for topic, count in counts.items()):
        if time.monotonic() > end:
            raise KafkaTimeoutError(f"topics with too few partitions: {found}")
        time.sleep(0.05)
        found = partition_counts(client, list(counts))
    client.wait_for_topics(list(counts))


def make_topics(settings: StreamSettings, log: logging.Logger) -> None:
    """Do what `ensure_topics` does, with a client of its own."""
    client = admin(settings)
    try:
        ensure_topics(client, settings, log)
    finally:
        close(client)


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


def bounds(client: KafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a partition and the one after its last committed record."""
    start = client.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
    end = client.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
    return start, end


def read_range(
    client: KafkaConsumer, partition: TopicPartition, start: int, end: int, stop: Stop
) -> Iterator[Any]:
    """Yield the records at offsets `start` to `end` - 1 of one partition, then return.

    The consumer is assigned that partition alone.

    Raises
    ------
    KafkaTimeoutError
        When nothing comes for half a minute.
    Stopped
    """
    client.assign([partition])
    client.seek(partition, start)
    last, silent_since = start, time.monotonic()
    while (position := client.position(partition) or 0) < end:
        stop.check()
        if position != last:
            last, silent_since = position, time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_SECONDS:
            raise KafkaTimeoutError(
                f"{partition.topic} partition {partition.partition}: nothing came from offset"
                f" {position} on within {SILENCE_SECONDS:g} s"
            )
        for record in client.poll(timeout_ms=200).get(partition, ()):
            if record.offset >= end:
                return
            yield record


def newest(
    client: KafkaConsumer,
    partition: TopicPartition,
    choose: Callable[[list[Any]], T | None],
    stop: Stop,
    most: int | None = None,
) -> T | None:
    """Look back from the end of a partition, further and further, until `choose` finds something.

    Parameters
    ----------
    client : KafkaConsumer
        Assigned that partition alone afterwards.
    partition : TopicPartition
    choose : callable
        Given the records of a growing stretch before the end, oldest first; returns what it
        looked for, or ``None`` to look further back.
    stop : Stop
    most : int, optional
        Offsets that are looked back at most.

    Returns
    -------
    object or None
        ``None`` when all that was looked at holds nothing of the kind.
    """
    start, end = bounds(client, partition)
    start = start if most is None else max(start, end - most)
    length = 8
    while end > start:
        first = max(start, end - length)
        found = choose(list(read_range(client, partition, first, end, stop)))
        if found is not None or first == start:
            return found
        length *= 8
    return None


def close(*clients: Any) -> None:
    """Close clients together, within `CLOSE_SECONDS`, whatever state they are in."""
    threads = [
        threading.Thread(target=_close, args=[client], name="close", daemon=True)
        for client in clients
        if client is not None
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + CLOSE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _close(client: Any) -> None:
    with suppress(KafkaError, OSError, AttributeError, RuntimeError):
        if isinstance(client, KafkaProducer):
            _close_producer(client)
        elif isinstance(client, KafkaConsumer):
            client.close(autocommit=False, timeout_ms=1_000)
        else:
            client.close()


def _close_producer(client: KafkaProducer) -> None:
    try:
        client.close(timeout=1)
    except KafkaTimeoutError:
        # It gives up at its flush, half closed, and would do so again with a stack trace when it
        # is collected. Told to drop what is left, it closes.
        client._sender.force_close()
        client.close(timeout=1)


@cache
def _tls(settings: StreamSettings) -> Tls:
    return Tls(settings)


def _common(settings: StreamSettings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 1_000,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": _tls(settings),
        **settings.sasl(),
    }


def _topics(settings: StreamSettings) -> dict[str, dict[str, Any]]:
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
