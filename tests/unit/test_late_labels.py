from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from predictor.consumed import Consumed, ConsumedLabel
from predictor.early import EarlyLabels
from predictor.predictor import BrokenModelError, predict_unit
from predictor.result import Result
from predictor.state import State
from predictor.tally import Tally
from stream.classifier import Model
from stream.records import Prediction, Record, Rejected, encode_record
from tests.unit.classifiers import Sign, model
from tests.unit.states import states

UNDECODABLE = "batch: cannot be decoded: CRC mismatch"


def record(
    offset: int,
    label: int | None = None,
    id: int | str | None = None,
    feature: float = 1.0,
    time: int | None = None,
) -> Consumed:
    """Make a record that is predicted as 1 if its feature is positive; its id is its offset."""
    value = encode_record(Record(offset if id is None else id, [feature, 0.0], label))
    return Consumed(0, offset, b"record", value, None, 1_000 * offset if time is None else time)


def label(offset: int, label: int = 1, time: int | None = 0, **fields: Any) -> ConsumedLabel:
    value = json.dumps({"label": label} | fields).encode()
    return ConsumedLabel(0, offset, b"label", value, None, time)


class Partition:
    """One partition, given unit after unit; each is committed."""

    def __init__(self, tally: Tally | None = None, **settings: Any) -> None:
        self.states = states(tally or Tally(), **settings)
        self.model: Model | None = model(7)
        self.now = 0.0
        self.wall = 0.0
        self.most = math.inf

    @property
    def state(self) -> State:
        return self.states[0]

    @property
    def tally(self) -> Tally:
        return self.state.tally

    def unit(self, *events: Consumed, ended: bool = False) -> Result:
        """Predict a unit and commit it."""
        result = self.predict(*events, ended=ended)
        result.commit()
        return result

    def predict(self, *events: Consumed, ended: bool = False, seconds: float = math.inf) -> Result:
        """Predict a unit."""
        return predict_unit(
            events,
            self.model,
            None,
            self.states,
            {0} if ended else (),
            self.most,
            seconds,
            lambda: self.now,
            lambda: self.wall,
        )


def outcomes(result: Result) -> list[tuple[str | None, int, int | None]]:
    """Return what stands on the prediction topic: outcome, offset of the record, label."""
    return [(p.outcome, p.source[1], p.label) for p, _ in result.predictions]


def rejected(result: Result) -> list[tuple[int, str]]:
    return [(each.source[1], each.reason) for each in result.rejected_labels]


def counts(tally: Tally) -> tuple[int, int, int, int]:
    return tally.tp, tally.fp, tally.tn, tally.fn


def test_a_label_that_comes_later_meets_the_prediction_as_it_was_made() -> None:
    partition = Partition(Tally(tp=7, fp=2))
    made, _ = partition.unit(record(5, id="a", time=2_000)).predictions[0]
    assert (made.label, made.n, made.correct, made.time) == (None, 9, 7, 2_000)
    assert (partition.tally.unlabelled, partition.tally.waiting) == (1, 1)
    partition.model = model(8, Sign(raises_above=-math.inf))  # it is not predicted again
    result = partition.unit(label(3, 1, 3_500, id="a"))
    assert result.predictions == [
        (
            Prediction(
                "a",
                made.prediction,
                made.probability,
                1,
                10,
                8,
                7,
                (0, 5),
                time=2_000,
                outcome="labelled",
                labelled=(0, 3),
                delay=1.5,
            ),
            b"label",
        )
    ]
    assert result.counted == [p for p, _ in result.predictions]
    tally = partition.tally
    assert (tally.waiting, tally.late, tally.labels, tally.model) == (0, 1, 4, 7)
    assert (tally.unlabelled, sum(tally.delays)) == (1, 1)


def test_labels_by_id_and_by_source_are_counted_as_labels_inside_are() -> None:
    given = [(1.0, 1), (1.0, 0), (-1.0, 0), (-1.0, 1), (1.0, 1)]
    inside = Partition()
    inside.unit(*(record(i, known, feature=f) for i, (f, known) in enumerate(given)))
    for name in ("id", "source"):
        late = Partition()
        late.unit(*(record(i, feature=f) for i, (f, _) in enumerate(given)))
        means = [{"id": i} if name == "id" else {"source": [0, i]} for i in range(len(given))]
        result = late.unit(*(label(i, known, **means[i]) for i, (_, known) in enumerate(given)))
        assert counts(late.tally) == counts(inside.tally) == (2, 1, 1, 1)
        assert [p.n for p in result.counted] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("record_time", "label_time"), [(0, 5), (5, None), (None, None)])
def test_without_both_timestamps_there_is_no_delay(
    record_time: int | None, label_time: int | None
) -> None:
    partition = Partition()
    event = record(0)._replace(time=record_time or None)
    result = partition.unit(event, label(0, 1, label_time, id=0))
    assert result.predictions[1][0].delay is None
    assert (partition.tally.late, partition.tally.delays) == (1, ())


def test_a_delay_may_be_negative() -> None:
    partition = Partition()
    result = partition.unit(record(9), label(0, 1, 8_500, id=9))
    assert result.predictions[1][0].delay == -0.5
    assert partition.tally.delays[0] == 1


def test_a_label_is_taken_in_its_turn_within_a_unit() -> None:
    partition = Partition()
    result = partition.unit(record(0), label(0, 1, id=0), record(1, 0), label(1, 0, id=1))
    assert outcomes(result) == [(None, 0, None), ("labelled", 0, 1), (None, 1, 0)]
    assert [p.n for p, _ in result.predictions] == [0, 1, 2]
    assert [p.source[1] for p in result.counted] == [0, 1]
    assert [offset for offset, _ in rejected(result)] == [1]


def test_a_label_by_id_means_the_newest_prediction_of_that_id_that_waits() -> None:
    partition = Partition()
    partition.unit(*(record(offset, id="a") for offset in range(3)), record(3, 1, id="a"))
    found = partition.unit(
        label(0, id="a"), label(1, source=[0, 0]), label(2, id="a"), label(3, id="a")
    )
    assert outcomes(found) == [("labelled", 2, 1), ("labelled", 0, 1), ("labelled", 1, 1)]
    assert rejected(found) == [(3, "duplicate: the record has the label 1 already, inside")]


def test_a_label_of_a_record_the_model_was_trained_on_is_published_and_not_counted() -> None:
    partition = Partition(Tally(tp=4))
    partition.model = model(7, trained_to={"0": 5})
    partition.unit(record(5))
    result = partition.unit(label(0, 0, id=5))
    outcome, _ = result.predictions[0]
    assert (outcome.seen, outcome.n, outcome.correct, result.counted) == (True, 4, 4, [])
    assert (partition.tally.seen, partition.tally.late) == (1, 1)
    partition.unit(label(1, 1, id=5, revises=True))
    assert (counts(partition.tally), partition.tally.revised) == ((4, 0, 0, 0), 1)


def test_a_second_label_is_rejected_with_the_one_that_the_record_has() -> None:
    partition = Partition()
    partition.unit(record(0, 0), record(1), label(7, 1, id=1))
    result = partition.unit(label(8, 1, id=0), label(9, 0, source=[0, 1]))
    assert rejected(result) == [
        (8, "duplicate: the record has the label 0 already, inside"),
        (9, "duplicate: the record has the label 1 already, from offset 7 of the label topic"),
    ]
    assert (partition.tally.orphans, partition.tally.n, len(result.predictions)) == (2, 2, 0)


@pytest.mark.parametrize("feature", [1.0, -1.0])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("second", [0, 1])
@pytest.mark.parametrize("inside", [True, False])
def test_a_revision_leaves_n_and_counts_as_if_its_label_had_been_the_first(
    feature: float, first: int, second: int, inside: bool
) -> None:
    revised, expected = Partition(), Partition()
    expected.unit(record(0, second, feature=feature))
    revised.unit(record(0, first if inside else None, feature=feature), label(0, first, id=0))
    result = revised.unit(label(1, second, 250, id=0, revises=True))
    assert counts(revised.tally) == counts(expected.tally)
    (outcome,) = [p for p, _ in result.predictions]
    assert (outcome.outcome, outcome.n, outcome.label) == ("revised", 1, second)
    assert (outcome.labelled, outcome.delay) == ((0, 1), 0.25)
    assert (result.counted, revised.tally.revised) == ([], 1)
    assert sum(revised.tally.delays) == (0 if inside else 1)  # a delay is that of the first label


def test_a_revision_of_a_prediction_that_waits_is_its_first_label() -> None:
    partition = Partition()
    result = partition.unit(record(0), label(0, 1, id=0, revises=True), label(1, 0, id=0))
    assert outcomes(result)[1:] == [("labelled", 0, 1)]
    assert [offset for offset, _ in rejected(result)] == [1]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            {"id": 0, "label": 2},
            "label: expected 0 or 1, true or false, or a text of the schema, got 2",
        ),
        ({"label": 1}, "id: missing, and so is source; one of them has to be given"),
        (
            {"source": [3, 0], "label": 1},
            "source: the label of a record in partition 3 belongs to partition 3",
        ),
        (
            {"source": [0, 0], "id": 1, "label": 1},
            "id: it is not that of the record at this source",
        ),
        (
            {"source": [0, 1], "label": 1},
            "orphan: no prediction of the record at this source",
        ),
    ],
)
def test_a_label_that_can_be_nobodys_is_rejected_at_once(
    wrong: dict[str, Any], reason: str
) -> None:
    partition = Partition()
    partition.unit(record(0), Consumed(0, 1, None, b"not JSON"))
    result = partition.unit(ConsumedLabel(0, 4, None, json.dumps(wrong).encode()))
    assert rejected(result) == [(4, reason)]
    assert (partition.tally.orphans, partition.tally.waiting, partition.tally.labels) == (1, 1, 5)


def test_labels_in_a_batch_that_cannot_be_decoded_are_rejected_together() -> None:
    partition = Partition()
    batch = Rejected((0, 4), UNDECODABLE, 99, "", until=9)
    result = partition.unit(record(0), ConsumedLabel(0, 4, None, None, batch), label(10, id=0))
    assert result.rejected_labels == [batch]
    assert (partition.tally.orphans, partition.tally.labels, partition.tally.n) == (1, 11, 1)


@pytest.mark.parametrize("means", [{"id": 5}, {"source": [0, 5]}])
def test_a_label_that_comes_first_is_held_until_its_record_is_predicted(
    means: dict[str, Any],
) -> None:
    partition = Partition()
    result = partition.unit(record(4), label(0, 0, **means))
    assert (outcomes(result), partition.state.early.offsets) == ([(None, 4, None)], [0])
    assert partition.tally.labels == 1
    result = partition.unit(record(5), record(6))
    assert outcomes(result) == [(None, 5, None), ("labelled", 5, 0), (None, 6, None)]
    assert (len(partition.state.early), counts(partition.tally)) == (0, (0, 1, 0, 0))


def test_labels_that_are_held_for_one_record_are_taken_in_their_order() -> None:
    partition = Partition()
    partition.unit(label(0, 0, id=5), label(1, 1, source=[0, 5]), label(2, 1, id=5, revises=True))
    result = partition.unit(record(5, id=5))
    assert outcomes(result) == [(None, 5, None), ("labelled", 5, 0), ("revised", 5, 1)]
    assert [offset for offset, _ in rejected(result)] == [1]
    assert counts(partition.tally) == (1, 0, 0, 0)


def test_a_held_label_is_an_orphan_some_time_after_the_end_of_the_data_and_not_before() -> None:
    partition = Partition(label_early_seconds=10)
    partition.unit(record(0), label(3, id="x"))
    for partition.now in (100.0, 200.0):
        assert rejected(partition.unit(record(int(partition.now)))) == []
    assert not partition.state.is_due(data_ended=True, monotonic=200.0, wall=0.0)
    assert not partition.state.is_due(data_ended=True, monotonic=209.0, wall=0.0)
    assert partition.state.is_due(data_ended=False, monotonic=210.5, wall=0.0)
    partition.now = 210.5
    assert rejected(partition.unit()) == [(3, "orphan: no such prediction waits for a label")]
    assert (len(partition.state.early), partition.tally.orphans) == (0, 1)


def test_a_held_label_of_a_record_that_is_rejected_is_an_orphan_at_once() -> None:
    partition = Partition()
    partition.unit(label(0, source=[0, 5]))
    result = partition.unit(Consumed(0, 5, None, b"not JSON"))
    assert rejected(result) == [(0, "orphan: no prediction of the record at this source")]


def test_no_more_labels_are_read_while_too_many_are_held_until_the_data_ends() -> None:
    partition = Partition()
    most = EarlyLabels.MOST
    partition.unit(record(0))
    given = [label(i, id=f"x{i}") for i in range(most + 2)]
    partition.unit(*given, label(most + 2, id=0))
    assert (partition.tally.labels, partition.state.labels_paused) == (most, True)
    assert partition.tally.late == 0
    # The record of the oldest may be among those that come behind it in the unit.
    result = partition.unit(given[most], record(9, id="x0"), given[most], ended=True)
    assert (outcomes(result), rejected(result)) == (
        [(None, 9, None), ("labelled", 9, 1)],
        [],
    )
    partition.unit(given[most])
    result = partition.unit(given[most + 1], label(most + 2, id=0), ended=True)
    assert [offset for offset, _ in rejected(result)] == [1]
    assert outcomes(result) == [("labelled", 0, 1)]
    assert partition.state.early.offsets == list(range(2, most + 2))


def test_only_the_newest_predictions_are_known() -> None:
    partition = Partition(label_wait="3")
    partition.unit(*(record(i, 1 if i == 1 else None) for i in range(5)))
    tally = partition.tally
    assert (tally.expired, tally.waiting, tally.expired_to) == (1, 3, 2)
    result = partition.unit(label(0, id=1), label(1, source=[0, 0]), label(2, id=2), ended=True)
    assert outcomes(result) == [("labelled", 2, 1)]
    reason = "orphan or too late: no such prediction waits for a label"
    assert rejected(result) == [(1, reason)]
    partition.now = 10.5
    assert rejected(partition.unit(ended=True)) == [(0, reason)]


def test_predictions_expire_by_the_age_of_their_records_and_that_alone_makes_a_unit() -> None:
    partition = Partition(label_wait="seconds:60")
    partition.unit(record(10), record(20, 1), record(30))
    for wall, due in ((70.0, False), (70.5, True)):
        assert partition.state.is_due(data_ended=False, monotonic=0.0, wall=wall) == due
    partition.wall = 85.0
    result = partition.unit()
    assert (len(result), result.states[0].offset) == (0, 31)
    tally = partition.tally
    assert (tally.expired, tally.waiting, tally.expired_to) == (1, 1, 21)
    partition.wall = 0.0  # a clock that goes back revives nothing
    assert rejected(partition.unit(label(0, source=[0, 10])))
    assert partition.tally.expired_to == 21


def test_while_labels_are_left_age_is_that_beside_the_newest_prediction() -> None:
    partition = Partition(label_wait="seconds:60")
    partition.wall = 10_000.0  # it was away for hours
    partition.state.labels_left = True
    partition.unit(*map(record, range(0, 110, 10)))
    assert (partition.tally.expired, partition.tally.expired_to) == (4, 31)
    assert not partition.state.is_due(data_ended=False, monotonic=0.0, wall=partition.wall)
    assert outcomes(partition.unit(label(0, id=40))) == [("labelled", 40, 1)]
    partition.state.labels_left = False
    assert partition.state.is_due(data_ended=False, monotonic=0.0, wall=partition.wall)
    partition.unit()
    assert (partition.tally.expired, partition.tally.waiting) == (10, 0)


def test_what_a_unit_leaves_out_may_be_a_label_in_time() -> None:
    partition = Partition(label_wait="seconds:60")
    partition.unit(record(0, time=0))
    partition.model, partition.wall = None, 10_000.0
    # Without a model it ends before the record, so before the label, too.
    partition.unit(record(1, time=1_000), label(0, id=0))
    assert (partition.tally.expired, partition.tally.waiting) == (0, 1)
    partition.model = model(7)
    result = partition.unit(record(1, time=1_000), label(0, id=0))
    assert outcomes(result)[-1] == ("labelled", 0, 1)


def test_what_waits_no_longer_gets_an_assumed_label_that_counts_for_nothing() -> None:
    partition = Partition(Tally(fn=1), label_wait="1", label_assume="0")
    result = partition.unit(record(0), record(1, 1), record(2))
    outcome, key = result.predictions[-1]
    assert (outcome.outcome, outcome.source, outcome.label) == ("assumed", (0, 0), 0)
    assert (outcome.n, outcome.correct, outcome.labelled, outcome.delay) == (2, 1, None, None)
    assert (key, [p.source[1] for p in result.counted]) == (None, [1])
    tally = partition.tally
    assert (tally.assumed, tally.expired, tally.waiting, counts(tally)) == (1, 0, 1, (1, 0, 0, 1))
    result = partition.unit(label(0, 0, source=[0, 0]))
    assert rejected(result)[0][1].startswith("orphan or too late")


def test_more_assumed_labels_than_a_unit_may_hold_follow_in_the_next() -> None:
    settings: dict[str, Any] = {"label_wait": "1", "label_assume": "0"}
    partition = Partition(**settings)
    partition.states |= {1: states(Tally(), Tally(), **settings)[1]}
    partition.most = 3
    events = [record(i)._replace(partition=i % 2) for i in range(12)]
    results = [partition.unit(*events)]
    while any(state.is_due(False, 0.0, 0.0) for state in partition.states.values()):
        results.append(partition.unit())
    assumed = [[o[1] for o in outcomes(result) if o[0] == "assumed"] for result in results]
    assert assumed == [[0, 2, 4], [6, 8, 1], [3, 5, 7], [9]]
    assert [state.tally.assumed for state in partition.states.values()] == [5, 5]


def test_where_time_runs_out_for_a_unit_the_labels_behind_are_given_again() -> None:
    broken, before = model(7, Sign(raises_above=5)), model(6, Sign(raises_above=5))
    events = [
        each
        for i in range(40)
        for each in (record(i, feature=9.0 if i % 3 else 1.0), label(i, 1, id=i))
    ]
    partition, left, pieces, late = states(), events, 0, 0
    while left:
        clock = itertools.count().__next__  # a second passes at each look
        result = predict_unit(left, broken, before, partition, {0}, math.inf, 3, clock)
        state = partition[0]
        late += sum(p.outcome == "labelled" for p, _ in result.predictions)
        result.commit()
        left = [
            each
            for each in left
            if each.offset
            >= (state.tally.labels if isinstance(each, ConsumedLabel) else state.offset)
        ]
        pieces += 1
    assert pieces > 2
    assert late == partition[0].tally.n == 14
    assert len(partition[0].early) == 26


def test_a_model_that_is_broken_changes_no_state() -> None:
    partition = Partition()
    partition.unit(record(0))
    partition.model = model(8, Sign(raises_above=-math.inf))
    before = repr(partition.tally)
    with pytest.raises(BrokenModelError):
        partition.unit(label(0, id=0), *map(record, range(1, 20)))
    assert repr(partition.tally) == before
    partition.model = model(9)
    assert outcomes(partition.unit(label(0, id=0))) == [("labelled", 0, 1)]


def test_while_predictions_are_read_back_no_label_is_taken_and_nothing_expires() -> None:
    partition = Partition(label_wait="1")
    written = partition.unit(record(0, 1), record(1))
    state = State(partition.state.settings, 0, partition.tally, partition.state.offset)
    state.rebuilding = True
    partition.states = {0: state}
    result = partition.unit(label(0, id=1), record(2), ended=True)
    assert (outcomes(result), state.tally.labels) == ([(None, 2, None)], 0)
    for prediction, _ in [*written.predictions, *result.predictions]:
        state.restore(prediction)
    assert state.known.newest == 2
    assert state.rebuilt() == 0
    result = partition.unit(label(0, id=1))
    assert outcomes(result) == [("labelled", 1, 1)]
    assert partition.tally.expired_to == 2


def test_a_label_held_while_its_prediction_is_read_back_comes_before_the_labels_behind_it() -> None:
    partition = Partition()
    partition.unit(label(0, id=0, label=0, revises=True))
    held = partition.state
    state = State(held.settings, 0, held.tally, held.offset)
    state.early = held.early
    state.rebuilding = True
    partition.states = {0: state}
    for prediction, _ in partition.unit(record(0)).predictions:
        state.restore(prediction)
    assert state.rebuilt() == 0
    result = partition.unit(record(1), label(1, id=0, label=1), ended=True)
    assert outcomes(result) == [("labelled", 0, 0), (None, 1, None)]
    assert [rejected.source for rejected in result.rejected_labels] == [(0, 1)]


def test_predictions_that_are_gone_from_the_topic_when_it_is_read_back_are_expired() -> None:
    partition = Partition()
    written = partition.unit(*map(record, range(6)), label(0, id=4)).predictions
    state = State(partition.state.settings, 0, partition.tally, partition.state.offset)
    for prediction, _ in written[3:]:
        state.restore(prediction)
    assert state.rebuilt() == 3
    tally = state.tally
    assert (tally.waiting, tally.expired, tally.expired_to) == (2, 3, 3)
    state = State(partition.state.settings, 0, Tally(waiting=2, unlabelled=2), 6)
    assert (state.rebuilt(), state.tally.expired_to) == (2, 6)


def text(offset: int, text: str | bool, **fields: Any) -> ConsumedLabel:
    return ConsumedLabel(
        0, offset, b"label", json.dumps({"label": text} | fields).encode(), None, 0
    )


def of_texts(version: int = 7, positive: str = "yes", negative: str = "no") -> Model:
    return model(version, positive=positive, negative=negative)


def test_a_label_that_is_a_text_is_read_by_the_model_that_serves() -> None:
    partition = Partition()
    partition.model = of_texts()
    partition.unit(record(0), record(1), record(2))
    result = partition.unit(
        text(0, "yes", id=0), text(1, "no", id=1), text(2, "maybe", id=2), text(3, True, id=2)
    )
    assert outcomes(result) == [("labelled", 0, 1), ("labelled", 1, 0), ("labelled", 2, 1)]
    assert all(type(p.label) is int for p, _ in result.predictions)
    reason = "label: expected 0 or 1, true or false, 'no' or 'yes', got 'maybe'"
    assert rejected(result) == [(2, reason)]
    assert (partition.tally.n, partition.tally.orphans, partition.tally.labels) == (3, 1, 4)


def test_without_a_model_the_unit_ends_before_a_label_that_is_a_text() -> None:
    partition = Partition()
    partition.model = of_texts()
    partition.unit(record(0), record(1))
    served, partition.model = partition.model, None
    events = label(0, id=0), text(1, "no", id=1), label(2, id=7)
    result = partition.unit(*events)
    assert outcomes(result) == [("labelled", 0, 1)]
    assert partition.tally.labels == 1
    assert partition.predict(*events[1:]).states == {}
    partition.model = served
    assert outcomes(partition.unit(*events[1:])) == [("labelled", 1, 0)]


def test_a_text_that_is_held_waits_for_its_record_and_for_a_model_that_reads_it() -> None:
    partition = Partition()
    partition.model = of_texts()
    partition.unit(text(0, "yes", id=1), record(0), ended=True)
    assert partition.state.early.offsets == [0]
    partition.model = None
    partition.unit(Consumed(0, 1, None, b"not JSON"))
    assert partition.state.early.offsets == [0]
    partition.model = of_texts(8, "ja", "nein")
    result = partition.unit(record(2, id=1))
    assert outcomes(result) == [(None, 2, None)]
    assert rejected(result) == [
        (0, "label: expected 0 or 1, true or false, 'nein' or 'ja', got 'yes'")
    ]
    assert len(partition.state.early) == 0


def test_a_text_that_is_held_meets_its_record_once() -> None:
    partition = Partition()
    partition.model = of_texts()
    partition.unit(text(0, "no", id=1), record(0), ended=True)
    result = partition.unit(record(1))
    assert outcomes(result) == [(None, 1, None), ("labelled", 1, 0)]
    assert len(partition.state.early) == 0
    assert (partition.tally.n, partition.tally.correct) == (1, 0)
