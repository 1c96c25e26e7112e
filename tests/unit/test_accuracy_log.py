from __future__ import annotations

import errno
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from predictor import accuracy_log
from predictor.accuracy_log import LONGEST_PAUSE_SECONDS, RETRY_SECONDS, AccuracyLog
from stream.records import Prediction
from stream.settings import SettingsError
from tests.services import ROOT


class Clock:
    """Seconds that pass when told to."""

    seconds = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.seconds)
    return found


def prediction(n: int, partition: int = 0) -> Prediction:
    return Prediction(n, 1, 0.5, 1, n, n - 1, 3, (partition, n))


def topic(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
    for n in range(after + 1, upto + 1):
        yield prediction(n, partition), 1_000 * n


def no_topic(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
    raise AssertionError(f"partition {partition} was read after {after} up to {upto}")


def counts(path: Path) -> list[int]:
    return [int(n) for n in re.findall(r" n=(\d+)", path.read_text())]


def make(path: Path, history: object = topic, max_bytes: int = 2**20) -> AccuracyLog:
    return AccuracyLog(path / "predictor.log", max_bytes, history)  # type: ignore[arg-type] # one of the two above


def test_a_line_stands_at_every_tenth_counted_prediction(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append([prediction(n) for n in range(1, 26)])
    lines = (tmp_path / "predictor.log").read_text().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z partition=0 n=10 accuracy=0.900000 model=3",
        lines[0],
    )
    assert counts(tmp_path / "predictor.log") == [10, 20]


def test_the_lines_of_a_commit_do_not_wait_until_a_reader_of_the_topic_sees_it(
    tmp_path: Path,
) -> None:
    def lagging(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        yield from topic(partition, after, min(upto, 60))

    log = make(tmp_path, lagging)
    log.append([prediction(n) for n in range(61, 86)])
    assert counts(tmp_path / "predictor.log") == [10, 20, 30, 40, 50, 60, 70, 80]


def test_no_line_is_left_out_where_the_topic_does_not_show_all_of_the_missing_ones_yet(
    tmp_path: Path,
) -> None:
    shown = 100

    def lagging(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        yield from topic(partition, after, min(upto, shown))

    log = make(tmp_path, lagging)
    log.fill_in({0: 150})
    log.append([prediction(n) for n in range(151, 161)])
    assert counts(tmp_path / "predictor.log") == list(range(10, 101, 10))
    shown = 160
    log.append([prediction(n) for n in range(161, 171)])
    assert counts(tmp_path / "predictor.log") == list(range(10, 171, 10))


def test_the_first_lines_of_all_are_written_without_reading_the_topic(tmp_path: Path) -> None:
    make(tmp_path, no_topic).append([prediction(n) for n in range(1, 26)])
    assert counts(tmp_path / "predictor.log") == [10, 20]


def test_lines_that_follow_on_are_written_without_reading_the_topic(tmp_path: Path) -> None:
    make(tmp_path).fill_in({0: 20})
    log = make(tmp_path, no_topic)
    log.append([prediction(n) for n in range(21, 41)])
    assert counts(tmp_path / "predictor.log") == [10, 20, 30, 40]


def test_lines_lost_between_commit_and_write_are_filled_in_at_the_start(tmp_path: Path) -> None:
    make(tmp_path).append([prediction(n) for n in range(1, 21)])
    make(tmp_path).fill_in({0: 57})
    assert counts(tmp_path / "predictor.log") == [10, 20, 30, 40, 50]


def test_a_gap_is_filled_in_before_the_lines_behind_it(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append([prediction(n) for n in range(1, 11)])
    log.append([prediction(n) for n in range(41, 51)])
    assert counts(tmp_path / "predictor.log") == [10, 20, 30, 40, 50]


def test_a_torn_last_line_is_dropped_and_written_again(tmp_path: Path) -> None:
    make(tmp_path).fill_in({0: 30})
    path = tmp_path / "predictor.log"
    path.write_bytes(path.read_bytes()[:-9])
    make(tmp_path).fill_in({0: 30})
    assert counts(path) == [10, 20, 30]
    assert path.read_bytes().endswith(b"\n")


def test_partitions_have_lines_of_their_own(tmp_path: Path) -> None:
    log = make(tmp_path)
    log.append([prediction(10, 0), prediction(10, 1)])
    assert counts(tmp_path / "predictor.log") == [10, 10]


def test_a_full_file_is_rotated_and_three_older_ones_stay(tmp_path: Path) -> None:
    log = make(tmp_path, max_bytes=100)
    for n in range(10, 210, 10):
        log.append([prediction(n)])
    files = [tmp_path / f"predictor.log{end}" for end in (".3", ".2", ".1", "")]
    kept = [n for file in files for n in counts(file)]
    assert kept == list(range(kept[0], 210, 10))
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_restart_right_after_a_rotation_repeats_no_line(tmp_path: Path) -> None:
    make(tmp_path, max_bytes=100).fill_in({0: 50})
    make(tmp_path, max_bytes=100).fill_in({0: 60})
    make(tmp_path, max_bytes=100).fill_in({0: 60})
    assert counts(tmp_path / "predictor.log.1") + counts(tmp_path / "predictor.log") == [
        *range(10, 70, 10)
    ]


def test_a_file_that_cannot_be_written_is_warned_of_and_catches_up_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    (tmp_path / "predictor.log").mkdir()
    log = make(tmp_path)
    log.append([prediction(10)])
    log.append([prediction(20)])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    (tmp_path / "predictor.log").rmdir()
    clock.seconds += RETRY_SECONDS
    log.append([prediction(30)])
    assert counts(tmp_path / "predictor.log") == [10, 20, 30]


def test_while_a_file_cannot_be_written_the_topic_is_not_read_for_every_commit(
    tmp_path: Path, clock: Clock
) -> None:
    reads = []

    def counted(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        reads.append(upto)
        yield from topic(partition, after, upto)

    log = make(tmp_path, counted)
    log.fill_in({0: 20})
    (tmp_path / "predictor.log").unlink()
    (tmp_path / "predictor.log").mkdir()
    for n in range(30, 1_030, 10):
        log.append([prediction(n)])
        clock.seconds += 0.1
    assert len(reads) <= 1 + 10 / RETRY_SECONDS + 1


def test_what_could_not_be_written_is_written_a_few_seconds_later_though_nothing_more_is_predicted(
    tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "predictor.log").mkdir()
    log = make(tmp_path)
    log.append([prediction(n) for n in range(1, 26)])
    (tmp_path / "predictor.log").rmdir()
    log.catch_up()
    assert not (tmp_path / "predictor.log").exists(), "it was tried just now"
    for _ in range(10):
        clock.seconds += RETRY_SECONDS
        log.catch_up()
        assert counts(tmp_path / "predictor.log") == [10, 20]


def test_missing_lines_of_a_partition_do_not_wait_for_others_to_be_idle(
    tmp_path: Path, clock: Clock
) -> None:
    log = make(tmp_path)
    log.fill_in({0: 0, 1: 0})
    (tmp_path / "predictor.log").mkdir()
    log.append([prediction(10, 0)])
    (tmp_path / "predictor.log").rmdir()
    for n in range(1, 101):
        clock.seconds += 0.1
        log.append([prediction(n, 1)])
    text = (tmp_path / "predictor.log").read_text()
    assert "partition=0 n=10 " in text
    assert [int(n) for n in re.findall(r"partition=1 n=(\d+)", text)] == [*range(10, 110, 10)]


def test_lines_that_the_topic_does_not_hold_are_looked_for_less_and_less_often(
    tmp_path: Path, clock: Clock
) -> None:
    reads = []

    def empty(partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        reads.append(clock.seconds)
        yield from ()

    log = make(tmp_path, empty)
    log.fill_in({0: 100})
    for _ in range(36_000):
        clock.seconds += 0.1
        log.catch_up()
    assert 5 < len(reads) < 30
    assert max(b - a for a, b in pairwise(reads)) == pytest.approx(LONGEST_PAUSE_SECONDS, abs=1)


def test_a_file_is_set_aside_with_one_line_when_counts_start_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path).fill_in({0: 50})
    log = make(tmp_path)
    log.fill_in({0: 0})
    log.append([prediction(10)])
    assert counts(tmp_path / "predictor.log") == [10]
    assert counts(tmp_path / "predictor.log.old") == [10, 20, 30, 40, 50]
    assert len(caplog.records) == 1


def test_a_file_that_is_moved_away_is_followed_by_a_new_one_with_the_next_lines(
    tmp_path: Path,
) -> None:
    log, path = make(tmp_path), tmp_path / "predictor.log"
    log.append([prediction(n) for n in range(1, 26)])
    path.rename(tmp_path / "predictor.log-20260101")  # as logrotate does
    log.append([prediction(n) for n in range(26, 46)])
    assert counts(path) == [30, 40]


def test_a_folder_that_is_deleted_is_made_again_and_the_file_filled_in(
    tmp_path: Path, clock: Clock
) -> None:
    log, path = make(tmp_path / "logs"), tmp_path / "logs" / "predictor.log"
    log.append([prediction(n) for n in range(1, 26)])
    path.unlink()
    path.parent.rmdir()
    log.append([prediction(n) for n in range(26, 46)])
    clock.seconds += 2 * RETRY_SECONDS
    log.append([prediction(n) for n in range(46, 56)])
    assert counts(path) == [10, 20, 30, 40, 50]


LOCKED = """
import sys, time
from pathlib import Path
from predictor.accuracy_log import AccuracyLog
from stream.records import Prediction
log = AccuracyLog(Path(sys.argv[1]), 10_000, None)
log.append([Prediction(10, 1, 0.5, 1, 10, 9, 3, (0, 10))])
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the same log file."""
    arguments = [sys.executable, "-c", LOCKED, str(tmp_path / "predictor.log")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_file_that_another_process_writes_is_a_wrong_setting_until_that_is_killed(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pytest.raises(SettingsError, match=r"LOG_FILE=.*predictor\.log: another predictor writes"):
        make(tmp_path)
    other.kill()
    other.wait()
    make(tmp_path).append([prediction(20)])
    assert counts(tmp_path / "predictor.log") == [10, 20]


def test_a_new_file_is_kept_by_the_first_that_writes_it(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    first.append([prediction(10)])
    for _ in range(2):
        with pytest.raises(SettingsError, match="another predictor writes this file"):
            second.append([prediction(10)])
    for n in range(20, 500, 10):
        first.append([prediction(n)])
    assert counts(tmp_path / "predictor.log") == list(range(10, 500, 10))


def test_a_file_that_was_rotated_stays_locked(tmp_path: Path) -> None:
    first = make(tmp_path, max_bytes=1)
    for n in (10, 20, 30):
        first.append([prediction(n)])
    assert counts(tmp_path / "predictor.log") == [30]
    with pytest.raises(SettingsError):
        make(tmp_path)


def test_a_file_system_without_locks_or_a_folder_to_come_keeps_no_line_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(accuracy_log, "flock", refuse)
    make(tmp_path / "to" / "come").append([prediction(10)])
    assert counts(tmp_path / "to" / "come" / "predictor.log") == [10]
    (line,) = caplog.messages
    assert "predictor.log cannot be locked: [Errno 37] No locks available" in line
