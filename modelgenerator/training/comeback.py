"""When a model of a former concept serves in place of the vote, and when it hands back."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from estimators.vote import Floats
from modelgenerator.training.archive import Archive, Frozen
from modelgenerator.training.gate import Gate
from modelgenerator.training.learner import wrong
from modelgenerator.training.learning import Labels
from modelgenerator.training.standings import Standing

SEARCH = 500
"""Records after an alarm within which a model comes back."""

COMPARED = 100
"""Newest records on which models are compared with the vote."""

HALF_LIFE = 200.0
"""Of the standings by which a model hands back to the vote."""


class Comeback:
    """Keeps the best model of each concept, and brings it back when the concept comes again.

    Attributes
    ----------
    model : Frozen or None
        What serves in place of the vote.
    archive : Archive
        The models that may come back.
    """

    def __init__(self) -> None:
        self.model: Frozen | None = None
        self.archive = Archive()
        self._at = self._began = 0
        self._alarm_at: int | None = None
        self._right: deque[bool] = deque(maxlen=COMPARED)
        self._standings = Standing(Gate()), Standing(Gate())

    def take(self, votes: Floats, matrix: Any, labels: Labels, threshold: float) -> Floats:
        """Take the votes on the next records; return what served: these, or the model's own.

        Parameters
        ----------
        votes : array of float
            Probability of label 1 of each record.
        matrix, labels, threshold
            The records, and the probability from which on one is labelled 1.
        """
        self._at += len(labels)
        vote_wrong = wrong(votes, labels, threshold)
        self._right.extend(not each for each in vote_wrong)
        if not self.model:
            return votes
        own = self.model.votes(matrix)
        both = vote_wrong, wrong(own, labels, threshold)
        for standing, found in zip(self._standings, both, strict=True):
            standing.add(np.array(found, dtype=np.float64), labels)
        return own

    def end_concept(self, matrix: Any) -> None:
        """Keep the model of the concept that an alarm has ended, unless one agrees on `matrix`."""
        self.archive.keep(self._at, self._began, matrix)
        self._alarm_at = self._began = self._at
        self.model = None

    def look(self, best: Frozen, matrix: Any, labels: Labels, threshold: float) -> str:
        """Bring a model back, or hand back to the vote; return why, nothing if all stays.

        Parameters
        ----------
        best : Frozen
            The best recipe's model now, which the archive may keep one day.
        matrix, labels, threshold
            The newest `COMPARED` records, and the probability from which on one is labelled 1.
        """
        self.archive.remember(self._at, best)
        if self.model:
            vote, own = (standing.value or 0.0 for standing in self._standings)
            if vote <= own:
                return ""
            self.model = None
            return f"archive (the vote is right on {vote:.3f}, the archived model on {own:.3f})"
        if self._alarm_at is None or self._at - self._alarm_at > SEARCH:
            return ""
        right = np.array(self._right)[-len(labels) :]
        self.model = self.archive.better(right, matrix, labels, threshold)
        if not self.model:
            return ""
        self._standings = Standing(Gate(), HALF_LIFE), Standing(Gate(), HALF_LIFE)
        return (
            f"archive (a former {self.model.recipe} is right on"
            f" {self.model.right(matrix, labels, threshold).mean():.2f} of the last {len(labels)}"
            f" records, the vote on {right.mean():.2f})"
        )
