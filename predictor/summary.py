"""How the predictor is doing, as a line of its log."""

from __future__ import annotations

import logging
import time

from predictor.model_shelf import ModelShelf
from predictor.predictor import Outcome
from predictor.units import Units


class Summary:
    """Logs once a second how the predictor is doing."""

    def __init__(self, units: Units, shelf: ModelShelf, log: logging.Logger) -> None:
        self._units = units
        self._shelf = shelf
        self._log = log
        self._records, self._since = 0, time.monotonic()

    def take(self, model: int, outcome: Outcome) -> None:
        """Take in a committed outcome and the version of the model that predicted it."""
        self._records += len(outcome)
        elapsed = time.monotonic() - self._since
        if elapsed < 1.0:
            return
        tallies = self._units.tallies.values()
        n, correct = sum(t.n for t in tallies), sum(t.correct for t in tallies)
        self._log.info(
            "n=%d accuracy=%.6f model=%d swaps=%d refused=%d records/s=%.0f rejected=%d lag=%d",
            n,
            correct / n if n else float("nan"),
            model,
            self._shelf.swaps,
            self._shelf.refused,
            self._records / elapsed,
            sum(t.rejected for t in tallies),
            self._units.lag(),
        )
        self._records, self._since = 0, time.monotonic()
