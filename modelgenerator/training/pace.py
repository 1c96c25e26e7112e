"""How training keeps up with a stream that is faster than it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

LOOK_SECONDS = 1.0
BEHIND_SECONDS = 1.0
"""How old records may be when they have been learnt from; beyond, training is behind."""

STRETCH = 32
"""Times more seldom than usual, at most; then recipes are left out."""

CALM_SECONDS = 1.0
"""How long it must not be behind until a step is taken back; twice as long each time that was too
soon, until `LONGEST_CALM_SECONDS`."""

LONGEST_CALM_SECONDS = 300.0


class Pace:
    """Trains more seldom while training is behind, then leaves out the costliest recipes.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    stretch : int
        How many times more seldom than usual recipes are trained.
    left_out : list of str
        Recipes that are neither trained nor vote.

    Examples
    --------
    >>> pace = Pace(clock=iter(range(100)).__next__)
    >>> pace.took(0.5, records=500)
    >>> pace.look(4_000, {"sgd": 0.1, "knn": 0.4})
    'training is 4.5 s behind: recipes are trained 4 times more seldom'
    >>> for _ in range(4):
    ...     pace.took(0.5, records=500)
    ...     said = pace.look(4_000, {"sgd": 0.1, "knn": 0.4})
    >>> said
    'training is 4.5 s behind: recipe knn is left out for now'
    >>> pace.stretch, pace.left_out
    (32, ['knn'])
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.stretch = 1
        self.left_out: list[str] = []
        self._clock = clock
        self._next_look = 0.0
        self._calm_since = clock()
        self._taken_back = -math.inf
        self._calm = CALM_SECONDS
        self._before: Mapping[str, float] = {}
        self._records, self._seconds, self._longest = 0, 0.0, 0.0

    def took(self, seconds: float, records: int) -> None:
        """Take in how long it took to learn from records that were read at once."""
        self._records += records
        self._seconds += seconds
        self._longest = max(seconds, self._longest)

    def look(self, unread: int, seconds: Mapping[str, float]) -> str | None:
        """Look once a second whether training is behind; return what changed, in words.

        Parameters
        ----------
        unread : int
            Records on the topic that were not read yet.
        seconds : mapping of str to float
            What each recipe has cost so far.
        """
        now = self._clock()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_SECONDS
        behind = self._longest + unread * self._seconds / max(1, self._records)
        self._records, self._seconds, self._longest = 0, 0.0, 0.0
        if behind > BEHIND_SECONDS:
            if now - self._taken_back <= self._calm:
                self._calm = min(2 * self._calm, LONGEST_CALM_SECONDS)
            self._calm_since, self._taken_back = now, -math.inf
            return self._slow_down(behind, seconds)
        if now - self._calm_since < self._calm or (self.stretch == 1 and not self.left_out):
            return None
        self._calm_since = self._taken_back = now
        if self.left_out:
            return f"recipe {self.left_out.pop()} is trained again"
        self.stretch //= 2
        return None if self.stretch > 1 else "recipes are trained as often as usual again"

    def _slow_down(self, behind: float, seconds: Mapping[str, float]) -> str | None:
        said = f"training is {behind:.1f} s behind:"
        if self.stretch < STRETCH:
            goal = min(STRETCH, max(2 * self.stretch, int(behind / BEHIND_SECONDS)))
            while self.stretch < goal:
                self.stretch *= 2
            return f"{said} recipes are trained {self.stretch} times more seldom"
        lately = {
            name: spent - self._before.get(name, 0.0)
            for name, spent in seconds.items()
            if name not in self.left_out
        }
        self._before = dict(seconds)
        if len(lately) < 2:
            return None
        costliest = max(lately, key=lately.__getitem__)
        self.left_out.append(costliest)
        return f"{said} recipe {costliest} is left out for now"
