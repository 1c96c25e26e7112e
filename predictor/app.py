"""The predictor: predicts each record before it looks at its label, with the newest model."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
import time
from functools import partial

from predictor.accuracy_log import AccuracyLog
from predictor.history import History
from predictor.model_feed import ModelFeed
from predictor.predictor import BrokenModelError, Outcome, predict_unit
from predictor.settings import PredictorSettings
from predictor.units import Unit, Units
from stream import clients
from stream.classifier import Model
from stream.service import Stop, run

log = logging.getLogger("predictor")


def main(settings: PredictorSettings, stop: Stop) -> None:
    """Predict until told to stop."""
    reader = clients.connect(lambda: clients.consumer(settings), settings, stop, log)
    history = History(reader, settings, stop, settings.log_backfill)
    accuracy_log = AccuracyLog(settings.log_file, settings.log_max_bytes, history, log)
    with (
        Units(settings, stop, log, accuracy_log.fill_in) as units,
        ModelFeed(settings, stop, log) as feed,
    ):
        summary = Summary(units, feed)
        while True:
            stop.check()
            model = feed.serve()
            unit = units.poll(model.version if model else 0, feed.barred)
            if unit is None or model is None:
                stop.heeded(accuracy_log.catch_up)
                continue
            try:
                outcome = predict_unit(unit.records, model, feed.previous, units.tallies)
            except BrokenModelError as error:
                feed.bar(model, str(error))
                units.again()
                continue
            if units.commit(unit, outcome):
                summary.take(model, unit, outcome)
                stop.heeded(partial(accuracy_log.append, outcome.counted))


class Summary:
    """Says once a second how it goes, and since when a model serves.

    Parameters
    ----------
    units : Units
    feed : ModelFeed
    """

    def __init__(self, units: Units, feed: ModelFeed) -> None:
        self._units = units
        self._feed = feed
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
        log.info(
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


if __name__ == "__main__":
    run("predictor", PredictorSettings, main)
