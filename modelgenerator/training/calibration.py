"""Finds the calibration of a vote from the records that it has scored."""

from __future__ import annotations

from collections import deque

from sklearn.isotonic import IsotonicRegression

from estimators.vote import Calibration, Floats
from modelgenerator.training.learning import Labels

SCORED = 2_000
"""Latest scored records that it is fitted on."""

LEAST = 200
"""Records that it needs."""


class Calibrator:
    """Fits an isotonic regression on what a vote has said before it knew the labels.

    See Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates" (2002). Streams with noise in their labels need its steps: a logistic curve cannot
    say that hardly anything is surer than 90 %.
    """

    def __init__(self) -> None:
        self._votes: deque[float] = deque(maxlen=SCORED)
        self._labels: deque[int] = deque(maxlen=SCORED)

    def add(self, votes: Floats, labels: Labels) -> None:
        """Take the next votes and labels."""
        self._votes.extend(votes.tolist())
        self._labels.extend(labels.tolist())

    def fit(self) -> Calibration:
        """Return the calibration; the vote as it is, while there are too few records."""
        count = len(self._labels)
        if count < LEAST:
            return Calibration()
        surest = 1 / (count + 2)  # no record in so many was otherwise: that does not prove never
        found = IsotonicRegression(y_min=surest, y_max=1 - surest).fit(
            [*self._votes], [*self._labels]
        )
        return Calibration(tuple(found.X_thresholds_.tolist()), tuple(found.y_thresholds_.tolist()))
