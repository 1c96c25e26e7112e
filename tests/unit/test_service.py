from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import pytest

from stream.deadlines import DeadlineExceeded
from stream.service import Fatal, Stop, Stopped


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def health_file(tmp_path: Path) -> Path:
    return tmp_path / "alive"


def aged(path: Path) -> bool:
    """Tell whether a file was not touched since it was last asked about; then make it old."""
    old = path.stat().st_mtime == 1
    os.utime(path, (1, 1))
    return old


def test_the_health_file_is_touched_at_each_turn_but_once_a_second_at_most(
    health_file: Path,
) -> None:
    clock = Clock()
    stop = Stop(clock)
    stop.beat_on(health_file)
    stop.check()
    assert not aged(health_file)
    stop.check()
    assert aged(health_file)
    clock.seconds += 1
    stop.check()
    assert not aged(health_file)


def test_a_long_wait_is_no_sign_of_being_stuck(health_file: Path) -> None:
    stop = Stop()
    stop.beat_on(health_file)
    stop.check()
    aged(health_file)
    threading.Timer(1.5, stop.request).start()
    with pytest.raises(Stopped):
        stop.wait(threading.TIMEOUT_MAX)
    assert not aged(health_file)


def test_a_call_on_another_thread_does_not_touch_the_health_file(health_file: Path) -> None:
    stop = Stop()
    stop.beat_on(health_file)
    aged(health_file)
    thread = threading.Thread(target=stop.check)
    thread.start()
    thread.join()
    assert aged(health_file)


@pytest.mark.parametrize(("seconds", "stuck"), [(math.inf, True), (60.0, False)])
def test_a_call_without_an_end_may_be_stuck_but_one_with_a_deadline_is_not(
    health_file: Path, seconds: float, stuck: bool
) -> None:
    stop = Stop()
    stop.beat_on(health_file)
    aged(health_file)

    def call() -> None:
        end = time.monotonic() + (0.3 if stuck else 60.0)
        while health_file.stat().st_mtime == 1 and time.monotonic() < end:
            time.sleep(0.01)

    stop.deadline(seconds, call)
    assert aged(health_file) == stuck


def test_a_health_file_that_cannot_be_made_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="HEALTH_FILE"):
        Stop().beat_on(tmp_path / "missing" / "alive")


def test_without_a_health_file_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop = Stop()
    stop.beat_on(None)
    stop.check()
    assert list(tmp_path.iterdir()) == []


def test_a_wait_lasts_as_long_as_it_is_told() -> None:
    begun = time.monotonic()
    Stop().wait(1.3)
    assert time.monotonic() - begun > 1.25


def test_a_call_that_takes_too_long_raises_deadline_exceeded() -> None:
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        Stop().deadline(0.2, release.wait)
    release.set()


@pytest.mark.parametrize(("turn", "in_time"), [(1.0, True), (math.inf, False)])
def test_a_pause_of_the_process_uses_up_a_deadline_only_without_max_step(
    turn: float, in_time: bool
) -> None:
    clock, looks, release = Clock(), [], threading.Event()

    def paused_once() -> float:
        looks.append(clock.seconds)
        if len(looks) == 3:  # the end is set by now
            clock.seconds += 3_600.0
        if len(looks) == 6:
            release.set()
        return clock.seconds

    def call() -> str:
        release.wait(30)
        return "done"

    if in_time:
        assert Stop(paused_once).deadline(60.0, call, turn) == "done"
    else:
        with pytest.raises(DeadlineExceeded):
            Stop(paused_once).deadline(60.0, call, turn)
    release.set()
