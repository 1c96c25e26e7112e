from __future__ import annotations

import pytest

from predictor.outputs import Output
from predictor.resume import Commit, Position, resume
from predictor.tally import Tally
from stream.records import Prediction, Rejected, reject

COUNTED = Tally(tp=60, fn=40, model=3, incarnation="this")


def prediction(offset: int, incarnation: str | None = "this") -> Output[Prediction]:
    return Output(Prediction(offset, 1, None, 1, offset + 1, offset, 3, (0, offset)), incarnation)


def rejected(offset: int, incarnation: str | None = "this") -> Output[Rejected]:
    return Output(reject((0, offset), b"", "value: not JSON"), incarnation)


def from_commit(
    bounds: tuple[int, int], offset: int, tally: Tally, incarnation: str | None
) -> Position:
    return resume(bounds, Commit(offset, tally), None, None, incarnation)


@pytest.mark.parametrize(
    ("bounds", "offset", "resumed_at", "never_seen"),
    [
        ((0, 100), 100, 100, 0),
        ((0, 150), 100, 100, 0),
        ((100, 150), 100, 100, 0),
        ((130, 150), 100, 130, 30),
        ((150, 150), 100, 150, 50),
        ((0, 90), 100, 90, 0),
    ],
)
def test_on_the_same_topic_no_record_comes_twice_and_those_gone_are_counted(
    bounds: tuple[int, int], offset: int, resumed_at: int, never_seen: int
) -> None:
    position = from_commit(bounds, offset, COUNTED, "this")
    assert (position.offset, position.never_seen) == (resumed_at, never_seen)
    assert position.tally == COUNTED


def test_at_the_committed_offset_there_is_nothing_to_remark() -> None:
    assert from_commit((0, 150), 100, COUNTED, "this").remark == ""


def test_a_committed_offset_out_of_range_is_remarked_with_where_it_resumes() -> None:
    assert from_commit((130, 150), 100, COUNTED, "this").remark == (
        "offset 100 is out of range: the topic begins at 130;"
        " resuming at offset 130, 30 records lost unpredicted"
    )
    assert from_commit((0, 90), 100, COUNTED, "this").remark == (
        "offset 100 is out of range: the broker lost records, the topic ends at 90;"
        " resuming at offset 90, 0 records lost unpredicted"
    )


@pytest.mark.parametrize("bounds", [(0, 50), (0, 500), (20, 500), (130, 500)])
def test_a_recreated_topic_is_read_from_its_beginning_and_counts_go_on(
    bounds: tuple[int, int],
) -> None:
    position = from_commit(bounds, 100, COUNTED, "another")
    assert (position.offset, position.never_seen) == (bounds[0], bounds[0])
    assert position.tally.n == COUNTED.n
    assert position.tally.incarnation == "another"
    assert position.remark.startswith("the data topic was recreated; resuming at offset")


@pytest.mark.parametrize(("before", "now"), [(None, "this"), ("this", None), (None, None)])
def test_without_an_id_only_an_end_before_what_was_predicted_tells_a_recreated_topic(
    before: str | None, now: str | None
) -> None:
    tally = Tally(incarnation=before)
    assert from_commit((0, 500), 100, tally, now).offset == 100
    assert from_commit((0, 50), 100, tally, now).offset == 0


def test_where_nothing_was_ever_committed_or_answered_it_begins_with_the_first_record() -> None:
    assert resume((20, 500), None, None, None, "this") == Position(20, Tally(incarnation="this"))


def test_metadata_that_is_no_tally_is_remarked_even_if_there_are_no_outputs() -> None:
    position = resume((0, 500), "the committed metadata is not a tally: n", None, None, "this")
    assert (position.offset, position.tally.n) == (0, 0)
    assert position.remark == "the committed metadata is not a tally: n"


def test_outputs_before_the_committed_offset_change_nothing() -> None:
    position = resume((0, 500), Commit(100, COUNTED), prediction(98), rejected(99), "this")
    assert position == Position(100, COUNTED)


@pytest.mark.parametrize(
    ("prediction", "rejected"),
    [(prediction(119), rejected(99)), (prediction(99), rejected(119))],
    ids=["prediction", "rejected record"],
)
def test_outputs_beyond_the_committed_offset_count_since_a_broker_kept_half_a_commit(
    prediction: Output[Prediction], rejected: Output[Rejected]
) -> None:
    position = resume((0, 500), Commit(100, COUNTED), prediction, rejected, "this")
    assert position.offset == 120
    assert position.tally.n == prediction.content.n
    assert position.remark.startswith(
        "outputs reach offset 119, beyond the committed 100; counts are taken from the last output,"
    )


@pytest.mark.parametrize("now", ["another", None])
def test_outputs_of_another_data_topic_do_not_count_beyond_the_committed_offset(
    now: str | None,
) -> None:
    tally = Tally(tp=100, incarnation=now)
    position = resume((0, 500), Commit(100, tally), prediction(119), rejected(130), now)
    assert (position.offset, position.tally) == (100, tally)


def test_with_the_committed_tally_lost_counts_and_position_come_from_the_newest_outputs() -> None:
    position = resume((0, 500), None, prediction(99), rejected(100), "this")
    assert position.offset == 101
    assert position.tally == Tally(carried=(100, 99), model=3, incarnation="this")
    assert position.remark == (
        "no tally is committed; counts are taken from the last output, n=100 correct=99 model=3;"
        " resuming at offset 101, 0 records lost unpredicted"
    )


def test_a_rejected_batch_is_answered_to_its_last_offset() -> None:
    batch = Output(Rejected((0, 90), "batch: cannot be decoded", 99, "", until=119), "this")
    assert resume((0, 500), Commit(100, COUNTED), None, batch, "this").offset == 120
    assert resume((0, 500), None, prediction(99), batch, "this").offset == 120


def test_with_rejected_records_alone_nothing_is_counted() -> None:
    position = resume((0, 500), None, None, rejected(41), "this")
    assert (position.offset, position.tally.n, position.tally.model) == (42, 0, 0)


def test_outputs_of_a_recreated_topic_itself_decide_though_older_ones_reach_further() -> None:
    position = resume((0, 500), None, prediction(9, "this"), rejected(300, "before"), "this")
    assert (position.offset, position.tally.n) == (10, 10)


def test_with_outputs_of_the_topic_before_only_a_recreated_one_is_read_from_its_start() -> None:
    position = resume((5, 500), None, prediction(99, "before"), None, "this")
    assert (position.offset, position.tally.n, position.never_seen) == (5, 100, 5)
