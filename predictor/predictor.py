"""The decisions about a unit of work: what is predicted, rejected and counted, in which order."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf

from predictor import labels
from predictor.consumed import Consumed, ConsumedLabel
from predictor.result import Result
from predictor.state import State
from stream.classifier import Answer, Model
from stream.deadlines import DeadlineExceeded
from stream.layout import Layout
from stream.models import ModelError
from stream.records import Cell, ModelInput, Prediction, RecordError
from stream.service import Stop

MAX_CELLS = 2**22
"""Numbers at which a matrix is full; a unit with more has several. As Python's floats they take
32 bytes each, until they are in the matrix."""

_CATEGORY_CELLS = 8
"""For how many of them a feature counts where some are categories: a text takes more memory."""

_SAMPLE = 16
_ENOUGH_TO_BLAME_A_SOLE_MODEL = 10

_Answered = tuple[ModelInput | str, Answer | str]
"""A record as the model takes it, or why it is invalid; and the answer, or why it is rejected."""


class BrokenModelError(Exception):
    """The model raises on most of a unit, or hangs: the model is at fault, not the records."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(reason)
        self.version = version


def predict_within(
    seconds: float,
    stop: Stop,
    events: Sequence[Consumed],
    model: Model | None,
    previous: Model | None,
    states: Mapping[int, State],
    ended: Collection[int] = (),
    most: float = inf,
) -> Result:
    """Predict a unit within a deadline, and split it for half of that time at most.

    Parameters
    ----------
    seconds : float
        The setting ``MODEL_PREDICT_SECONDS``.

    Raises
    ------
    BrokenModelError
        When the model does not answer in time, too. Its thread is abandoned; it touches no state.
    Stopped
    """

    def within(answer: Callable[[], list[_Answered]]) -> list[_Answered]:
        if model is None:
            return answer()
        try:
            return stop.deadline(seconds, answer, max_step=1.0)
        except DeadlineExceeded:
            reason = f"model error: no answer within MODEL_PREDICT_SECONDS={seconds:g}"
            raise BrokenModelError(model.version, reason) from None

    return predict_unit(events, model, previous, states, ended, most, seconds / 2, run=within)


def predict_unit(
    events: Sequence[Consumed],
    model: Model | None,
    previous: Model | None,
    states: Mapping[int, State],
    ended: Collection[int] = (),
    most: float = inf,
    seconds: float = inf,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    run: Callable[[Callable[[], list[_Answered]]], list[_Answered]] = lambda answer: answer(),
) -> Result:
    """Predict each record before looking at its label, then count; let later labels meet theirs.

    Where `model` raises, the unit is split until the records that cause it are alone. That takes
    many calls of the model, so it ends early after `seconds`: then the result covers only the
    first events, at least one record. What is not covered has to be given again: records from the
    `offset` of their state on, and labels from the `labels` of its tally on.

    Parameters
    ----------
    events : sequence of Consumed
        Records and labels, in the order of each partition that `merge` gives. They may be none:
        time alone can expire predictions.
    model : Model or None
        Predicts the whole unit, and its layout reads labels that are texts. Without one, the result
        ends before the first record or label that only a model can answer.
    previous : Model or None
        The model served before; tells whether `model` or the records are at fault.
    states : mapping of int to State
        The state of each partition. Those in the result are changed, until its ``commit`` or
        ``rollback``.
    ended : collection of int
        Partitions where these events reach what was the end of the data after all labels so far
        were read.
    most : float
        How many predictions may get an assumed label; the others follow in the next unit.
    seconds : float
        When to stop splitting.
    clock, wall : callable
        Monotonic seconds; seconds since 1970.
    run : callable
        Calls what asks the models; it changes no state.

    Raises
    ------
    BrokenModelError
        When `model` raises on most records and the records are not at fault. No state is changed.
    """
    answers = run(partial(_answer, events, model, previous, seconds, clock))
    return _settle(events, answers, model, states, ended, most, clock, wall)


def most_features(layout: Layout) -> int:
    """Return at how many features a matrix of this layout is full."""
    return MAX_CELLS // _CATEGORY_CELLS if layout.categories else MAX_CELLS


def _answer(
    events: Sequence[Consumed],
    model: Model | None,
    previous: Model | None,
    seconds: float,
    clock: Callable[[], float],
) -> list[_Answered]:
    """Return what becomes of the records among the events, in time; it may be fewer."""
    end = clock() + seconds
    records = (event for event in events if not isinstance(event, ConsumedLabel))
    found: list[_Answered] = []
    while decoded := list(_decoded(records, model)):
        rows = [record.features for record in decoded if isinstance(record, ModelInput)]
        answers = iter(_predict(rows, model, previous, lambda: clock() >= end) if model else ())
        for record in decoded:
            answer = next(answers, None) if isinstance(record, ModelInput) else record
            if record is None or answer is None:
                return found
            if isinstance(record, ModelInput):  # its features have had their use
                found.append((ModelInput(record.id, [], record.label), answer))
            else:
                found.append((record, answer))
        decoded.clear()  # before the next are decoded
        rows.clear()
    return found


def _decoded(records: Iterator[Consumed], model: Model | None) -> Iterator[ModelInput | str | None]:
    """Yield the next records until their features are as many as one matrix may have."""
    features, most = 0, most_features(model.layout) if model else MAX_CELLS
    while features < most and (consumed := next(records, None)):
        record = _read(consumed, model)
        features += len(record.features) if isinstance(record, ModelInput) else 0
        yield record


def _settle(
    events: Iterable[Consumed],
    answers: Iterable[_Answered],
    model: Model | None,
    states: Mapping[int, State],
    ended: Collection[int],
    most: float,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Result:
    """Count what the model has answered, and take the labels between."""
    result, remaining = Result(), iter(answers)
    layout = model.layout if model else None
    last = {e.partition: e.last for e in events if not isinstance(e, ConsumedLabel)}

    def data_ended(state: State) -> bool:
        return state.partition in ended and state.offset > last.get(state.partition, -1)

    def begun(partition: int) -> State:
        if partition not in result.states:
            labels.take_held(layout, result.begin(states[partition]), result)
        return states[partition]

    coming, left = iter(events), list[Consumed]()
    for event in coming:
        partition = event.partition
        if isinstance(event, ConsumedLabel):
            if layout is None and event.read(None) is None:
                left = [event, *coming]
                break
            state = begun(partition)
            labels.take(event, layout, state, result, data_ended(state))
            continue
        if (answered := next(remaining, None)) is None:
            left = [event, *coming]
            break
        state = begun(partition)
        state.offset = event.last + 1
        record, answer = answered
        if isinstance(record, str) or isinstance(answer, str):
            state.tally.rejected += 1
            result.rejected.append(event.rejected(str(answer)))
            continue
        assert model is not None  # who else has answered?
        label, probability = answer
        source = (partition, event.offset)
        seen = model.envelope.trained_on_record(*source)
        tally = state.tally
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
            event.time,
        )
        result.predictions.append((prediction, event.key))
        if counted:
            result.counted.append(prediction)
        if not state.rebuilding:
            state.known.add(prediction)
            if state.early:
                labels.take_early(prediction, model.layout, state, result)
    for event in left:
        if isinstance(event, ConsumedLabel):
            states[event.partition].labels_left = True
    monotonic, now = clock(), wall()
    for partition, state in states.items():
        if state.is_due(data_ended(state), monotonic, now) or partition in result.states:
            most -= labels.take_time(layout, result.begin(state), result, monotonic, now, most)
    return result


def _read(consumed: Consumed, model: Model | None) -> ModelInput | str | None:
    """Return the record, why it cannot be predicted, or ``None`` where only a model can say."""
    record = consumed.decode()
    if model is None or isinstance(record, str):
        return record if isinstance(record, str) else None
    try:
        found = model.layout.read(record)
    except RecordError as error:
        return str(error)
    if (index := model.envelope.wrongly_null(found.features)) is not None:
        return f"{model.layout.place(index)}: null, and model {model.version} accepts none there"
    return found


def _predict(
    rows: list[Sequence[Cell]], model: Model, previous: Model | None, overdue: Callable[[], bool]
) -> list[Answer]:
    """Predict all rows, or the first of them where `model` raises and time runs out."""
    if not rows:
        return []
    try:
        return list(zip(*model.predict(rows), strict=True))
    except ModelError as error:
        if _is_broken(rows, model, previous):
            raise BrokenModelError(model.version, str(error)) from None
        return model.answers(rows, overdue)


def _is_broken(rows: list[Sequence[Cell]], model: Model, previous: Model | None) -> bool:
    """Tell a broken model from bad records, on a sample of rows predicted one by one."""
    if model.envelope.accepts_missing_in is not None:
        # Nobody said that it takes them together: a record without several features is at fault.
        rows = [row for row in rows if sum(cell is None for cell in row) <= 1]
    step = max(1, -(-len(rows) // _SAMPLE))
    sample = [rows[i : i + 1] for i in range(0, len(rows), step)]
    failed = [row for row in sample if not model.predicts(row)]
    if 2 * len(failed) <= len(sample):
        return False
    if previous is None or previous.layout != model.layout:  # it says nothing about these rows
        return len(sample) >= _ENOUGH_TO_BLAME_A_SOLE_MODEL
    return any(previous.predicts(row) for row in failed)
