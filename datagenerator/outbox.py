"""Sends records in order, with a bound on those that are not acknowledged yet."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from datagenerator.metrics import RECORDS_SENT
from stream.refusals import TopicError
from stream.service import WARN_EVERY_SECONDS, Stop, Warnings

MAX_UNACKNOWLEDGED = 10_000
STALLED_SECONDS = 10.0

ROW_HEADER = "row"
"""Header with the number of a record whose id is a name of the user's own."""


class Outbox:
    """Sends through a producer; kafka-python's own queue grows without a bound.

    Parameters
    ----------
    producer : KafkaProducer
        Or anything whose ``send`` returns the same kind of future.
    on_stalled : callable
        Called when no record was acknowledged for 10 s, at most once a minute; may raise to end
        the service.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        producer: Any,
        stop: Stop,
        log: logging.Logger,
        on_stalled: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._stop = stop
        self._log = log
        self._on_stalled = on_stalled
        self._warnings = Warnings(log, clock)
        self._clock = clock
        # Future, topic, bytes of the value, who is told the offset.
        self._sent: deque[tuple[Any, str, int, Callable[[int], object] | None]] = deque()
        self._last_progress = clock()
        self._next_warning = -math.inf
        self._next_offsets: dict[tuple[str, int], int] = {}
        self.acknowledged = 0

    def send(
        self,
        topic: str,
        value: bytes,
        partition: int,
        key: bytes | None = None,
        row: int | None = None,
        tell: Callable[[int], object] | None = None,
    ) -> None:
        """Send a record; wait first while too many are unacknowledged.

        Parameters
        ----------
        row : int or None
            Written as the header ``row``, which tells where to resume if the id does not.
        tell : callable, optional
            Told the record's offset, once it is acknowledged.

        Raises
        ------
        KafkaError
            When this record, or an earlier one, cannot be delivered; a `TopicError` names it.
        Stopped
        """
        if len(self._sent) >= MAX_UNACKNOWLEDGED:
            self.flush(MAX_UNACKNOWLEDGED // 2)
        headers = [] if row is None else [(ROW_HEADER, str(row).encode())]
        send = self._producer.send
        future = send(topic, value, key=key, partition=partition, headers=headers)
        self._sent.append((future, topic, len(value), tell))

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, as far as the producer knows."""
        return len(self._producer.partitions_for(topic))

    def flush(self, remaining: int = 0) -> None:
        """Wait until at most `remaining` records are unacknowledged.

        Raises
        ------
        KafkaError
            When a record cannot be delivered.
        Stopped
        """
        self.poll()
        while len(self._sent) > remaining:
            self._stop.wait(0.005)
            self.poll()

    def poll(self) -> None:
        """Count what was acknowledged since; warn when nothing was for 10 s.

        Raises
        ------
        KafkaError
            When a record cannot be delivered.
        """
        sent, arrived = self._sent, Counter[str]()
        while sent and sent[0][0].is_done:
            future, topic, size, tell = sent[0]
            if future.exception is not None:
                raise TopicError(topic, future.exception, size)
            self._check_offset(future.value)
            if tell:
                tell(future.value.offset)
            sent.popleft()
            arrived[topic] += 1
        self.acknowledged += arrived.total()
        for topic, count in arrived.items():
            RECORDS_SENT.labels(topic).inc(count)
        now = self._clock()
        if arrived or not sent:
            self._last_progress = now
        elif now - self._last_progress > STALLED_SECONDS and now >= self._next_warning:
            self._next_warning = now + WARN_EVERY_SECONDS
            self._log.warning(
                "no record acknowledged for %.0f s; %d wait, in order",
                *(now - self._last_progress, len(sent)),
            )
            self._on_stalled()

    def _check_offset(self, record: Any) -> None:
        """Warn when another producer's records are between this one and the one before."""
        partition = (record.topic, record.partition)
        expected = self._next_offsets.get(partition, record.offset)
        self._next_offsets[partition] = record.offset + 1
        if record.offset > expected:
            self._warnings.warn(
                "between",
                f"{record.topic} partition {record.partition} offset {expected}:"
                f" {record.offset - expected} records of another producer; if it is a second"
                " datagenerator, stop one: both send the same ids",
            )
