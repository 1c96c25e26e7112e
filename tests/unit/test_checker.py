from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.keys import signing_key
from tests.checker import check_snapshot
from tests.histories import (
    BROKEN,
    BROKEN_BATCHES,
    BROKEN_LOGS,
    RECORDS,
    Broken,
    Made,
    by_its_own_predict,
    correct_history,
    history_with_a_batch,
    model_record,
)
from tests.late_histories import BROKEN_LATE, late_history, with_texts, without_times
from tests.snapshot import Report, Row, Snapshot


def rows(records: list[dict[str, Any]]) -> list[Row]:
    return [Row(offset, json.dumps(record).encode()) for offset, record in enumerate(records)]


def timed(values: dict[int, bytes | None], times: dict[int, int]) -> list[Row]:
    return [Row(at, value, (), times.get(at, -1)) for at, value in values.items()]


def checked(
    made: Made, folder: Path, sign: bool = True, published_later: Made | None = None
) -> Report:
    key = signing_key(folder / "key.pem")
    (folder / "trusted").mkdir()
    if sign:
        key.share(folder / "trusted")
    snapshot = Snapshot(
        data={0: timed(made.data, made.times)},
        predictions={0: rows(made.predictions)},
        rejected={0: rows(made.rejected)},
        models=[
            Row(0, *model_record(history, version, key))
            for history in (made, published_later)
            if history
            for version in history.models
        ],
        status=rows(made.statuses),
        committed={0: (made.committed, made.metadata)},
        labels={0: timed(made.labels, made.label_times)},
        rejected_labels={0: rows(made.rejected_labels)},
        labels_committed={0: made.labels_commit},
    )
    logs = [made.write_log(folder / "log")]
    return check_snapshot(snapshot, folder / "trusted", logs)


def test_a_correct_history_holds(tmp_path: Path) -> None:
    report = checked(correct_history(), tmp_path)
    assert (report.predictions, report.rejected, report.log_lines) == (RECORDS - 1, 1, 7)
    assert report.recomputed == RECORDS - 1
    assert not report.not_checked
    assert (report.models, report.swaps) == ({1, 2, 3}, 3)
    assert report.unlabelled == 1
    assert report.seen == 6


def test_a_correct_history_with_late_labels_holds(tmp_path: Path) -> None:
    report = checked(late_history(), tmp_path)
    assert report.outcomes == {"labelled": 51, "revised": 1, "assumed": 2}
    assert (report.rejected_labels, report.held) == (3, 2)
    assert (report.predictions, report.recomputed) == (RECORDS - 1, RECORDS - 1)
    assert report.n == 56
    assert not report.not_checked


def test_predictions_of_the_version_before_were_waited_for_by_nobody(tmp_path: Path) -> None:
    made = without_times(late_history())
    assert checked(made, tmp_path).rejected_labels == 3


def test_the_rule_of_the_envelope_decides_how_a_label_is_checked(tmp_path: Path) -> None:
    assert checked(by_its_own_predict(correct_history()), tmp_path).recomputed == RECORDS - 1


def test_a_batch_that_cannot_be_decoded_is_rejected_as_one(tmp_path: Path) -> None:
    report = checked(history_with_a_batch(), tmp_path)
    assert (report.predictions, report.rejected) == (RECORDS - 1, 2)


@pytest.mark.parametrize(("name", "breaks"), BROKEN_BATCHES)
def test_a_batch_that_is_rejected_wrongly_is_found(
    tmp_path: Path, name: str, breaks: Callable[[Made], object]
) -> None:
    made = history_with_a_batch()
    breaks(made)
    with pytest.raises(AssertionError, match=r"^I1 "):
        checked(made, tmp_path)


@pytest.mark.parametrize(
    ("make", "broken"),
    [(correct_history, broken) for broken in BROKEN]
    + [(late_history, broken) for broken in BROKEN_LATE],
    ids=[broken.name for broken in BROKEN + BROKEN_LATE],
)
def test_a_violation_is_found_where_it_is(
    make: Callable[[], Made], broken: Broken, tmp_path: Path
) -> None:
    made = make()
    broken.breaks(made)
    with pytest.raises(AssertionError) as raised:
        checked(made, tmp_path)
    place = f"{broken.invariant} {broken.topic} partition 0 offset {broken.offset}:"
    assert str(raised.value).startswith(place)


@pytest.mark.parametrize(
    ("name", "line", "breaks"), BROKEN_LOGS, ids=[name for name, *_ in BROKEN_LOGS]
)
def test_a_wrong_log_is_found_at_its_line(
    name: str, line: int, breaks: Any, tmp_path: Path
) -> None:
    made = correct_history()
    breaks(made)
    with pytest.raises(AssertionError, match=f"^I4 .*log line {line}:"):
        checked(made, tmp_path)


def test_a_model_that_nobody_trusted_signed_is_named_as_not_checked(tmp_path: Path) -> None:
    report = checked(correct_history(), tmp_path, sign=False)
    assert report.recomputed == 0
    assert report.not_checked == {f"model {v}: not trusted or not there" for v in (1, 2, 3)}


def test_an_output_beyond_the_committed_offset_is_found(tmp_path: Path) -> None:
    made = correct_history()
    made.committed -= 1
    with pytest.raises(AssertionError, match=r"^I1 prediction partition 0 offset 78:"):
        checked(made, tmp_path)


def test_a_record_that_is_not_there_has_no_output(tmp_path: Path) -> None:
    made = correct_history()
    del made.data[40]
    with pytest.raises(AssertionError, match=r"^I1 data partition 0 offset 40:"):
        checked(made, tmp_path)


def test_of_two_contents_of_a_version_the_one_that_was_whole_first_counts(tmp_path: Path) -> None:
    made, other = correct_history(), correct_history()
    other.models[1]["trained_to"] = {"0": 3}
    report = checked(made, tmp_path, published_later=other)
    assert report.recomputed == RECORDS - 1


def test_labels_that_are_texts_are_what_a_model_says_they_are(tmp_path: Path) -> None:
    assert not checked(with_texts(late_history()), tmp_path).not_checked
