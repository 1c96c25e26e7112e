"""What a label that comes later does: it meets its prediction, is held, or is rejected."""

from __future__ import annotations

import math

from msgspec.structs import replace

from predictor.consumed import ConsumedLabel
from predictor.early import EarlyLabels
from predictor.known import Given
from predictor.result import Result
from predictor.state import State
from stream.layout import Layout
from stream.records import Label, Prediction


def take(
    consumed: ConsumedLabel,
    layout: Layout | None,
    state: State,
    result: Result,
    data_ended: bool,
) -> None:
    """Take the next label of a partition, unless its predictions are still being read back.

    One whose record was not predicted yet is held. When too many are held, this label and those
    behind it are left to be read again, and nothing expires. At the end of the data, or once as
    many predictions are known as memory allows, the oldest one gives way.

    Parameters
    ----------
    layout : Layout or None
        Of the model that serves: it reads a label that is a text.
    data_ended : bool
        Whether the end of the data was reached after this label was read.
    """
    if state.labels_paused or state.rebuilding:
        return
    if not _answer(consumed, layout, state, result):
        if len(state.early) >= EarlyLabels.MOST:
            if not data_ended and not state.is_far_ahead:
                state.labels_paused = True
                return
            _reject_orphan(next(iter(state.early)), state, result)
        state.early.hold(consumed)
    state.tally.labels = consumed.last + 1


def take_early(prediction: Prediction, layout: Layout, state: State, result: Result) -> None:
    """Take the labels that were held until this prediction was made."""
    for consumed in state.early.of(prediction.id, prediction.source):
        _answer(consumed, layout, state, result)
        state.early.drop(consumed.offset)


def take_held(layout: Layout | None, state: State, result: Result) -> None:
    """Take the held labels whose records are known by now: a unit begins with it.

    Where predictions were read back, these labels come before those that were not read yet.
    Without a model, a label that is a text stays held.
    """
    if state.rebuilding:
        return
    for consumed in state.early:
        if _answer(consumed, layout, state, result):
            state.early.drop(consumed.offset)


def take_time(
    layout: Layout | None,
    state: State,
    result: Result,
    monotonic: float,
    wall: float,
    most: float,
) -> int:
    """Reject held labels that have become orphans, and expire predictions: a unit ends with it.

    Parameters
    ----------
    monotonic, wall : float
        Seconds on each clock.
    most : float
        Most predictions to get an assumed label; the others follow in the next unit.

    Returns
    -------
    int
        How many got one.
    """
    if state.rebuilding:
        return 0
    assumed = state.tally.assumed
    take_held(layout, state, result)  # their records may have been rejected
    if not state.labels_behind and not state.labels_paused:
        _expire(state, result, wall, most)
    for consumed in state.early.overdue(monotonic - state.settings.label_early_seconds):
        _reject_orphan(consumed, state, result)
    return state.tally.assumed - assumed


def _answer(consumed: ConsumedLabel, layout: Layout | None, state: State, result: Result) -> bool:
    """Let a label meet its prediction, or reject it; return whether it did not come too early."""
    label = consumed.read(layout)
    if label is None:
        return False
    found = label if isinstance(label, str) else _find(label, state)
    if isinstance(found, str):
        _reject(consumed, found, state, result)
    elif found is not None:
        assert isinstance(label, Label)
        given = state.known.given(found)
        if given and not label.revises:
            _reject(consumed, f"duplicate: {_said(given)}", state, result)
        else:
            _meet(consumed, int(label.label), found, given, state, result)
    return found is not None


def _find(label: Label, state: State) -> int | str | None:
    """Return the row of the prediction that a label means, why there is none, or ``None`` yet."""
    if label.source is None:
        assert label.id is not None  # one of them is given
        return state.known.named(label.id)
    where, offset = label.source
    if where != state.partition:
        return f"source: the label of a record in partition {where} belongs to partition {where}"
    if offset >= state.offset:
        return None
    if offset < state.tally.expired_to:
        return _orphan(state)
    row = state.known.at(offset)
    if row is None:
        return "orphan: no prediction of the record at this source"
    if label.id is not None and label.id != state.known.prediction(row, state.partition).id:
        return "id: it is not that of the record at this source"
    return row


def _meet(
    consumed: ConsumedLabel,
    label: int,
    row: int,
    given: Given | None,
    state: State,
    result: Result,
) -> None:
    tally, partition = state.tally, state.partition
    prediction = state.known.prediction(row, partition)
    delay = None
    if consumed.time is not None and prediction.time is not None:
        delay = (consumed.time - prediction.time) / 1000
    counted = False
    if given:
        tally.revise(prediction.prediction, given.label, label, prediction.seen)
    else:
        counted = tally.count_late(prediction.prediction, label, prediction.seen, delay)
    state.known.give(row, label, consumed.offset)
    outcome = replace(
        prediction,
        label=label,
        n=tally.n,
        correct=tally.correct,
        outcome="revised" if given else "labelled",
        labelled=(partition, consumed.offset),
        delay=delay,
    )
    result.predictions.append((outcome, consumed.key))
    if counted:
        result.counted.append(outcome)


def _expire(state: State, result: Result, wall: float, most: float) -> None:
    settings, tally, known = state.settings, state.tally, state.known
    assume = settings.label_assume is not None
    rows = known.expire(
        settings.label_wait_records,
        state.expires_before(wall),
        most if assume else math.inf,
    )
    tally.waiting -= len(rows)
    tally.expired_to = max(tally.expired_to, known.expired_to)
    if not assume:
        tally.expired += len(rows)
        return
    tally.assumed += len(rows)
    for row in rows:
        outcome = replace(
            known.prediction(row, state.partition),
            label=0,
            n=tally.n,
            correct=tally.correct,
            outcome="assumed",
        )
        result.predictions.append((outcome, None))


def _reject_orphan(consumed: ConsumedLabel, state: State, result: Result) -> None:
    """Reject a held label whose record did not come."""
    _reject(consumed, _orphan(state), state, result)
    state.early.drop(consumed.offset)


def _reject(consumed: ConsumedLabel, reason: str, state: State, result: Result) -> None:
    state.tally.orphans += 1
    result.rejected_labels.append(consumed.rejected(reason))


def _orphan(state: State) -> str:
    """Say that there is no prediction: once some are expired, it may have been one of them."""
    too_late = " or too late" if state.tally.expired_to or state.tally.expired else ""
    return f"orphan{too_late}: no such prediction waits for a label"


def _said(given: Given) -> str:
    """Say which label a record has already."""
    where = "inside" if given.at is None else f"from offset {given.at} of the label topic"
    return f"the record has the label {given.label} already, {where}"
