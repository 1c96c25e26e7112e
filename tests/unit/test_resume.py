from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from predictor.committed import Commit
from predictor.outputs import Output
from predictor.resume import Position, resume, resume_labels
from predictor.tally import Tally
from stream.records import Prediction, Rejected, reject

COUNTED = Tally(tp=60, fn=40, model=3, incarnation="this", known_from=50)


def prediction(offset: int, incarnation: str | None = "this") -> Output:
    return Output(Prediction(offset, 1, None, 1, offset + 1, offset, 3, (0, offset)), incarnation)


def rejected(offset: int, incarnation: str | None = "this") -> Output:
    return Output(reject((0, offset), b"", "value: not JSON"), incarnation)


def from_commit(
    bounds: tuple[int, int], offset: int, tally: Tally, incarnation: str | None
) -> Position:
    return resume(bounds, Commit(offset, tally), [], incarnation)


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
    lost_its_end: dict[str, Any] = (
        {"expired_to": 90, "known_from": None} if resumed_at == 90 else {}
    )
    assert position.tally == replace(COUNTED, **lost_its_end)


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


@pytest.mark.parametrize(("bounds", "skipped"), [((0, 500), 100), ((30, 500), 70)])
def test_a_tally_that_names_no_topic_is_remarked_with_how_many_records_may_be_skipped(
    bounds: tuple[int, int], skipped: int
) -> None:
    position = from_commit(bounds, 100, Tally(known_from=50), "this")
    assert position.offset == 100
    assert f"if that was recreated since, up to {skipped} of its records are" in position.remark
    assert from_commit((100, 500), 100, Tally(known_from=50), "this").remark == ""
    assert from_commit(bounds, 100, Tally(known_from=50), None).remark == ""


def test_where_nothing_was_ever_committed_or_answered_it_begins_with_the_first_record() -> None:
    assert resume((20, 500), None, [], "this") == Position(20, Tally(incarnation="this"))


def test_metadata_that_is_no_tally_is_remarked_even_if_there_are_no_outputs() -> None:
    position = resume((0, 500), "the committed metadata is not a tally: n", [], "this")
    assert (position.offset, position.tally.n) == (0, 0)
    assert position.remark == "the committed metadata is not a tally: n"


def test_outputs_before_the_committed_offset_change_nothing() -> None:
    position = resume((0, 500), Commit(100, COUNTED), [prediction(98), rejected(99)], "this")
    assert position == Position(100, COUNTED)


@pytest.mark.parametrize(
    ("prediction", "rejected"),
    [(prediction(119), rejected(99)), (prediction(99), rejected(119))],
    ids=["prediction", "rejected record"],
)
def test_outputs_beyond_the_committed_offset_count_since_a_broker_kept_half_a_commit(
    prediction: Output, rejected: Output
) -> None:
    position = resume((0, 500), Commit(100, COUNTED), [prediction, rejected], "this")
    assert position.offset == 120
    assert position.tally.n == 120 - (prediction.offset == 99) * 20
    assert position.remark.startswith(
        "outputs reach offset 119, beyond the committed 100; counts are taken from the last output,"
    )


@pytest.mark.parametrize("now", ["another", None])
def test_outputs_of_another_data_topic_do_not_count_beyond_the_committed_offset(
    now: str | None,
) -> None:
    tally = Tally(tp=100, incarnation=now, known_from=50)
    position = resume((0, 500), Commit(100, tally), [prediction(119), rejected(130)], now)
    assert (position.offset, position.tally) == (100, tally)


def test_with_the_committed_tally_lost_counts_and_position_come_from_the_newest_outputs() -> None:
    position = resume((0, 500), None, [prediction(99), rejected(100)], "this")
    assert position.offset == 101
    counted = Tally(carried=(100, 99), model=3, incarnation="this", expired_to=101)
    assert position.tally == counted
    assert position.remark == (
        "no tally is committed; counts are taken from the last output, n=100 correct=99 model=3;"
        " resuming at offset 101, 0 records lost unpredicted"
    )


def test_a_rejected_batch_is_answered_to_its_last_offset() -> None:
    batch = Output(Rejected((0, 90), "batch: cannot be decoded", 99, "", until=119), "this")
    assert resume((0, 500), Commit(100, COUNTED), [batch], "this").offset == 120
    assert resume((0, 500), None, [prediction(99), batch], "this").offset == 120


def test_with_rejected_records_alone_nothing_is_counted() -> None:
    position = resume((0, 500), None, [rejected(41)], "this")
    assert (position.offset, position.tally.n, position.tally.model) == (42, 0, 0)


def test_outputs_of_a_recreated_topic_itself_decide_though_older_ones_reach_further() -> None:
    position = resume((0, 500), None, [prediction(9, "this"), rejected(300, "before")], "this")
    assert (position.offset, position.tally.n) == (10, 10)


def test_with_outputs_of_the_topic_before_only_a_recreated_one_is_read_from_its_start() -> None:
    position = resume((5, 500), None, [prediction(99, "before")], "this")
    assert (position.offset, position.tally.n, position.never_seen) == (5, 100, 5)


WAITING = replace(COUNTED, waiting=7, expired=2, labels=30, label_incarnation="labels")


def after(offset: int, labels: int, early: tuple[int, ...] = ()) -> Output:
    tally = replace(WAITING, tp=61, labels=labels)
    content = Prediction(1, 1, None, 1, 101, 61, 3, (0, 5))
    return Output(content, "this", Commit(offset, tally, early))


@pytest.mark.parametrize(("bounds", "now"), [((0, 500), "another"), ((0, 90), "this")])
def test_what_waits_for_its_label_expires_where_other_records_have_its_offsets(
    bounds: tuple[int, int], now: str
) -> None:
    position = from_commit(bounds, 100, WAITING, now)
    tally = position.tally
    assert (tally.waiting, tally.expired, tally.known_from) == (0, 9, None)
    assert tally.expired_to == position.offset
    assert "; 7 predictions no longer wait for their labels; " in position.remark


def test_a_tally_of_the_version_before_knows_no_prediction() -> None:
    tally = from_commit((0, 500), 100, Tally(tp=100, incarnation="this"), "this").tally
    assert (tally.expired_to, tally.known_from, tally.expired) == (100, None, 0)


@pytest.mark.parametrize(("offset", "labels"), [(120, 30), (100, 31)])
def test_a_position_beyond_the_committed_one_in_records_or_labels_is_taken_as_it_is(
    offset: int, labels: int
) -> None:
    output = after(offset, labels, (28,))
    position = resume((0, 500), Commit(100, WAITING, (29,)), [output], "this")
    assert output.commit
    assert (position.offset, position.tally, position.early) == (offset, output.commit.tally, (28,))
    assert f"beyond the committed {100 if offset == 120 else 30}; counts are" in position.remark


def test_labels_of_another_label_topic_are_not_beyond_the_committed_ones() -> None:
    tally = replace(WAITING, label_incarnation="another")
    position = resume((0, 500), Commit(100, tally), [after(100, 31)], "this")
    assert position == Position(100, tally)


def test_with_the_tally_lost_it_is_that_of_the_newest_output_with_the_labels_that_wait() -> None:
    position = resume((0, 500), None, [after(90, 30), after(100, 35, (7, 9))], "this")
    assert (position.offset, position.tally.labels, position.early) == (100, 35, (7, 9))
    assert position.tally.waiting == 7


def test_with_the_offset_of_the_labels_lost_those_that_wait_are_named_by_the_newest_output() -> (
    None
):
    committed = Commit(100, WAITING, None)
    assert resume((0, 500), committed, [after(100, 30, (7, 9))], "this").early == (7, 9)
    assert resume((0, 500), committed, [after(99, 29, (7, 9))], "this").early == ()


def labels_at(
    bounds: tuple[int, int], tally: Tally = WAITING, now: str | None = "labels"
) -> tuple[int, tuple[int, ...], str]:
    position = resume_labels(bounds, Position(100, tally, early=(7, 9)), now)
    assert position.tally.label_incarnation == now
    return position.tally.labels, position.early, position.remark


def test_labels_are_read_from_the_next_one_on() -> None:
    assert labels_at((0, 40)) == (30, (7, 9), "")


def test_labels_of_a_recreated_topic_are_read_from_its_beginning_and_none_is_held() -> None:
    remark = "the label topic was recreated; labels are read from offset 5"
    assert labels_at((5, 500), now="another") == (5, (), remark)


def test_a_label_offset_out_of_range_is_remarked_with_how_many_are_lost() -> None:
    remark = "labels are read from offset 35, where their topic begins; 5 are lost"
    assert labels_at((35, 40)) == (35, (7, 9), remark)
    remark = "label offset 30 is out of range: labels are read from the end, 20"
    assert labels_at((0, 20)) == (20, (7, 9), remark)


def test_without_ids_only_an_end_before_the_next_label_tells_a_recreated_label_topic() -> None:
    assert labels_at((0, 40), now=None)[0] == 30
    assert labels_at((0, 20), now=None)[0] == 0


def test_where_no_label_was_ever_read_it_begins_with_the_first_one() -> None:
    assert labels_at((20, 40), Tally()) == (20, (7, 9), "")
