"""How many records are due, and how fast they went."""

from __future__ import annotations

import time
from collections.abc import Callable

TICK_SECONDS = 0.02
CATCH_UP_SECONDS = 0.5
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
