from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from predictor.tally import DELAY_BUCKETS, Tally, delay_below
from stream.records import RecordError


@pytest.mark.parametrize(
    ("prediction", "label", "cell"), [(1, 1, "tp"), (1, 0, "fp"), (0, 0, "tn"), (0, 1, "fn")]
)
def test_a_labelled_prediction_is_counted_in_its_cell(
    prediction: int, label: int, cell: str
) -> None:
    tally = Tally()
    assert tally.count(prediction, label, seen=False)
    assert getattr(tally, cell) == 1
    assert (tally.n, tally.correct) == (1, int(prediction == label))


def test_an_unlabelled_record_leaves_n_as_it_was() -> None:
    tally = Tally(tp=3)
    assert not tally.count(1, None, seen=False)
    assert (tally.n, tally.unlabelled) == (3, 1)


def test_a_record_the_model_was_trained_on_leaves_n_as_it_was() -> None:
    tally = Tally(tp=3)
    assert not tally.count(1, 1, seen=True)
    assert (tally.n, tally.seen) == (3, 1)


def test_counts_carried_over_are_part_of_n_and_correct() -> None:
    tally = Tally(tp=1, fp=1, carried=(100, 90))
    assert (tally.n, tally.correct) == (102, 91)


@pytest.mark.parametrize(
    "tally",
    [
        Tally(),
        Tally(1, 2, 3, 4, 5, 6, 7, 8),
        Tally(carried=(0, 0)),
        Tally(incarnation="a"),
        Tally(delays=(1, 2), known_from=0),
    ],
)
def test_a_tally_comes_back_from_the_metadata_as_it_went(tally: Tally) -> None:
    assert Tally.from_metadata(tally.to_metadata()) == tally


def test_the_largest_tally_stays_well_under_what_a_broker_keeps_as_metadata() -> None:
    largest, id = 2**63 - 1, "0" * 36
    tally = Tally()
    for each in fields(Tally):
        setattr(tally, each.name, largest)
    tally.carried, tally.delays = (largest, largest), (largest,) * DELAY_BUCKETS
    tally.incarnation = tally.label_incarnation = id
    assert len(tally.to_metadata()) < 2_048
    assert Tally.from_metadata(tally.to_metadata()) == tally


def test_a_tally_of_the_version_before_has_nothing_that_waits_and_names_no_start() -> None:
    counts = {"tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected", "model"}
    before = Tally.from_metadata(json.dumps(dict.fromkeys(counts, 3)))
    assert (before.n, before.waiting, before.known_from, before.delays) == (12, 0, None, ())


@pytest.mark.parametrize(
    ("delay", "bucket"),
    [
        *[(-1e15, 0), (-0.001, 0), (0.0, 0), (0.999, 0), (1.0, 1), (1.999, 1), (2.0, 2)],
        *[(3_600.0, 12), (2**22 - 0.001, 22), (2**22, 23), (9e15, 23)],
    ],
)
def test_a_delay_is_counted_in_a_bucket_that_ends_at_twice_the_bound_before(
    delay: float, bucket: int
) -> None:
    tally = Tally(waiting=1)
    tally.count_late(1, 1, seen=False, delay=delay)
    assert tally.delays == (0,) * bucket + (1,) + (0,) * (DELAY_BUCKETS - 1 - bucket)
    bound = delay_below(tally.delays, 0.5)
    assert bound is not None
    assert delay < bound
    assert bound == (math.inf if bucket == DELAY_BUCKETS - 1 else 2**bucket)


def test_a_share_of_the_delays_is_below_the_bound_that_is_told() -> None:
    delays = [10, 80, 6, 4]
    assert [delay_below(delays, share) for share in (0.1, 0.5, 0.9, 0.95, 0.97)] == [
        *[1, 2, 2, 4, 8]
    ]
    assert delay_below([0] * DELAY_BUCKETS, 0.5) is None


def test_predictions_with_a_real_label_are_told_wherever_it_came_from() -> None:
    tally = Tally()
    tally.count(1, 1, seen=False)
    tally.count(1, 0, seen=True)
    for _ in range(3):
        tally.count(1, None, seen=False)
    assert (tally.labelled, tally.predicted) == (2, 5)
    tally.count_late(1, 1, seen=True, delay=2.0)
    tally.revise(1, 1, 0, seen=False)
    assert (tally.labelled, tally.predicted) == (3, 5)


@pytest.mark.parametrize("metadata", ["", "{}", "[]", "null", '{"tp": "x"}', "\x00"])
def test_metadata_that_is_no_tally_is_said_to_be_none(metadata: str) -> None:
    with pytest.raises(RecordError):
        Tally.from_metadata(metadata)


@pytest.mark.parametrize(
    ("model", "barred", "allowed"),
    [(0, set(), False), (4, set(), False), (5, set(), True), (6, set(), True), (4, {5}, True)],
)
def test_a_partition_allows_the_model_of_its_tally_or_a_newer_one_or_any_once_that_is_barred(
    model: int, barred: set[int], allowed: bool
) -> None:
    assert Tally(model=5).allows(model, barred) == allowed


def test_a_partition_never_predicted_allows_any_model() -> None:
    assert Tally().allows(1, set())
    assert not Tally().allows(0, set())
