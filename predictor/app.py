"""The predictor: predicts each record with the newest model before it looks at its label."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
from collections.abc import Callable
from functools import partial

from predictor.accuracy_log import AccuracyLog
from predictor.history import History
from predictor.model_feed import ModelFeed
from predictor.model_shelf import ModelShelf
from predictor.predictor import BrokenModelError, Outcome, predict_unit
from predictor.settings import PredictorSettings
from predictor.statuses import Statuses
from predictor.summary import Summary
from predictor.units import Units
from stream.deadlines import DeadlineExceeded
from stream.parallel import use_threads
from stream.service import Stop, run

log = logging.getLogger("predictor")


def main(settings: PredictorSettings, stop: Stop) -> None:
    """Predict until told to stop."""
    use_threads()
    history = History(settings, stop, log)
    accuracy_log = AccuracyLog(settings.log_file, settings.log_max_bytes, history, log)
    shelf = ModelShelf()
    with (
        history,
        Units(settings, stop, log, accuracy_log.fill_in) as units,
        Statuses(settings, stop, log) as statuses,
        ModelFeed(settings, shelf, statuses, stop, log) as feed,
    ):
        summary = Summary(units, shelf, log)
        while True:
            stop.check()
            feed.check()
            model, previous = shelf.serve()
            unit = units.poll(model.version if model else 0, shelf.barred)
            if unit is None or model is None:
                stop.until_stopped(accuracy_log.catch_up)
                continue
            predict = partial(predict_unit, unit.records, model, previous, units.tallies)
            try:
                outcome = in_time(predict, settings.model_predict_seconds, stop)
            except BrokenModelError as error:
                statuses.barred(model.version, str(error))
                shelf.bar(model.version)
                units.again()
                continue
            if units.commit(unit, outcome):
                statuses.serving(model.version, outcome)
                summary.take(model.version, outcome)
                stop.until_stopped(partial(accuracy_log.append, outcome.counted))


def in_time(predict: Callable[..., Outcome], seconds: float, stop: Stop) -> Outcome:
    """Predict a unit within a deadline, and split it for half of that time at most.

    Parameters
    ----------
    predict : callable
        `predict_unit`, but for its `seconds`.
    seconds : float
        The setting ``MODEL_PREDICT_SECONDS``.

    Raises
    ------
    BrokenModelError
        When the model does not answer in time. Its thread is abandoned.
    Stopped
    """
    try:
        return stop.deadline(seconds, partial(predict, seconds / 2), max_step=1.0)
    except DeadlineExceeded:
        stop.check()  # once the service is told to end, a call has less time
        raise BrokenModelError(
            f"model error: no answer within MODEL_PREDICT_SECONDS={seconds:g}"
        ) from None


if __name__ == "__main__":
    run("predictor", PredictorSettings, main)
