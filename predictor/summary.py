"""How the predictor says how it goes."""

from __future__ import annotations

import logging
import time

from predictor.model_feed import ModelFeed
from predictor.predictor import Outcome
from predictor.units import Unit, Units
from stream.classifier import Model


class Summary:
    """Says once a second how it goes, and since when a model serves.

    Parameters
    ----------
    units : Units
    feed : ModelFeed
    log : logging.Logger
    """

    def __init__(self, units: Units, feed: ModelFeed, log: logging.Logger) -> None:
        self._units = units
        self._feed = feed
        self._log = log
        self._records, self._since = 0, time.monotonic()
        self._serving = 0

    def take(self, model: Model, unit: Unit, outcome: Outcome) -> None:
        """Take in a committed unit."""
        if model.version != self._serving and outcome.predictions:
            self._serving = model.version
            first: dict[str, int] = {}
            for prediction, _ in outcome.predictions:
                first.setdefault(str(prediction.source[0]), prediction.source[1])
            self._feed.served(model, first)
        self._records += len(unit.records)
        elapsed = time.monotonic() - self._since
        if elapsed < 1.0:
            return
        tallies = self._units.tallies.values()
        n, correct = sum(t.n for t in tallies), sum(t.correct for t in tallies)
        self._log.info(
            "n=%d accuracy=%.6f model=%d swaps=%d refused=%d records/s=%.0f rejected=%d lag=%d",
            n,
            correct / n if n else float("nan"),
            model.version,
            self._feed.swaps,
            self._feed.refused,
            self._records / elapsed,
            sum(t.rejected for t in tallies),
            self._units.lag(),
        )
        self._records, self._since = 0, time.monotonic()
