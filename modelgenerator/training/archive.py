"""Models of concepts that may come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimators.vote import Floats, positive
from modelgenerator.training.learning import Labels
from stream.models import Former

KEPT = 10
"""Models that are kept, at most; the oldest one gives way."""

CONCEPT = 3_000
"""Records that a concept must have lasted to be worth keeping."""

BEFORE_ALARM = 600
"""Records before an alarm from which the model is taken: later ones have learnt from the drift."""

ALIKE = 0.95
"""Share of records on which two models agree that are taken for one."""

STANDARD_ERRORS = 3.0
"""By which it has to be better than the vote."""

WORSE = 0.05
"""How much worse than formerly it may be, besides one standard error."""


class VotePlace(NamedTuple):
    """A vote on the model topic: its version, and an offset at or before its first part."""

    version: int
    after: int


class Frozen(NamedTuple):
    """A model that learns no more.

    Attributes
    ----------
    value : float
        The share of right predictions that it had.
    place : VotePlace or None
        Of a published vote with a model of this recipe that learnt hardly less.
    """

    recipe: str
    model: Any
    value: float
    place: VotePlace | None = None

    def votes(self, matrix: Any) -> Floats:
        """Return the probability of label 1 of each record; one half where the model raises."""
        try:
            return positive(self.model, matrix)
        except Exception:  # noqa: BLE001 - a recipe of one's own may raise anything
            return np.full(len(matrix), 0.5)

    def right(self, matrix: Any, labels: Labels, threshold: float) -> NDArray[np.bool_]:
        """Tell of each record whether it is predicted right."""
        found: NDArray[np.bool_] = (self.votes(matrix) > threshold) == (labels == 1)
        return found


class Archive:
    """Keeps the best model of each concept, and finds the one that fits when a drift comes.

    Records are counted from the first one on; `at` is that count.
    """

    def __init__(self) -> None:
        self._kept: deque[Frozen] = deque(maxlen=KEPT)
        self._recent: deque[tuple[int, Frozen]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def formers(self) -> list[Former]:
        """What is kept, as far as it was published."""
        return [
            Former(**each.place._asdict(), recipe=each.recipe, accuracy=each.value)
            for each in self._kept
            if each.place
        ]

    def restore(self, kept: Iterable[Frozen]) -> None:
        """Keep what was kept before a restart."""
        self._kept.extend(kept)

    def remember(self, at: int, frozen: Frozen) -> None:
        """Remember what is the best model now."""
        self._recent.append((at, frozen))
        while len(self._recent) > 1 and self._recent[1][0] <= at - BEFORE_ALARM:
            self._recent.popleft()

    def keep(self, at: int, began: int, matrix: Any) -> None:
        """Keep the model of a concept that has ended with an alarm, if it lasted long enough.

        Parameters
        ----------
        began : int
            Where the concept began.
        matrix : matrix
            Some records, on which models are compared.
        """
        recent, self._recent = self._recent, deque()
        if at - began < CONCEPT or not recent or recent[0][0] > at - BEFORE_ALARM:
            return
        new = recent[0][1]
        answers = new.votes(matrix) > 0.5
        for old in list(self._kept):
            if np.mean((old.votes(matrix) > 0.5) == answers) >= ALIKE:
                self._kept.remove(old)
                new = new._replace(place=new.place or old.place)
        self._kept.append(new)

    def better(
        self, right: NDArray[np.bool_], matrix: Any, labels: Labels, threshold: float
    ) -> Frozen | None:
        """Return the model that is clearly better than the vote, if there is one.

        Parameters
        ----------
        right : array of bool
            Whether the vote was right on the newest records.
        matrix, labels, threshold
            These records, and from which probability on one is labelled 1.
        """
        best, best_gain = None, 0.0
        for frozen in self._kept:
            own = frozen.right(matrix, labels, threshold)
            differ = own.astype(np.float64) - right
            gain, error = float(differ.mean()), float(differ.std(ddof=1) / np.sqrt(len(differ)))
            share = float(own.mean())
            spread = float(np.sqrt(frozen.value * (1 - frozen.value) / len(own)))
            if (
                gain > max(best_gain, STANDARD_ERRORS * error)
                and share >= frozen.value - WORSE - spread
            ):
                best, best_gain = frozen, gain
        return best
