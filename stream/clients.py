"""Kafka clients with the options that the services rely on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaConfigurationError, KafkaError, RetriableError

from stream import addresses, kafka_workarounds
from stream.open_transactions import Watch
from stream.refusals import TEMPORARY, causes, explained, raise_if_refused
from stream.service import Backoff, Fatal, Stop, shared_warnings
from stream.settings import StreamSettings
from stream.tls import tls
from stream.watchdog import doing

T = TypeVar("T")

REQUEST_TIMEOUT_MS = 10_000
CLOSE_SECONDS = 1.5
BOOTSTRAP_TIMEOUT_MS = 5_000
LARGEST_RECORD_BYTES = 4 * 2**20
"""More than any record of the services has, so that the topic's own limit decides."""

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
    pauses, warnings = Backoff(), shared_warnings(log)
    while True:
        stop.check()
        try:
            return stop.until_stopped(make)
        except KafkaConfigurationError as error:
            raise Fatal(str(error)) from None
        except (KafkaError, OSError) as error:
            raise_if_refused(error, settings)
            look = partial(trouble, error, settings)
            line = stop.until_stopped(look) if warnings.due("broker") else ""
            warnings.warn("broker", f"{line}; retrying")
        stop.wait(next(pauses))


def connected(
    make: Callable[..., T],
    settings: StreamSettings,
    stop: Stop,
    log: logging.Logger,
    **options: Any,
) -> T:
    """Return a client that `make` makes of the settings and options; waits as `connect` does."""
    return connect(partial(make, settings, **options), settings, stop, log)


def trouble(error: BaseException, settings: StreamSettings) -> str:
    """Say in one line why the brokers do not do what they were asked, as far as one can see here.

    It looks up the addresses and connects to them, so it takes some seconds.
    """
    if line := explained(error, settings, TEMPORARY):
        return line
    if any(isinstance(cause, RetriableError | OSError) for cause in causes(error)):
        return _unreachable(settings) or f"{settings.kafka_bootstrap_servers}: {error!r}"
    return f"{settings.kafka_bootstrap_servers}: {error!r}"


def _unreachable(settings: StreamSettings) -> str | None:
    """Say which broker cannot be reached; ``None`` where all can."""
    servers = settings.kafka_bootstrap_servers
    given = {address: addresses.problem(address) for address in addresses.parse(servers)}
    reason = "it takes connections, but does not answer as a broker with this protocol does"
    if all(given.values()):
        reason = ", ".join(map(str, given.values()))
        if len(given) > 1:
            reason = ", ".join(f"{address}: {problem}" for address, problem in given.items())
    else:
        with suppress(KafkaError, OSError), closing(admin(settings)) as client:
            return _misled(settings, kafka_workarounds.advertised(client))
    return (
        f"no broker answers at {servers} with"
        f" KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} ({reason})"
    )


def _misled(settings: StreamSettings, brokers: list[kafka_workarounds.Broker]) -> str | None:
    """Say which brokers cannot be reached where they tell clients to connect."""
    lost = []
    for broker in brokers:
        address = addresses.Address(broker.host, broker.port)
        if problem := addresses.problem(address):
            lost.append(f"broker {broker.id} advertises {address} ({problem})")
    if not lost:
        return None
    return (
        f"{settings.kafka_bootstrap_servers} answers, but its advertised listeners are not"
        f" reachable: {', '.join(lost)}; look at advertised.listeners of the broker"
    )


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
        Watch(lambda: closing(admin(settings))),
        **{
            **_common(settings),
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "max_partition_fetch_bytes": 4 * 2**20,
            "metadata_max_age_ms": 10_000,
            "metrics_enabled": False,
            # Within a fetch session, the broker leaves out partitions in which nothing is new. One
            # that is assigned again would have no end for `kafka_workarounds.progress`.
            "enable_incremental_fetch_sessions": False,
            **options,
        },
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
            "max_request_size": LARGEST_RECORD_BYTES,
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
    """A consumer that says what it reads, in case a poll never returns, and what holds it."""

    def __init__(self, watch: Watch, **options: Any) -> None:
        super().__init__(**options)
        self._watch = watch if options["isolation_level"] == "read_committed" else None

    def poll(self, *args: Any, **options: Any) -> Any:
        with doing(self._reading):
            found = super().poll(*args, **options)
        if self._watch:
            self._watch.look(kafka_workarounds.progress(self))
        return found

    def _reading(self) -> str:
        part = self._fetcher._next_partition_records
        if part:
            places = {part.topic_partition: part.next_fetch_offset}
        else:
            assignment = dict(self._subscription.assignment)
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
