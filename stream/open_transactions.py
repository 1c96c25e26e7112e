"""Open transactions: consumers of committed records are stuck where the first of them begins."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from stream.kafka_workarounds import Progress
from stream.service import WARN_EVERY_SECONDS

log = logging.getLogger("stream")

HELD_SECONDS = 10.0
"""How long a partition has to be held until it is said; most transactions are short."""

NAMED = 3
"""Partitions that a line names."""


class OpenTransaction(NamedTuple):
    """A transaction that has written to a partition and has not ended.

    Attributes
    ----------
    offset : int
        Its first record there. Nobody who reads committed records gets this one or a later one.
    producer : str
        The transactional id, or the producer id if the broker does not tell more.
    since : str or None
        When it began, UTC, ISO 8601.
    """

    topic: str
    partition: int
    offset: int
    producer: str
    since: str | None

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return (
            f"{self.topic} partition {self.partition}: a transaction of {self.producer} is open"
            f" from offset {self.offset} on{since}"
        )


def open_transactions(client: KafkaAdminClient, place: TopicPartition) -> list[OpenTransaction]:
    """Return the transactions that are open on a partition, the one that holds it first.

    Raises
    ------
    KafkaError
        When the broker does not tell, among others brokers before 2.8.
    """
    found = [
        OpenTransaction(
            place.topic,
            place.partition,
            state.current_transaction_start_offset,
            *_who(client, state.producer_id),
        )
        for state in client.describe_producers([place])[place].active_producers
        if state.current_transaction_start_offset >= 0
    ]
    return sorted(found, key=lambda transaction: transaction.offset)


def _who(client: KafkaAdminClient, producer_id: int) -> tuple[str, str | None]:
    """Return the transactional id and the begin; a client without the right learns neither."""
    name, since = f"producer {producer_id}", None
    with suppress(KafkaError):
        listed = client.list_transactions(producer_id_filters=[producer_id]).values()
        for listing in chain.from_iterable(listed):
            name = listing.transactional_id
            began = client.describe_transactions([name])[name].transaction_start_time_ms
            if began >= 0:
                since = _utc(began // 1000)
    return name, since


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19] + "Z"


class Watch:
    """Says once a minute which open transactions hold partitions that a consumer reads.

    Parameters
    ----------
    connect : callable
        Returns a context manager that gives an admin client.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[KafkaAdminClient]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._since: dict[tuple[TopicPartition, int], float] = {}
        self._next_line = -math.inf

    def look(self, found: Mapping[TopicPartition, Progress]) -> None:
        """Look whether partitions are held; say it on a thread, because the brokers may be slow.

        Parameters
        ----------
        found : mapping of TopicPartition to Progress
            How far the consumer has read all its partitions.
        """
        now, since = self._clock(), self._since
        stuck = [(p, at.readable) for p, at in found.items() if at.position >= at.readable < at.end]
        self._since = {each: since.get(each, now) for each in stuck}
        held = {
            place: OpenTransaction(
                place.topic,
                place.partition,
                at,
                "an unknown producer",
                f"{_utc(time.time() - (now - began))} at least",
            )
            for (place, at), began in self._since.items()
            if now - began >= HELD_SECONDS
        }
        if held and now >= self._next_line:
            self._next_line = now + WARN_EVERY_SECONDS
            threading.Thread(target=self._say, args=[held], name="watch", daemon=True).start()

    def _say(self, held: dict[TopicPartition, OpenTransaction]) -> None:
        named = {place: held[place] for place in sorted(held)[:NAMED]}
        with suppress(KafkaError, OSError), self._connect() as client:
            for place, noticed in named.items():
                for found in open_transactions(client, place)[:1]:
                    named[place] = found._replace(since=found.since or noticed.since)
        more = len(held) - len(named)
        log.warning(
            "%s; records from there on wait for its end%s",
            "; ".join(map(str, named.values())),
            f"; {more} more partitions are held" if more else "",
        )
