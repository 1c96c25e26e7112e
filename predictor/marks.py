"""Where predictions stand on their topic, so that not all of it has to be read back."""

from __future__ import annotations

import math
from bisect import bisect

MARK_EVERY = 1_000


class Marks:
    """Remembers where predictions of a partition stand on their topic, one in `MARK_EVERY`.

    Parameters
    ----------
    known_from : int
        Where the first one stands, or before it.
    """

    def __init__(self, known_from: int) -> None:
        self._marks = [(-1, known_from)]
        self._unmarked = MARK_EVERY
        self._newest = -1

    def add(self, offset: int, at: int) -> None:
        """Take in the next prediction: of the record at `offset`, standing at `at`.

        One that was there before, such as a replay, changes nothing.
        """
        if offset <= self._newest:
            return
        self._newest = offset
        self._unmarked += 1
        if self._unmarked > MARK_EVERY:
            self._marks.append((offset, at))
            self._unmarked = 1

    def known_from(self, expired_to: int) -> int:
        """Return an offset from which on all predictions stand that are not expired."""
        return self._marks[bisect(self._marks, (expired_to, math.inf)) - 1][1]

    def expire(self, expired_to: int) -> None:
        """Forget marks that are not needed any more."""
        del self._marks[: bisect(self._marks, (expired_to, math.inf)) - 1]
