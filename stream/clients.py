"""Kafka clients with the settings that the services rely on."""

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

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 10_000
CLOSE_SECONDS = 1.5
BOOTSTRAP_TIMEOUT_MS = 5_000
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
                    f" ({type(error).__name__}); trying again",
                )
            else:  # for instance fewer brokers than REPLICATION_FACTOR so far
                warnings.warn(
                    "kafka", f"{settings.kafka_bootstrap_servers}: {error!r}; trying again"
                )
        stop.wait(next(pauses))


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
    """Close a client at the end of a ``with`` block, whatever state it is in."""
    try:
        yield client
    finally:
        close(client)


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
            kafka_workarounds.close_producer(client)
        elif isinstance(client, KafkaConsumer):
            client.close(autocommit=False, timeout_ms=1_000)
        else:
            client.close()


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
