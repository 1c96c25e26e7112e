"""What makes one recipe better than another."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SURE = 0.01
"""Probabilities nearer to 0 or 1 count as this near: one record must not decide."""


@dataclass(frozen=True)
class Gate:
    """What makes a recipe better than another one.

    Parameters
    ----------
    name : str
        ``accuracy``, ``balanced_accuracy``, ``log_loss`` or ``cost``.
    false_positive, false_negative : float
        Of ``cost``: what a wrong 1 costs, and a wrong 0.
    """

    name: str = "accuracy"
    false_positive: float = 1.0
    false_negative: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a gate as the setting has it: ``accuracy``, ``cost:1,10``.

        Raises
        ------
        ValueError
        """
        if text in ("accuracy", "balanced_accuracy", "log_loss"):
            return cls(text)
        number = r"(\d+(?:\.\d+)?)"
        if found := re.fullmatch(f"cost:{number},{number}", text):
            costs = float(found[1]), float(found[2])
            if min(costs) > 0:
                return cls("cost", *costs)
        raise ValueError(
            "allowed are accuracy, balanced_accuracy, log_loss, and cost:FP,FN with what a wrong 1"
            " and a wrong 0 cost, as cost:1,10"
        )

    def threshold(self, ones: float) -> float:
        """Return the probability from which on a record is better labelled 1.

        Parameters
        ----------
        ones : float
            The share of records that are labelled 1.
        """
        if self.name == "cost":
            return self.false_positive / (self.false_positive + self.false_negative)
        return min(max(ones, _SURE), 1 - _SURE) if self.name == "balanced_accuracy" else 0.5

    def losses(self, probabilities: Floats, labels: NDArray[np.int64], threshold: float) -> Floats:
        """Return what each prediction is to be blamed for: 0 to 1, or the log loss."""
        if self.name == "log_loss":
            p = np.where(labels == 1, probabilities, 1 - probabilities)
            unlikely: Floats = -np.log(p.clip(_SURE, 1))
            return unlikely
        wrong: Floats = ((probabilities > threshold) != (labels == 1)).astype(np.float64)
        if self.name != "cost":
            return wrong
        cost = np.where(labels == 1, self.false_negative, self.false_positive)
        return wrong * (cost / max(self.false_positive, self.false_negative))
