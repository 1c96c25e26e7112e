"""The decisions about a unit of work: what is predicted, what is rejected, what is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from predictor.tally import Tally
from stream.classifier import Matrix, Model
from stream.deadlines import DeadlineExceeded
from stream.models import ModelError
from stream.records import (
    Prediction,
    Record,
    RecordError,
    Rejected,
    decode_record,
    reject,
)
from stream.service import Stop

KEY_LIMIT_BYTES = 10_000
"""A longer key is rejected: with it, a prediction could outgrow what a broker takes."""

Answers = tuple[list[int], list[float | None]]
"""Labels and probabilities, as of `Model.predict`."""

Ask = Callable[[Model, Matrix], Answers]

_Answer = tuple[int, float | None] | str
"""Label and probability, or the reason why there is none."""

_SAMPLE = 16
_ENOUGH_TO_BLAME_A_SOLE_MODEL = 10


class Consumed(NamedTuple):
    """A record as it came from the data topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass
class Outcome:
    """What became of a unit of work.

    Attributes
    ----------
    predictions : list of (Prediction, bytes or None)
        With the key of the record predicted.
    rejected : list of Rejected
    counted : list of Prediction
        Those of the predictions that count.
    tallies : dict of int to Tally
        The tally of each partition of the unit, after it.
    """

    predictions: list[tuple[Prediction, bytes | None]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counted: list[Prediction] = field(default_factory=list)
    tallies: dict[int, Tally] = field(default_factory=dict)


class BrokenModelError(Exception):
    """The model raises on most of a unit, or hangs: its own fault, not the records'."""


def predict_unit(
    records: Sequence[Consumed],
    model: Model,
    previous: Model | None,
    tallies: Mapping[int, Tally],
    ask: Ask = Model.predict,
) -> Outcome:
    """Predict each record before its label is looked at, then count.

    Parameters
    ----------
    records : sequence of Consumed
        In the order of each partition.
    model : Model
        Predicts the whole unit.
    previous : Model or None
        The one served before; judges whose fault it is when `model` raises.
    tallies : mapping of int to Tally
        The tally of each partition before the unit; left as they are.
    ask : callable
        Gets the predictions of a model for a matrix.

    Returns
    -------
    Outcome

    Raises
    ------
    BrokenModelError
        When `model` raises on most records and the records are not to blame, or hangs.
    """
    outcome = Outcome(tallies={c.partition: replace(tallies[c.partition]) for c in records})
    decoded = [_decode(consumed, model) for consumed in records]
    sound = [record for record in decoded if isinstance(record, Record)]
    matrix = np.array([record.features for record in sound], dtype=np.float64)
    answers = iter(_predict(matrix, model, previous, ask))
    for consumed, record in zip(records, decoded, strict=True):
        source = (consumed.partition, consumed.offset)
        tally = outcome.tallies[consumed.partition]
        answer = next(answers) if isinstance(record, Record) else record
        if isinstance(record, str) or isinstance(answer, str):
            tally.rejected += 1
            outcome.rejected.append(reject(source, consumed.value, str(answer)))
            continue
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
        outcome.predictions.append((prediction, consumed.key))
        if counted:
            outcome.counted.append(prediction)
    return outcome


def within(seconds: float, stop: Stop) -> Ask:
    """Return how to ask a model that may hang.

    Parameters
    ----------
    seconds : float
        Longest that an answer may take, of the setting ``MODEL_PREDICT_SECONDS``.
    stop : Stop

    Returns
    -------
    callable
        `Model.predict`, which raises `BrokenModelError` when it takes longer, its thread left
        behind, and `Stopped` when the service is told to end.
    """

    def ask(model: Model, matrix: Matrix) -> Answers:
        stop.check()
        try:
            return stop.deadline(seconds, partial(model.predict, matrix), max_step=1.0)
        except DeadlineExceeded:
            stop.check()  # then there was less time than that
            raise BrokenModelError(
                f"model error: no answer within MODEL_PREDICT_SECONDS={seconds:g}"
            ) from None

    return ask


def _decode(consumed: Consumed, model: Model) -> Record | str:
    """Return the record, or the reason why it cannot be predicted."""
    if consumed.key is not None and len(consumed.key) > KEY_LIMIT_BYTES:
        return f"key: at most {KEY_LIMIT_BYTES} bytes, got {len(consumed.key)}"
    try:
        record = decode_record(consumed.value)
    except RecordError as error:
        return str(error)
    expected = model.envelope.features
    if len(record.features) != expected:
        return f"features: expected {expected} numbers, got {len(record.features)}"
    if not model.envelope.accepts_missing and None in record.features:
        index = record.features.index(None)
        return f"features[{index}]: null, and model {model.version} accepts no missing features"
    return record


def _predict(matrix: Matrix, model: Model, previous: Model | None, ask: Ask) -> list[_Answer]:
    if not len(matrix):
        return []
    try:
        return list(zip(*ask(model, matrix), strict=True))
    except ModelError as error:
        if _is_broken(matrix, model, previous, ask):
            raise BrokenModelError(str(error)) from None
        return _halve(matrix, model, ask)


def _halve(matrix: Matrix, model: Model, ask: Ask) -> list[_Answer]:
    """Predict what can be predicted; the rows that raise alone get the reason instead."""
    try:
        return list(zip(*ask(model, matrix), strict=True))
    except ModelError as error:
        if len(matrix) == 1:
            return [str(error)]
        middle = len(matrix) // 2
        return _halve(matrix[:middle], model, ask) + _halve(matrix[middle:], model, ask)


def _is_broken(matrix: Matrix, model: Model, previous: Model | None, ask: Ask) -> bool:
    """Tell a broken model from bad records, on a sample of rows predicted one by one."""
    step = -(-len(matrix) // _SAMPLE)
    sample = [matrix[i : i + 1] for i in range(0, len(matrix), step)]
    failed = [row for row in sample if not _answers(model, row, ask)]
    if 2 * len(failed) <= len(sample):
        return False
    if previous is None:
        return len(sample) >= _ENOUGH_TO_BLAME_A_SOLE_MODEL
    return any(_answers(previous, row, ask) for row in failed)


def _answers(model: Model, row: Matrix, ask: Ask) -> bool:
    try:
        ask(model, row)
    except ModelError:
        return False
    return True
