from __future__ import annotations

import pytest

from predictor.tally import Tally
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
    "tally", [Tally(), Tally(1, 2, 3, 4, 5, 6, 7, 8), Tally(carried=(0, 0)), Tally(incarnation="a")]
)
def test_a_tally_comes_back_from_the_metadata_as_it_went(tally: Tally) -> None:
    assert Tally.from_metadata(tally.to_metadata()) == tally


def test_the_largest_tally_stays_well_under_what_a_broker_keeps_as_metadata() -> None:
    huge = 2**62
    tally = Tally(huge, huge, huge, huge, huge, huge, huge, huge, (huge, huge), "0" * 36)
    assert len(tally.to_metadata()) < 1_024


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
