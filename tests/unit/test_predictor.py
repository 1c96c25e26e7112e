from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from predictor import predictor as module
from predictor.consumed import KEY_LIMIT_BYTES, Consumed
from predictor.predictor import BrokenModelError, predict_unit, predict_within
from predictor.result import Result
from predictor.tally import Tally
from stream.classifier import Model
from stream.layout import Matrix
from stream.records import Record, Rejected, encode_record
from stream.service import Stop, Stopped
from tests.unit.classifiers import Apart, Sign, model
from tests.unit.states import states


def consumed(
    offset: int,
    features: list[float | None] | None = None,
    label: int | None = 1,
    partition: int = 0,
    key: bytes | None = None,
) -> Consumed:
    record = Record(offset, features or [1.0, 0.0], label)
    return Consumed(partition, offset, key, encode_record(record))


def result_of(*records: Consumed, tally: Tally | None = None) -> Result:
    return predict_unit(records, model(7), None, states(tally or Tally(), Tally()))


def offsets(result: Result) -> dict[int, int]:
    return {partition: state.offset for partition, state in result.states.items()}


def test_each_record_is_predicted_in_one_batch_and_traced_to_its_place_and_model() -> None:
    sign = Sign()
    records = [consumed(5, [1.0, 0.0], 1), consumed(6, [-1.0, 0.0], 1)]
    result = predict_unit(records, model(7, sign), None, states())
    first, second = (prediction for prediction, _ in result.predictions)
    assert (first.prediction, first.source, first.model) == (1, (0, 5), 7)
    assert (second.prediction, second.source, second.model) == (0, (0, 6), 7)
    assert sign.batches == [2]


def test_n_and_correct_run_on_from_the_tally_of_the_partition() -> None:
    result = result_of(consumed(5, [1.0, 0.0], 1), consumed(6, [1.0, 0.0], 0), tally=Tally(tp=8))
    counts = [(p.n, p.correct, p.accuracy) for p, _ in result.predictions]
    assert counts == [(9, 9, 1.0), (10, 9, 0.9)]


def test_the_tally_given_is_left_as_it_was_so_that_an_abort_changes_nothing() -> None:
    before = Tally()
    result = result_of(consumed(5), tally=before)
    assert before == Tally()
    assert result.states[0].tally == Tally(tp=1, model=7)
    result.rollback()
    assert (result.states[0].tally, result.states[0].offset) == (Tally(), 0)


def test_partitions_are_counted_apart() -> None:
    result = result_of(consumed(5, partition=0), consumed(5, partition=1))
    assert [p.n for p, _ in result.predictions] == [1, 1]


def test_a_batch_that_cannot_be_decoded_is_rejected_whole_and_predicting_goes_on_behind_it() -> (
    None
):
    batch = Rejected((0, 5), "batch: cannot be decoded: CRC mismatch", 99, "", until=9)
    result = result_of(consumed(4), Consumed(0, 5, None, None, batch), consumed(10))
    assert [p.source for p, _ in result.predictions] == [(0, 4), (0, 10)]
    assert result.rejected == [batch]
    assert result.states[0].tally == Tally(tp=2, rejected=1, model=7)
    assert offsets(result_of(Consumed(0, 5, None, None, batch))) == {0: 10}


def test_a_record_without_a_label_is_predicted_but_not_counted() -> None:
    result = result_of(consumed(5, label=None))
    (prediction, _) = result.predictions[0]
    assert (prediction.prediction, prediction.n, prediction.accuracy) == (1, 0, None)
    assert result.counted == []


def test_a_record_the_model_was_trained_on_is_published_as_seen_and_not_counted() -> None:
    records = [consumed(5), consumed(6)]
    result = predict_unit(records, model(7, trained_to={"0": 5}), None, states())
    assert [(p.seen, p.n) for p, _ in result.predictions] == [(True, 0), (False, 1)]
    assert result.states[0].tally.seen == 1


def test_the_key_goes_on_with_the_prediction() -> None:
    result = result_of(consumed(5, key=b"k"))
    assert result.predictions[0][1] == b"k"


def test_a_key_too_long_to_go_on_rejects_the_record() -> None:
    result = result_of(consumed(5, key=bytes(KEY_LIMIT_BYTES + 1)))
    assert result.rejected[0].reason == "key: at most 10000 bytes, got 10001"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "value: not JSON"),
        (b'{"id": 1, "features": [NaN, 1]}', "value: not JSON"),
        (b'{"id": 1, "features": [1e39, 1]}', "features[0]: expected a number <= 3.4e+38"),
        (b'{"id": 1, "features": [1]}', "features: expected 2 numbers, got 1"),
        (b'{"id": 1, "features": [1, 2], "label": 2}', "label: expected 0 or 1, true or false, or"),
        (b'{"id": 1, "features": [1, 2], "label": "1"}', "label: expected 0 or 1, true or false;"),
        (b'{"id": 1, "features": [1, "2"]}', "features[1]: expected a number, got '2'"),
        (b'{"id": 1, "features": {"a": 1}}', "features: an object needs a schema with the names"),
        (b'{"id": 1, "features": [1, null]}', "features[1]: null, and model 7 accepts none there"),
        (None, "value: expected a JSON object, got null"),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason_and_the_stream_goes_on(
    value: bytes | None, reason: str
) -> None:
    result = result_of(consumed(4), Consumed(0, 5, None, value), consumed(6))
    (rejected,) = result.rejected
    assert rejected.reason.startswith(reason)
    assert rejected.source == (0, 5)
    assert [p.n for p, _ in result.predictions] == [1, 2]
    assert result.states[0].tally.rejected == 1


class Plans:
    """Predicts 1 where the plan is "pro"; raises on a plan that it is told."""

    classes_ = (0, 1)

    def __init__(self, raises_on: str = "") -> None:
        self.raises_on = raises_on
        self.batches: list[int] = []

    def predict(self, frame: Matrix) -> Any:
        """Predict a frame by its column."""
        self.batches.append(len(frame))
        if (frame["plan"] == self.raises_on).any():
            raise ValueError("found unknown categories")
        return (frame["plan"] == "pro").astype(int).to_numpy()


def of_plans(version: int = 7, raises_on: str = "", **changes: Any) -> Model:
    fields: dict[str, Any] = {"feature_names": ["age", "plan"], "types": ["number", "category"]}
    texts = {"positive": "yes", "negative": "no", "accepts_missing": True}
    return model(version, Plans(raises_on), **fields | texts | changes)


def sent(offset: int, features: Any, label: Any = None) -> Consumed:
    return Consumed(0, offset, None, encode_record(Record(offset, features, label)))


def test_records_are_laid_out_by_the_model_that_predicts_them() -> None:
    records = [
        sent(0, [39.0, "pro"], "yes"),
        sent(1, {"plan": "pro", "age": 39.0}, True),
        sent(2, {"plan": "free"}, "no"),
        sent(3, {"plan": None}, 1),
    ]
    result = predict_unit(records, of_plans(), None, states())
    found = [(p.prediction, p.label, p.n, p.correct) for p, _ in result.predictions]
    assert found == [(1, 1, 1, 1), (1, 1, 2, 2), (0, 0, 3, 3), (0, 1, 4, 3)]
    assert all(type(p.label) is int for p, _ in result.predictions)


def test_what_does_not_fit_the_model_is_rejected_with_feature_value_and_type() -> None:
    records = [
        sent(0, [39.0, 7.0], 1),
        sent(1, {"paln": "pro"}),
        sent(2, [39.0, "pro"], "maybe"),
        sent(3, [39.0, "pro"]),
    ]
    result = predict_unit(records, of_plans(), None, states())
    assert [r.reason for r in result.rejected] == [
        "features[1] 'plan': expected a text of at most 256 bytes, got 7",
        "features: the stream has no 'paln'; nearest is 'plan'",
        "label: expected 0 or 1, true or false, 'no' or 'yes', got 'maybe'",
    ]
    assert [p.source for p, _ in result.predictions] == [(0, 3)]


def test_without_a_model_what_only_a_model_can_say_ends_the_unit() -> None:
    for waits in ({"a": 1.0}, ["pro"], [1.0]):
        records = [Consumed(0, 0, None, b"not json"), sent(1, waits, "1"), sent(2, [[1]])]
        result = predict_unit(records, None, None, states())
        assert [r.source for r in result.rejected] == [(0, 0)]
        assert offsets(result) == {0: 1}


def test_a_category_that_a_model_raises_on_is_rejected_and_the_rest_predicted() -> None:
    records = [sent(offset, [1.0, "new" if offset == 5 else "pro"]) for offset in range(20)]
    result = predict_unit(records, of_plans(raises_on="new"), None, states())
    assert [r.source for r in result.rejected] == [(0, 5)]
    assert len(result.predictions) == 19


def test_a_model_before_of_another_layout_says_nothing_about_the_records() -> None:
    records = [sent(offset, [1.0, "new"]) for offset in range(3)]
    broken = of_plans(8, raises_on="new")
    with pytest.raises(BrokenModelError):
        predict_unit(records, broken, of_plans(7), states())
    other = of_plans(7, feature_names=["plan", "age"], types=["category", "number"])
    assert len(predict_unit(records, broken, other, states()).rejected) == 3


def test_rows_with_categories_fill_a_matrix_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 80)
    plans, sign = of_plans(), model(7, feature_names=["age", "plan"])
    predict_unit([sent(offset, [1.0, "pro"]) for offset in range(20)], plans, None, states())
    assert plans.classifier.batches == [5, 5, 5, 5]
    predict_unit([sent(offset, [1.0, 2.0]) for offset in range(50)], sign, None, states())
    assert sign.classifier.batches == [40, 10]


def test_a_null_is_rejected_by_the_name_of_its_feature_where_the_model_accepts_none() -> None:
    names = ["age", "zo\nne"]
    new = model(7, feature_names=names, accepts_missing_in=[0])
    records = [consumed(5, [None, 1.0]), consumed(6, [1.0, None]), consumed(7, [None, None])]
    result = predict_unit(records, new, None, states())
    assert [p.source[1] for p, _ in result.predictions] == [5]
    reason = r"features[1] 'zo\nne': null, and model 7 accepts none there"
    assert [(r.source[1], r.reason) for r in result.rejected] == [(6, reason), (7, reason)]


def test_a_record_without_features_that_may_be_null_alone_is_rejected_and_bars_no_model() -> None:
    new, old = model(8, Apart(), accepts_missing_in=[0, 1]), model(7, accepts_missing=True)
    records = [consumed(i, [None, None] if i % 10 else [None, 1.0]) for i in range(100)]
    result = predict_unit(records, new, old, states())
    assert [p.source[1] for p, _ in result.predictions] == list(range(0, 100, 10))
    assert {r.reason for r in result.rejected} == {
        "model error: ArithmeticError: two nulls at once"
    }
    with pytest.raises(BrokenModelError):
        predict_unit(records, model(8, Apart(), accepts_missing=True), old, states())


def test_a_rejected_record_keeps_its_size_and_its_first_thousand_bytes() -> None:
    result = result_of(Consumed(0, 5, None, b"x" * 900_000))
    assert (result.rejected[0].size, result.rejected[0].value) == (900_000, "x" * 1_000)


def test_records_that_raise_alone_are_rejected_and_the_rest_of_the_unit_is_predicted() -> None:
    records = [consumed(i, [9.0 if i in (3, 60) else 1.0, 0.0]) for i in range(100)]
    result = predict_unit(records, model(7, Sign(raises_above=5)), None, states())
    assert [r.source[1] for r in result.rejected] == [3, 60]
    assert result.rejected[0].reason.startswith("model error: ArithmeticError")
    assert len(result.predictions) == 98


def test_a_model_that_raises_where_the_one_before_answers_is_broken_even_on_one_record() -> None:
    broken = model(8, Sign(raises_above=-math.inf))
    with pytest.raises(BrokenModelError, match="a feature above the bound") as raised:
        predict_unit([consumed(5)], broken, model(7), states())
    assert raised.value.version == 8


def test_a_record_that_no_model_can_predict_is_rejected_and_no_model_is_blamed() -> None:
    new, old = model(8, Sign(raises_above=5)), model(7, Sign(raises_above=5))
    result = predict_unit([consumed(5, [9.0, 0.0])], new, old, states())
    assert len(result.rejected) == 1


def test_a_sole_model_is_blamed_only_on_ten_records_or_more() -> None:
    broken = model(7, Sign(raises_above=-math.inf))
    few = predict_unit([consumed(i) for i in range(9)], broken, None, states())
    assert len(few.rejected) == 9
    with pytest.raises(BrokenModelError):
        predict_unit([consumed(i) for i in range(10)], broken, None, states())


def test_a_broken_model_is_found_out_by_a_sample_however_large_the_unit() -> None:
    sign = Sign(raises_above=-math.inf)
    with pytest.raises(BrokenModelError):
        predict_unit([consumed(i) for i in range(5_000)], model(8, sign), model(7), states())
    assert len(sign.batches) <= 20


def test_a_unit_of_bad_records_alone_is_rejected_without_asking_the_model() -> None:
    sign = Sign()
    result = predict_unit([Consumed(0, 5, None, b"")], model(7, sign), None, states())
    assert len(result.rejected) == 1
    assert sign.batches == []


def test_without_a_model_the_invalid_records_that_lead_are_rejected_and_nothing_else() -> None:
    batch = Rejected((0, 6), "batch: cannot be decoded: CRC mismatch", 99, "", until=9)
    records = [Consumed(0, 5, None, b""), Consumed(0, 6, None, None, batch), consumed(10)]
    for given in (records[:2], records):
        result = predict_within(60.0, Stop(), given, None, None, states(Tally(tp=1, model=3)))
        assert offsets(result) == {0: 10}
        assert result.states[0].tally == Tally(tp=1, rejected=2, model=3)
        assert (len(result.rejected), result.predictions) == (2, [])


@pytest.mark.parametrize("steps", [1, 7, 40, 1_000])
def test_a_unit_in_which_many_records_raise_is_answered_in_pieces_that_add_up(steps: int) -> None:
    new, old = model(7, Sign(raises_above=5)), model(6, Sign(raises_above=5))
    records = [
        consumed(i, [9.0 if i % 3 else 1.0, 0.0], partition=p) for i in range(60) for p in (0, 1)
    ]
    partitions, answered, pieces = states(Tally(), Tally()), [], 0
    while records:
        clock = itertools.count().__next__  # a second passes at each look
        result = predict_unit(records, new, old, partitions, (), math.inf, steps, clock)
        assert offsets(result) == {c.partition: c.offset + 1 for c in records[: len(result)]}
        answered += [p.source for p, _ in result.predictions]
        answered += [r.source for r in result.rejected]
        result.commit()
        records = records[len(result) :]
        pieces += 1
    assert sorted(answered) == [(p, i) for p in (0, 1) for i in range(60)]
    assert [(s.tally.n, s.tally.rejected) for s in partitions.values()] == [(20, 40), (20, 40)]
    assert (pieces == 1) == (steps == 1_000)


class Waiting(Sign):
    """Waits for something before it answers."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__()
        self.wait = wait

    def predict(self, matrix: Matrix) -> Any:
        """Wait, then predict."""
        self.wait()
        return super().predict(matrix)


class StoppingThenSlow(Sign):
    """Raises, and asks the service to end; from then on it waits before it raises."""

    def __init__(self, stop: Stop, release: threading.Event) -> None:
        super().__init__(raises_above=5)
        self.stop = stop
        self.release = release

    def predict(self, matrix: Matrix) -> Any:
        """Wait once the service is told to end, then raise."""
        if self.stop:
            self.release.wait()
        self.stop.request()
        return super().predict(matrix)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


def predict(stop: Stop, seconds: float, new: Model, features: float = 1.0) -> Result:
    records = [consumed(5, [features, 0.0]), consumed(6)]
    return predict_within(seconds, stop, records, new, None, states())


def test_a_model_that_does_not_answer_in_time_is_broken(release: threading.Event) -> None:
    with pytest.raises(BrokenModelError, match=r"no answer within MODEL_PREDICT_SECONDS=0\.01"):
        predict(Stop(), 0.01, model(8, Waiting(release.wait)))


def test_told_to_end_while_a_model_hangs_nothing_is_said_of_the_model(
    release: threading.Event,
) -> None:
    stop = Stop()

    def told_to_end() -> None:
        stop.request()
        release.wait()

    with pytest.raises(Stopped):
        predict(stop, 60.0, model(8, Waiting(told_to_end)))


def test_records_that_a_model_raises_on_one_by_one_do_not_delay_the_end(
    release: threading.Event,
) -> None:
    stop = Stop()
    with pytest.raises(Stopped):
        predict(stop, 60.0, model(8, StoppingThenSlow(stop, release)), features=9.0)


def test_a_model_in_time_gives_what_the_decision_alone_gives() -> None:
    result = predict(Stop(), 60.0, model(8))
    assert [p.source for p, _ in result.predictions] == [(0, 5), (0, 6)]
