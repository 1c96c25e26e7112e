"""Sends in order, with a bound on what is unacknowledged."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from stream.service import WARN_EVERY_SECONDS, Stop, Warnings

MAX_UNACKNOWLEDGED = 10_000
STALLED_SECONDS = 10.0


class Outbox:
    """Sends through a producer; kafka-python's own would take records until memory ends.

    Parameters
    ----------
    producer : KafkaProducer
        Or anything whose ``send`` returns a future alike.
    stop : Stop
    log : logging.Logger
    stalled : callable
        Called when nothing was acknowledged for long; may raise to end the service.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        producer: Any,
        stop: Stop,
        log: logging.Logger,
        stalled: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._stop = stop
        self._log = log
        self._stalled = stalled
        self._warnings = Warnings(log, clock)
        self._clock = clock
        self._futures: deque[Any] = deque()
        self._progress = clock()
        self._warn_from = -math.inf
        self._next_offsets: dict[tuple[str, int], int] = {}
        self.acknowledged = 0

    def send(self, topic: str, value: bytes, partition: int, key: bytes | None = None) -> None:
        """Send a record, once there is room for it.

        Raises
        ------
        KafkaError
            When this record, or one before it, cannot be delivered.
        Stopped
        """
        if len(self._futures) >= MAX_UNACKNOWLEDGED:
            self.settle(MAX_UNACKNOWLEDGED // 2)
        self._futures.append(self._producer.send(topic, value, key=key, partition=partition))

    def settle(self, remaining: int = 0) -> None:
        """Wait until at most `remaining` records are unacknowledged.

        Raises
        ------
        KafkaError
            When a record cannot be delivered.
        Stopped
        """
        self.look()
        while len(self._futures) > remaining:
            self._stop.wait(0.005)
            self.look()

    def look(self) -> None:
        """Take note of what was acknowledged, and warn when nothing is for long.

        Raises
        ------
        KafkaError
            When a record cannot be delivered.
        """
        futures, before = self._futures, len(self._futures)
        while futures and futures[0].is_done:
            if futures[0].exception is not None:
                raise futures[0].exception
            self._stands(futures.popleft().value)
        self.acknowledged += before - len(futures)
        now = self._clock()
        if not futures or len(futures) < before:
            self._progress = now
        elif now - self._progress > STALLED_SECONDS and now >= self._warn_from:
            self._warn_from = now + WARN_EVERY_SECONDS
            self._log.warning(
                "no record acknowledged for %.0f s, %d wait; they stay in order until the broker"
                " takes them",
                *(now - self._progress, len(futures)),
            )
            self._stalled()

    def _stands(self, record: Any) -> None:
        """Take note of where a record stands, and warn when somebody else's stand before it."""
        place = (record.topic, record.partition)
        expected = self._next_offsets.get(place, record.offset)
        self._next_offsets[place] = record.offset + 1
        if record.offset > expected:
            self._warnings.warn(
                "between",
                f"{record.topic} partition {record.partition} offset {expected}:"
                f" {record.offset - expected} records of somebody else; if that is another"
                " datagenerator, ids stand there twice: run only one",
            )
