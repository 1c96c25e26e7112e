from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from local.kafka import LocalKafka, free_port
from local.process import Process
from tests.services import ROOT, SERVICES, Services, await_line, eventually


@pytest.fixture
def settings_env() -> dict[str, str]:
    """Settings of services whose broker has no other test's topics."""
    return {"RATE": "300", "KAFKA_BOOTSTRAP_SERVERS": "elsewhere:1"}


def predicted(run: Process) -> int:
    """Return how many predictions were counted; 0 until a model that took over has made some."""
    counts = [int(n) for n in re.findall(r" predictor: n=(\d+) .* swaps=[1-9]", run.log())]
    return counts[-1] if counts and counts[-1] > counts[0] else 0


def verified(folder: Path, port: int) -> dict[str, Any]:
    """Verify what a run left behind, as a person does."""
    typed = '. "$0/env" && exec "$1" -m predictor.verify --log "$0/predictor.log" --json'
    command = ("bash", "-c", typed, folder, sys.executable)
    with LocalKafka(folder / "kafka", port):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    report: dict[str, Any] = orjson.loads(done.stdout)
    return report


def test_a_run_goes_on_where_the_one_before_was_stopped_and_all_of_it_verifies(
    start: Services, tmp_path: Path
) -> None:
    folder, port = tmp_path / "a folder", free_port()
    command = ("local.run", "--folder", str(folder), "--port", str(port))
    records = 0
    for goal in (500, 1_500):
        run = start.run("run", *command)
        eventually(lambda: predicted(run) > goal, 120, run.tail)  # noqa: B023 - called at once
        assert f"first_id={records} " in run.log()
        second = start.run("second", *command)
        assert second.wait(60) == 1
        assert second.log() == f"a broker already runs with the data in {folder / 'kafka'}\n"
        await_line(run, " the page is at ")  # before, a signal ends it without a word
        run.send(signal.SIGINT)
        assert run.wait(60) == 0
        assert re.findall(r"INFO (\w+): stopped", run.log()) == ["dashboard", *SERVICES]
        assert "Traceback" not in run.log()
        report = verified(folder, port)
        assert report["verified"]
        assert report["swaps"] > 0
        records = report["predictions"] + report["pending"]
    assert report["predictions"] > 1_500


def test_a_run_ends_with_the_service_that_cannot_go_on(start: Services, tmp_path: Path) -> None:
    run = start.run(
        "run",
        *("local.run", "--folder", str(tmp_path / "run"), "--port", str(free_port())),
        STREAM="no-such-file.csv",
    )
    assert run.wait(120) == 1
    assert "no-such-file.csv" in run.log()
    assert run.log().splitlines()[-1].startswith("datagenerator ended with status ")


def test_a_port_that_is_in_use_is_named_with_what_to_do(
    start: Services, kafka: str, tmp_path: Path
) -> None:
    host, port = kafka.split(":")
    run = start.run("run", "local.run", "--folder", str(tmp_path / "run"), "--port", port)
    assert run.wait(60) == 1
    assert run.log() == (
        f"{host}:{port} is in use, perhaps by another Kafka; stop that one, or take another port"
        " with PORT=\n"
    )
