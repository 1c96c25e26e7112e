from __future__ import annotations

import pytest

from predictor.committed import Commit
from predictor.tally import Tally
from stream.records import RecordError

TALLY = Tally(tp=60, waiting=7, labels=30, label_incarnation="labels")


@pytest.mark.parametrize("early", [(), (7,), (7, 9, 29)])
def test_both_offsets_and_the_header_give_back_what_was_committed(early: tuple[int, ...]) -> None:
    commit = Commit(100, TALLY, early)
    assert Commit.from_header(commit.to_header()) == commit
    from_data = Commit(100, Tally.from_metadata(TALLY.to_metadata()), None)
    assert from_data.with_labels(30, commit.label_metadata()) == commit


def test_labels_that_wait_are_written_as_differences() -> None:
    assert Commit(100, TALLY, (7, 9, 29)).label_metadata() == (
        '{"incarnation":"labels","early":[7,2,20]}'
    )


def test_256_labels_that_wait_fit_into_the_metadata_whatever_their_offsets() -> None:
    most = 2**53
    tally = Tally(label_incarnation="x" * 22)
    evenly = tuple(range(most // 257, most, most // 257))[-256:]
    # As many differences of 15 digits as possible, and the others of 14.
    longest = [10**14] * 71 + [10**13] * 185
    worst = tuple(sum(longest[: i + 1]) for i in range(256))
    for early in (evenly, worst):
        assert len(Commit(0, tally, early).label_metadata()) <= 4_000


@pytest.mark.parametrize("metadata", ["", "no JSON", '{"early": [-1]}', '{"early": "x"}'])
def test_a_label_offset_that_somebody_else_has_committed_is_not_taken(metadata: str) -> None:
    commit = Commit(100, TALLY, None)
    assert commit.with_labels(5, metadata) == commit


def test_after_a_commit_of_the_version_before_the_label_offset_alone_says_what_is_next() -> None:
    commit = Commit(100, Tally(tp=60), None)
    found = commit.with_labels(30, Commit(90, TALLY, (7,)).label_metadata())
    assert (found.tally.labels, found.tally.label_incarnation, found.early) == (30, "labels", (7,))


@pytest.mark.parametrize("header", [b"", b"{}", b'{"data":1,"labels":1,"early":[],"tally":{}}'])
def test_a_header_that_is_no_position_is_refused(header: bytes) -> None:
    with pytest.raises(RecordError):
        Commit.from_header(header)
