"""The accuracy of a stream over time, in a bounded number of points."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

POINTS = 600
"""Most points, one more for what happens now."""


class Point(NamedTuple):
    """The accuracy at the end of a stretch of time.

    Attributes
    ----------
    time_ms : int
        The end of the stretch, in milliseconds since 1970.
    running : float
        Of all that was counted up to there.
    recent : float
        Of the last outcomes, as many as were asked for, or those of the stretch if it has more.
    model : int
        The newest version that was counted in the stretch.
    """

    time_ms: int
    running: float
    recent: float
    model: int


class History:
    """Counts the outcomes of the last seconds, in stretches of one length, in any order.

    So a history that is read again from the topics is the same as before.
    """

    def __init__(self, seconds: float) -> None:
        self._step_ms = 1_000 * seconds / POINTS
        self._stretches: dict[int, list[int]] = {}

    def count(self, time_ms: float, now_ms: float, right: bool, model: int) -> None:
        """Take in a prediction that is counted, unless its time is over."""
        number, first = int(min(time_ms, now_ms) // self._step_ms), self._first(now_ms)
        if number < first:
            return
        stretch = self._stretches.get(number)
        if stretch is None:
            self._stretches = {n: kept for n, kept in self._stretches.items() if n >= first}
            stretch = self._stretches[number] = [0, 0, 0]
        stretch[0] += 1
        stretch[1] += right
        if model > stretch[2]:
            stretch[2] = model

    def points(self, n: int, correct: int, recent: int, now_ms: float) -> Iterator[Point]:
        """Yield the points, oldest first.

        Parameters
        ----------
        n, correct : int
            The running counts now; those before the first stretch follow from them.
        recent : int
            How many outcomes `Point.recent` is of.
        """
        first = self._first(now_ms)
        stretches = sorted((k, v) for k, v in self._stretches.items() if k >= first)
        n = max(0, n - sum(counted for _, (counted, _, _) in stretches))
        correct = min(n, max(0, correct - sum(right for _, (_, right, _) in stretches)))
        last: deque[tuple[int, int]] = deque()
        held = held_right = 0
        for number, (counted, right, model) in stretches:
            n, correct = n + counted, correct + right
            last.append((counted, right))
            held, held_right = held + counted, held_right + right
            while held - last[0][0] >= recent:
                fewer, fewer_right = last.popleft()
                held, held_right = held - fewer, held_right - fewer_right
            end_ms = min(now_ms, (number + 1) * self._step_ms)
            yield Point(int(end_ms), correct / n, held_right / held, model)

    def _first(self, now_ms: float) -> int:
        return int(now_ms // self._step_ms) - POINTS
