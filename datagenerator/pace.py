"""How many records are due, and how fast they went."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from datagenerator.metrics import RATE
from datagenerator.rows import Source, Timed
from datagenerator.settings import CATCH_UP_SECONDS, Settings

TICK_SECONDS = 0.02
BURST = 1_000
PROGRESS_SECONDS = 60.0


class Pace:
    """Counts the records that are due at a rate.

    At most half a second is caught up after a pause, so a broker that comes back is not flooded.

    Parameters
    ----------
    rate : float
        Records a second; 0: a burst is always due.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._last = clock()
        self._due = 0.0

    def take(self) -> int:
        """Return how many records to send now, at most `BURST`; they count as sent."""
        if not self._rate:
            return BURST
        now = self._clock()
        most = max(1.0, self._rate * CATCH_UP_SECONDS)
        self._due = min(most, self._due + (now - self._last) * self._rate)
        self._last = now
        due = min(BURST, int(self._due))
        self._due -= due
        return due


class Replay:
    """Yields records as far apart as their times are, and counts those that are due.

    What is late by more than half a second moves all that follow, as does a time that goes back.

    Parameters
    ----------
    speed : float
        How many times faster than the times say.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        records: Iterator[Timed],
        speed: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._speed = speed
        self._clock = clock
        self._before = math.nan
        self._due_at = clock()
        self._ready: deque[tuple[Timed, float]] = deque()

    def __iter__(self) -> Iterator[Timed]:
        while self._ready or self._fill():
            yield self._ready.popleft()[0]

    def take(self) -> int:
        """Return how many records to send now; one more than are left at the end."""
        now, due = self._clock(), 0
        self._due_at = max(self._due_at, now - CATCH_UP_SECONDS)
        while due < BURST and (due < len(self._ready) or self._fill()):
            if self._ready[due][1] > now:
                return due
            due += 1
        return min(due + 1, BURST)

    def _fill(self) -> bool:
        """Read another record and find when it is due; tell whether there is one."""
        for timed in self._records:
            if timed.time > self._before:
                self._due_at += (timed.time - self._before) / self._speed
            self._before = timed.time
            self._ready.append((timed, self._due_at))
            return True
        return False


def paced(
    settings: Settings, source: Source, first_id: int
) -> tuple[Iterator[Timed], Pace | Replay]:
    """Return the records from `first_id` on, and what counts those that are due."""
    if settings.time is None:
        RATE.set(settings.records_per_second)
        return source.records(first_id), Pace(settings.records_per_second)
    replay = Replay(source.records(first_id), settings.speed)
    return iter(replay), replay


def due(pace: Pace | Replay, records: Iterator[Timed]) -> tuple[list[Timed], bool]:
    """Return the records to send now, and whether they are the last."""
    number = pace.take()
    batch = list(islice(records, number))
    return batch, len(batch) < number


class Progress:
    """Says once a minute how many records were acknowledged, and how fast.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._before = 0

    def line(self, sent: int) -> str | None:
        """Return a line about `sent`, the records acknowledged so far; ``None`` until due."""
        now = self._clock()
        seconds, records = now - self._since, sent - self._before
        if seconds < PROGRESS_SECONDS:
            return None
        self._since, self._before = now, sent
        return f"sent={sent} rate={records / seconds:.1f}/s"
