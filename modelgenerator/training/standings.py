"""How good each recipe is now, and the weight that its newest model has in the vote."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from estimators.vote import Floats
from modelgenerator.training.gate import Gate
from modelgenerator.training.learning import Labels

HALF_LIFE = 500.0
"""Records after which a score counts half."""

SHARPNESS = 100.0
"""Of the weights: a recipe that is better by 0.01 has e times the weight."""

LEAST_WEIGHT = 0.001
"""Recipes with less do not vote; most time of a prediction is saved so."""


class Standing:
    """How good the newest models of a recipe were lately: a mean that fades, test-then-train.

    See Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine Learning
    90 (2013), for fading factors.

    Examples
    --------
    >>> standing = Standing(Gate())
    >>> standing.add(np.array([0.0, 0.0, 0.0, 1.0]), np.array([1, 1, 0, 0]))
    >>> round(standing.value, 2)
    0.75
    """

    def __init__(self, gate: Gate, half_life: float = HALF_LIFE) -> None:
        self._balanced = gate.name == "balanced_accuracy"
        self._factor = 0.5 ** (1 / half_life)
        self._losses, self._records = np.zeros(2), np.zeros(2)

    def add(self, losses: Floats, labels: Labels) -> None:
        """Take the losses of the next records, by the models that did not know them."""
        fading = self._factor ** np.arange(len(labels) - 1, -1, -1)
        ones = (labels == 1) * fading
        both = np.array([fading - ones, ones])
        self._losses = self._losses * self._factor ** len(labels) + both @ losses
        self._records = self._records * self._factor ** len(labels) + both.sum(axis=1)

    @property
    def ones(self) -> float:
        """The share of records that are labelled 1."""
        return float(self._records[1] / max(self._records.sum(), 1e-9))

    @property
    def value(self) -> float | None:
        """One less the mean loss; each label counts half if the gate is balanced."""
        there = self._records > 0
        if not there.any():
            return None
        if self._balanced:
            return 1 - float((self._losses[there] / self._records[there]).mean())
        return 1 - float(self._losses.sum() / self._records.sum())


def weights(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the weight of each recipe by its standing; those with hardly any are left out.

    Examples
    --------
    >>> weights({"a": 0.9, "b": 0.9, "c": 0.6})
    {'a': 0.5, 'b': 0.5}
    """
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return {name: 1 / len(values) for name in values}
    best = max(known.values())
    found = {name: math.exp(SHARPNESS * (value - best)) for name, value in known.items()}
    together = sum(found.values())
    found = {n: w / together for n, w in found.items() if w / together >= LEAST_WEIGHT}
    together = sum(found.values())
    return {name: weight / together for name, weight in found.items()}
