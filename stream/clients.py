"""Kafka clients with the options that the services rely on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConfigurationError, KafkaError, RetriableError

from stream import kafka_workarounds
from stream.refusals import raise_if_refused
from stream.service import Backoff, Fatal, Stop, Warnings
from stream.settings import StreamSettings
from stream.tls import tls
from stream.watchdog import doing

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 10_000
CLOSE_SECONDS = 1.5
BOOTSTRAP_TIMEOUT_MS = 5_000
_FOREVER_MS = 2**31 - 1


def connect(make: Callable[[], T], settings: StreamSettings, stop: Stop, log: logging.Logger) -> T:
    """Return what `make` returns, retrying until a broker answers, with a warning a minute.

    Raises
    ------
    Stopped
        When the service is told to stop.
    Fatal
        When no retry helps: a wrong option, password, certificate or right.
    """
    pauses, warnings = Backoff(), _warnings(log)
    while True:
        stop.check()
        try:
            return stop.until_stopped(make)
        except KafkaConfigurationError as error:
            raise Fatal(str(error)) from None
        except (KafkaError, OSError) as error:
            raise_if_refused(error, settings)
            if isinstance(error, RetriableError | OSError):
                warnings.warn(
                    "broker",
                    f"no broker answers at {settings.kafka_bootstrap_servers} with"
                    f" KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol}"
                    f" ({type(error).__name__}); retrying",
                )
            else:  # for instance fewer brokers than REPLICATION_FACTOR so far
                warnings.warn("kafka", f"{settings.kafka_bootstrap_servers}: {error!r}; retrying")
        stop.wait(next(pauses))


@cache
def _warnings(log: logging.Logger) -> Warnings:
    """Return the same warnings for each wait, so that several waits log one line a minute."""
    return Warnings(log)


def admin(settings: StreamSettings) -> KafkaAdminClient:
    """Create an admin client."""
    return KafkaAdminClient(**_common(settings))


def consumer(settings: StreamSettings, **options: Any) -> KafkaConsumer:
    """Create a consumer that reads committed records only and never commits by itself.

    Parameters
    ----------
    **options
        Options of `KafkaConsumer` that override the defaults here.
    """
    return _Consumer(
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
    """Create an idempotent producer that retries a record for as long as it takes.

    Parameters
    ----------
    **options
        Options of `KafkaProducer` that override the defaults here.
    """
    return KafkaProducer(
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


@contextmanager
def closing(client: T) -> Iterator[T]:
    """Close a client at the end of a ``with`` block, as `close` does."""
    try:
        yield client
    finally:
        close(client)


def close(*clients: Any) -> None:
    """Close clients in parallel, within `CLOSE_SECONDS`, whatever state they are in."""
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
            kafka_workarounds.close_producer(client)
        elif isinstance(client, KafkaConsumer):
            client.close(autocommit=False, timeout_ms=1_000)
        else:
            client.close()


class _Consumer(KafkaConsumer):  # type: ignore[misc] # kafka-python carries no types
    """A consumer that says what it reads, in case a poll never returns."""

    def poll(self, *args: Any, **options: Any) -> Any:
        with doing(self._reading):
            return super().poll(*args, **options)

    def _reading(self) -> str:
        part = self._fetcher._next_partition_records
        if part:
            places = {part.topic_partition: part.next_fetch_offset}
        else:
            assignment = dict(self._subscriptions.assignment)
            places = {p: s.position.offset for p, s in assignment.items() if s.position}
        return "reading " + ", ".join(
            f"{place.topic} partition {place.partition} offset {offset}"
            for place, offset in places.items()
        )


def _common(settings: StreamSettings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "reconnect_backoff_max_ms": 1_000,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls(settings),
        **settings.sasl(),
    }
