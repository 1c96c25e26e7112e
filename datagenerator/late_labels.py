"""Which records get a label, and when; knows no Kafka."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

from datagenerator.settings import LONGEST_RANDOM, Settings
from stream.records import Label

MOST_WAITING = 1_000_000
"""Labels that may wait; beyond that, the one that is due first is sent before its time."""


class LateLabels:
    """Keeps labels until they are due.

    Which records get one, and how long after them, follows from ``SEED`` and the number of the
    record, or from its row, so that it is the same after a restart.

    Parameters
    ----------
    clock : callable
        Seconds since 1970, as the timestamps of records.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._seed = settings.seed
        self._share = settings.label_share
        self._speed = settings.speed
        self._kind, self._length = settings.delay
        self._clock = clock
        self._newest = -1
        self._waiting: list[tuple[float, int, Label, int]] = []  # due, number, label, partition

    def __len__(self) -> int:
        return len(self._waiting)

    def has_label(self, number: int) -> bool:
        """Tell whether a record ever gets a label."""
        return self._share == 1 or self._random("share", number) < self._share

    def add(
        self,
        number: int,
        label: Label,
        partition: int,
        sent: float | None = None,
        delay: float | None = None,
    ) -> None:
        """Keep a label.

        Parameters
        ----------
        sent : float, optional
            When its record was sent; now if nothing is given.
        delay : float, optional
            Seconds from the time of its row to that of its label, with ``LABEL_TIME``.
        """
        due: float = number + self._length
        if self._kind != "records":
            seconds = self._seconds(number) if delay is None else delay / self._speed
            due = (self._clock() if sent is None else sent) + seconds
        heappush(self._waiting, (due, number, label, partition))

    def due(self, newest: int) -> Iterator[tuple[int, Label, int]]:
        """Yield the labels that are due once record `newest` is sent: number, label, partition."""
        self._newest = max(self._newest, newest)
        now = self._newest if self._kind == "records" else self._clock()
        while self._waiting and (self._waiting[0][0] <= now or len(self) > MOST_WAITING):
            _, number, label, partition = heappop(self._waiting)
            yield number, label, partition

    def rest(self) -> Iterator[tuple[int, Label, int]]:
        """Yield what is due now that no record follows."""
        return self.due(2**63 if self._kind == "records" else self._newest)

    def _seconds(self, number: int) -> float:
        if self._kind == "exponential":
            times = -math.log(1 - self._random("delay", number))
            return self._length * min(LONGEST_RANDOM, times)
        return self._length

    def _random(self, what: str, number: int) -> float:
        return random.Random(f"{self._seed} {what} {number}").random()
