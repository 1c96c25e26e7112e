"""Processes that are told to stop and do not; the broker is not needed for that."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from stream.watchdog import PATIENCE_SECONDS

STUCK = """
import threading, time
from stream.service import Stopped, run
from stream.settings import StreamSettings
from stream.watchdog import doing

def spin(stop):
    with doing(lambda: "reading data partition 0 offset 7"):
        print("ready", flush=True)
        while True:
            pass

def write(stop):
    print("ready", flush=True)
    while True:
        print("x" * 1_000)

def end_slowly(stop):
    print("ready", flush=True)
    try:
        stop.wait(60)
    except Stopped:
        time.sleep(1)
        raise

def spin_beside(stop):
    def spin():
        while True:
            pass
    threading.Thread(target=spin, daemon=True).start()
    end_slowly(stop)

run("stuck", StreamSettings, lambda settings, stop: WHAT(stop))
"""


def end(what: str, read: bool = True) -> tuple[int, float, str]:
    """Start a process, tell it to stop; return its status, how long that took, and its log."""
    command = [sys.executable, "-c", STUCK.replace("WHAT", what)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        log = process.stdout.read() if read else ""
        status = process.wait(30)
        return status, time.monotonic() - begun, log


def test_a_process_that_spins_is_ended_with_a_line_that_says_where() -> None:
    status, seconds, log = end("spin")
    assert status == 1
    assert seconds >= PATIENCE_SECONDS
    line = (
        f"did not stop within {PATIENCE_SECONDS:g} s: reading data partition 0 offset 7, <string>"
    )
    assert line in log
    assert log.count("\n") == 1


def test_a_process_whose_log_nobody_reads_ends_too() -> None:
    assert end("write", read=False)[0] == 1


@pytest.mark.parametrize("what", ["end_slowly", "spin_beside"])
def test_a_process_that_ends_by_itself_ends_with_status_0(what: str) -> None:
    status, _, log = end(what)
    assert (status, "did not stop" in log) == (0, False), log
