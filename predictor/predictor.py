"""The decisions about a unit of work: what is predicted, what is rejected, what is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

import numpy as np

from predictor.consumed import Consumed
from predictor.tally import Tally
from stream.classifier import Answer, Matrix, Model
from stream.deadlines import DeadlineExceeded
from stream.models import ModelError
from stream.records import Prediction, Record, Rejected
from stream.service import Stop

_SAMPLE = 16
_ENOUGH_TO_BLAME_A_SOLE_MODEL = 10


@dataclass
class Result:
    """What became of the records of a unit of work.

    Attributes
    ----------
    predictions : list of (Prediction, bytes or None)
        Each with the key of its record.
    counted : list of Prediction
        The predictions that count.
    tallies : dict of int to Tally
        The tally of each partition, after these records.
    offsets : dict of int to int
        The next offset of each partition, after these records.
    """

    predictions: list[tuple[Prediction, bytes | None]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counted: list[Prediction] = field(default_factory=list)
    tallies: dict[int, Tally] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.predictions) + len(self.rejected)


class BrokenModelError(Exception):
    """The model raises on most of a unit, or hangs: the model is at fault, not the records."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(reason)
        self.version = version


def predict_within(
    seconds: float,
    stop: Stop,
    records: Sequence[Consumed],
    model: Model | None,
    previous: Model | None,
    tallies: Mapping[int, Tally],
) -> Result:
    """Predict a unit within a deadline, and split it for half of that time at most.

    Parameters
    ----------
    seconds : float
        The setting ``MODEL_PREDICT_SECONDS``.

    Raises
    ------
    BrokenModelError
        When the model does not answer in time, too. Its thread is abandoned.
    Stopped
    """
    predict = partial(predict_unit, records, model, previous, tallies, seconds / 2)
    if model is None:
        return predict()
    try:
        return stop.deadline(seconds, predict, max_step=1.0)
    except DeadlineExceeded:
        reason = f"model error: no answer within MODEL_PREDICT_SECONDS={seconds:g}"
        raise BrokenModelError(model.version, reason) from None


def predict_unit(
    records: Sequence[Consumed],
    model: Model | None,
    previous: Model | None,
    tallies: Mapping[int, Tally],
    seconds: float = inf,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Predict each record before looking at its label, then count.

    Where `model` raises, the unit is split until the records that cause it are alone. That takes
    many calls of the model, so it ends early after `seconds`: then the result covers only the
    first records, at least one of them.

    Parameters
    ----------
    records : sequence of Consumed
        In the order of each partition.
    model : Model or None
        Predicts the whole unit. Without one, the result ends before the first record that only a
        model can answer.
    previous : Model or None
        The model served before; tells whether `model` or the records are at fault.
    tallies : mapping of int to Tally
        The tally of each partition before the unit; not changed.
    seconds : float
        When to stop splitting.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    BrokenModelError
        When `model` raises on most records and the records are not at fault.
    """
    end = clock() + seconds
    result = Result()
    decoded = [_decode(consumed, model) for consumed in records]
    valid = [record for record in decoded if isinstance(record, Record)]
    matrix = np.array([record.features for record in valid], dtype=np.float64)
    answers = iter(_predict(matrix, model, previous, lambda: clock() >= end) if model else ())
    for consumed, record in zip(records, decoded, strict=True):
        answer = next(answers, None) if isinstance(record, Record) else record
        if answer is None:
            break
        source = (partition := consumed.partition, consumed.offset)
        if partition not in result.tallies:
            result.tallies[partition] = replace(tallies[partition])
        tally = result.tallies[partition]
        result.offsets[partition] = consumed.last + 1
        if isinstance(record, str) or isinstance(answer, str):
            tally.rejected += 1
            result.rejected.append(consumed.rejected(str(answer)))
            continue
        assert model is not None  # who else has answered?
        label, probability = answer
        seen = model.envelope.trained_on_record(*source)
        counted = tally.count(label, record.label, seen)
        tally.model = model.version
        prediction = Prediction(
            record.id,
            label,
            probability,
            record.label,
            tally.n,
            tally.correct,
            model.version,
            source,
            seen,
        )
        result.predictions.append((prediction, consumed.key))
        if counted:
            result.counted.append(prediction)
    return result


def _decode(consumed: Consumed, model: Model | None) -> Record | str:
    """Return the record, or the reason why it cannot be predicted."""
    record = consumed.decode()
    if model is None or isinstance(record, str):
        return record
    expected = model.envelope.features
    if len(record.features) != expected:
        return f"features: expected {expected} numbers, got {len(record.features)}"
    if (index := model.envelope.wrongly_null(record.features)) is not None:
        names = model.envelope.feature_names
        name = f" {names[index][:100]!r}" if names else ""
        return f"features[{index}]{name}: null, and model {model.version} accepts none there"
    return record


def _predict(
    matrix: Matrix, model: Model, previous: Model | None, overdue: Callable[[], bool]
) -> list[Answer]:
    """Predict all rows, or the first of them where `model` raises and time runs out."""
    if not len(matrix):
        return []
    try:
        return list(zip(*model.predict(matrix), strict=True))
    except ModelError as error:
        if _is_broken(matrix, model, previous):
            raise BrokenModelError(model.version, str(error)) from None
        return model.answers(matrix, overdue)


def _is_broken(matrix: Matrix, model: Model, previous: Model | None) -> bool:
    """Tell a broken model from bad records, on a sample of rows predicted one by one."""
    if model.envelope.accepts_missing_in is not None:
        # Nobody said that it takes them together: a record without several features is at fault.
        matrix = matrix[np.isnan(matrix).sum(axis=1) <= 1]
    step = max(1, -(-len(matrix) // _SAMPLE))
    sample = [matrix[i : i + 1] for i in range(0, len(matrix), step)]
    failed = [row for row in sample if not model.predicts(row)]
    if 2 * len(failed) <= len(sample):
        return False
    if previous is None:
        return len(sample) >= _ENOUGH_TO_BLAME_A_SOLE_MODEL
    return any(previous.predicts(row) for row in failed)
