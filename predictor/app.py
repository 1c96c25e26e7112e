"""The predictor: predicts each record with the newest model before it looks at its label."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

from functools import partial

from predictor import metrics
from predictor.accuracy_log import AccuracyLog
from predictor.history import History
from predictor.model_feed import ModelFeed
from predictor.model_shelf import ModelShelf
from predictor.predictor import BrokenModelError, predict_within
from predictor.settings import PredictorSettings
from predictor.statuses import Statuses
from predictor.summary import Summary
from predictor.units import Units
from stream.parallel import use_threads
from stream.service import Stop, run


def main(settings: PredictorSettings, stop: Stop) -> None:
    """Predict until told to stop."""
    use_threads()
    shelf, history = ModelShelf(), History(settings, stop)
    accuracy_log = AccuracyLog(settings.log_file, settings.log_max_bytes, history)
    with (
        history,
        Units(settings, stop, accuracy_log.fill_in) as units,
        Statuses(settings, stop) as statuses,
        ModelFeed(settings, shelf, statuses, stop) as feed,
    ):
        predict = partial(predict_within, settings.model_predict_seconds, stop)
        summary = Summary(units, shelf)
        while True:
            stop.check()
            feed.check()
            summary.write()
            model, previous = shelf.serve()
            unit = units.poll(model.version if model else 0, shelf.barred, shelf.layout)
            if unit is None:
                stop.until_stopped(accuracy_log.catch_up)
                continue
            model, previous = shelf.newer(model, previous)  # it has come meanwhile
            try:
                result = predict(unit.events, model, previous, units.states, unit.ended, unit.most)
            except BrokenModelError as error:
                statuses.barred(error.version, str(error))
                shelf.bar(error.version)
                units.read_again()
                continue
            if units.commit(unit, result):
                statuses.serving(result, model)
                summary.take(result)
                metrics.committed(result)
                stop.until_stopped(partial(accuracy_log.append, result.counted))


if __name__ == "__main__":
    run("predictor", PredictorSettings, main)
