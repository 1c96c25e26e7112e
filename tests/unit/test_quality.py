"""What predictions, outcomes and rejected records say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quality.quality import MODELS, Quality, Swap
from quality.scores import Outcome, Scores
from quality.windows import OTHER, REASONS, Bucket, RecordWindow, TimeWindow
from stream.records import Prediction

HOUR = 3_600.0
NOW = 10_000_000_000.0


def prediction(offset: int, **fields: object) -> Prediction:
    return replace(Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (0, offset)), **fields)


def late(offset: int, **fields: object) -> Prediction:
    return prediction(offset, outcome="labelled", labelled=(0, offset), delay=5.0, **fields)


def following(predictions: Sequence[Prediction], *seconds: float) -> Quality:
    found = Quality(map(TimeWindow, seconds or (HOUR,)), (1_000,))
    for each in predictions:
        found.predicted(each, int(NOW), NOW)
    return found


def test_a_window_of_records_forgets_exactly_what_is_before_it() -> None:
    window = RecordWindow(1_000)
    for number in range(1_500):
        window.count(Outcome(int(number >= 500), 1, 0.7), NOW + number // 10)
    assert (window.scores.n, window.scores.accuracy) == (1_000, 1.0)


@given(st.permutations(range(30)))
def test_the_newest_records_are_those_of_the_newest_times_in_whatever_order_they_are_read(
    order: Sequence[int],
) -> None:
    window, newest = RecordWindow(10), Scores()
    outcomes = [Outcome(number % 2, number % 3 == 0, number / 30) for number in range(30)]
    for number in order:
        window.count(outcomes[number], NOW + number)
    for outcome in outcomes[20:]:
        newest.add(outcome)
    assert window.scores == newest


def test_a_window_of_time_forgets_what_is_over_and_takes_records_in_any_order() -> None:
    window = TimeWindow(60)
    for second in (0, 59, 30, 1):
        bucket = window.at(NOW + 1_000 * second, NOW + 59_000)
        assert bucket
        bucket.count(1, Outcome(1, 1))
    assert window.total(NOW + 59_000).scores.n == 4
    assert window.at(NOW - 2_000, NOW + 59_000) is None
    assert window.total(NOW + 61_000).scores.n == 3
    assert window.total(NOW + 150_000).scores.n == 0


def test_a_window_of_time_keeps_at_most_61_buckets_however_long_it_runs() -> None:
    window = TimeWindow(60)
    for second in range(1_000):
        window.at(NOW + 1_000 * second, NOW + 1_000 * second)
    assert len(window._buckets) <= 61
    assert len(window.accuracies(NOW)) == 61


def test_a_window_without_end_forgets_nothing() -> None:
    window = TimeWindow(math.inf)
    for hours in (0, 1, 10_000):
        bucket = window.at(NOW + 3_600_000 * hours, NOW + 3_600_000 * hours)
        assert bucket
        bucket.count(1, Outcome(1, 1))
    assert window.total(NOW + 1e15).scores.n == 3


def test_a_time_that_is_to_come_counts_now() -> None:
    window = TimeWindow(60)
    bucket = window.at(NOW + 1e12, NOW)
    assert bucket
    bucket.reject("no reason")
    assert window.total(NOW).reasons == {"no reason": 1}
    assert window.total(NOW + 70_000).reasons == {}


def test_a_bucket_keeps_so_many_reasons_and_counts_the_others_together() -> None:
    bucket, other = Bucket(), Bucket()
    for number in range(REASONS + 50):
        bucket.reject(f"label: expected 0 or 1, got {number}")
        other.reject(f"id: {number}", times=2)
    bucket += other
    assert len(bucket.reasons) == REASONS + 1
    assert bucket.reasons.total() == 3 * (REASONS + 50)
    assert bucket.reasons.most_common(1)[0][0] == OTHER


EVENTS = st.lists(
    st.one_of(
        st.builds(lambda reason: ("reject", reason), st.sampled_from("abc")),
        st.builds(lambda seconds: ("delay", seconds), st.floats(-10, 1e9)),
        st.builds(
            lambda model, label: ("count", (model, label)), st.integers(1, 3), st.integers(0, 1)
        ),
    )
)


def bucket_of(events: list[tuple[str, Any]]) -> Bucket:
    found = Bucket()
    for kind, value in events:
        if kind == "count":
            model, label = value
            found.predictions[model] += 1
            found.events["labelled"] += 1
            found.count(model, Outcome(1, label, 0.3))
        else:
            getattr(found, kind)(value)
    return found


@given(st.lists(EVENTS, max_size=4))
def test_buckets_that_are_merged_are_one_bucket_with_all_records(
    parts: list[list[tuple[str, Any]]],
) -> None:
    merged = Bucket()
    for part in parts:
        merged += bucket_of(part)
    together = bucket_of([event for part in parts for event in part])
    assert merged.as_json() == together.as_json()
    assert (merged.counted, merged.correct) == (together.counted, together.correct)


@given(st.lists(st.floats(0, 1e7), min_size=1), st.floats(0.01, 1.0))
def test_a_delay_is_told_to_within_a_tenth(delays: list[float], share: float) -> None:
    bucket = Bucket()
    for delay in delays:
        bucket.delay(delay)
    rank = next(i for i in range(len(delays)) if i + 1 >= share * len(delays))
    assert bucket.delay_below(share) == pytest.approx(sorted(delays)[rank], rel=0.1, abs=0.002)


def test_what_is_not_counted_is_in_no_score_and_the_rest_adds_up() -> None:
    found = following(
        [
            prediction(0, seen=True),
            prediction(1, label=None),
            prediction(2, prediction=0),
            prediction(3),
            late(1),
            prediction(3, outcome="revised", labelled=(0, 9), label=0),
            prediction(4, label=None),
            prediction(4, outcome="assumed", label=0),
        ]
    )
    bucket = found.times[HOUR].total(NOW)
    assert bucket.predictions.total() == 5
    assert bucket.scores.confusion == (0, 0, 1, 2)
    assert bucket.events == {"labelled": 4, "seen": 1, "revised": 1, "assumed": 1}
    assert bucket.coverage == 4 / 5
    assert (bucket.delay_below(0.5), bucket.delay_below(0.95)) == (5.0, 5.0)
    assert (found.newest[1_000].scores.n, found.served[1].scores.n) == (3, 3)


def test_a_label_counts_when_it_comes_and_for_the_model_that_predicted() -> None:
    found = Quality([TimeWindow(60.0)])
    found.predicted(prediction(0, label=None), int(NOW), NOW)
    found.predicted(late(0), int(NOW) + 600_000, NOW + 600_000)
    bucket = found.times[60.0].total(NOW + 600_000)
    assert (bucket.predictions.total(), bucket.scores.n) == (0, 1)
    assert bucket.coverage is None
    assert dict(bucket.counted) == {1: 1}


def test_the_running_accuracy_is_that_of_all_partitions_together() -> None:
    found = following(
        [prediction(0, n=10, correct=9), prediction(0, n=30, correct=15, source=(1, 0))]
    )
    assert found.n == 40
    assert found.accuracy == pytest.approx(24 / 40)


def test_the_label_before_is_that_of_the_same_partition() -> None:
    labels = [(0, 1), (1, 0), (0, 1), (1, 0), (0, 0)]
    found = following(
        [prediction(n, label=label, source=(p, n)) for n, (p, label) in enumerate(labels)]
    )
    assert found.newest[1_000].scores.no_change == 2 / 3


def test_swaps_say_what_took_over_and_when_each_predicted_last() -> None:
    found = Quality()
    assert (found.serving, found.swaps) == (None, [])
    for second, version in enumerate([3, 3, 4, 3, 4, 6], start=1):
        found.predicted(prediction(second, model=version), 1_000 * second, NOW)
    assert found.serving == 6
    assert found.swaps == [Swap(4, 3, 3_000, 5_000), Swap(6, 4, 6_000, None)]


def test_a_model_that_serves_again_after_a_barred_one_is_the_one_that_serves() -> None:
    found = Quality()
    for second, version in enumerate([3, 4, 3], start=1):
        found.predicted(prediction(second, model=version), 1_000 * second, NOW)
    assert found.serving == 3
    assert found.swaps == [Swap(4, 3, 2_000, 2_000)]


def test_the_newest_models_are_kept() -> None:
    found = Quality()
    for version in range(1, 2 * MODELS):
        found.predicted(prediction(version, model=version), version, NOW)
    assert len(found.served) == MODELS
    assert found.served[2 * MODELS - 1].scores.n == 1
    found.predicted(prediction(0, model=1), 1, NOW)
    assert 1 not in found.served


def test_the_lag_counts_what_was_neither_predicted_nor_rejected() -> None:
    found = following([prediction(6)])
    found.rejected((0, 7), "no reason", int(NOW), NOW)
    assert found.lag({0: 10, 1: 5}) == 2 + 5


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(-5_000, 90_000)), max_size=40))
def test_nested_windows_count_what_each_would_count_alone(steps: list[tuple[int, int]]) -> None:
    lengths = (60.0, 600.0, 3_600.0)
    nested = Quality(map(TimeWindow, lengths))
    alone = [Quality([TimeWindow(seconds)]) for seconds in lengths]
    now = int(NOW)
    for number, (later, ago) in enumerate(steps):
        now += later
        made = prediction(number, prediction=number % 2, model=1 + number % 3)
        for quality in (nested, *alone):
            quality.predicted(made, now - ago, now)
        for quality in alone:
            ((seconds, window),) = quality.times.items()
            assert nested.times[seconds].total(now).as_json() == window.total(now).as_json()
            assert nested.times[seconds].accuracies(now) == window.accuracies(now)
            assert nested.times[seconds].total(now).counted == window.total(now).counted
