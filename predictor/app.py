"""The predictor: predicts each record before it looks at its label, with the newest model."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
from functools import partial

from predictor.accuracy_log import AccuracyLog
from predictor.history import History
from predictor.model_feed import ModelFeed
from predictor.predictor import BrokenModelError, predict_unit, within
from predictor.settings import PredictorSettings
from predictor.summary import Summary
from predictor.units import Units
from stream import clients
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
        summary, ask = Summary(units, feed, log), within(settings.model_predict_seconds, stop)
        while True:
            stop.check()
            model, previous = feed.serve()
            unit = units.poll(model.version if model else 0, feed.barred)
            if unit is None or model is None:
                stop.until_stopped(accuracy_log.catch_up)
                continue
            try:
                outcome = predict_unit(unit.records, model, previous, units.tallies, ask)
            except BrokenModelError as error:
                feed.bar(model, str(error))
                units.again()
                continue
            if units.commit(unit, outcome):
                summary.take(model, unit, outcome)
                stop.until_stopped(partial(accuracy_log.append, outcome.counted))


if __name__ == "__main__":
    run("predictor", PredictorSettings, main)
