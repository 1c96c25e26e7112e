from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.process import Process
from tests.faults.load import RESUMED_SECONDS, Load
from tests.services import PATIENCE_SECONDS, ROOT, SERVICES, Services, await_line, eventually

WARNING = "predictions go on, the log catches up later"


def assert_at_most_one_a_minute(predictor: Process, since: float) -> None:
    assert predictor.log().count(WARNING) <= 1 + (time.monotonic() - since) // 60


def test_on_a_full_disk_predictions_go_on_with_one_warning_and_the_log_catches_up(
    load: Load,
    start: Services,
    small_disk: Path,
) -> None:
    log, filler = small_disk / "predictor.log", small_disk / "filler"
    begun = time.monotonic()
    predictor = start("predictor", LOG_FILE=str(log))
    eventually(lambda: log.exists() and log.read_text().count("\n") > 20, PATIENCE_SECONDS)
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"\0" * 2**20)
    await_line(predictor, f"No space left on device; {WARNING}")
    load.recovery(RESUMED_SECONDS)
    load.recovery(RESUMED_SECONDS)
    assert_at_most_one_a_minute(predictor, begun)
    assert not load.topics.logged(log)  # though a few lines may still fit into a block
    filler.unlink()
    ends = load.ends()
    eventually(lambda: load.answered(ends), RESUMED_SECONDS)
    load.finish()
    eventually(lambda: load.topics.logged(log), RESUMED_SECONDS)
    load.check(log)


def test_where_the_log_file_cannot_be_written_predictions_go_on_and_the_log_catches_up(
    load: Load, start: Services, tmp_path: Path
) -> None:
    log = tmp_path / "not" / "yet" / "predictor.log"
    log.parent.parent.write_text("a file where the folder should be")
    begun = time.monotonic()
    predictor = start("predictor", LOG_FILE=str(log))
    await_line(predictor, WARNING)
    load.under_way()
    assert_at_most_one_a_minute(predictor, begun)
    load.finish()
    log.parent.parent.unlink()  # nothing more is predicted from here on
    eventually(lambda: load.topics.logged(log), RESUMED_SECONDS)
    load.check(log)


@pytest.mark.parametrize("service", SERVICES)
def test_where_its_output_goes_to_a_full_disk_a_service_runs_and_stops_without_a_word(
    service: str, tmp_path: Path
) -> None:
    files = {"SIGNING_KEY": "key.pem", "TRUSTED_KEYS": "trusted", "PREDICTOR_SECRET": "secret"}
    env = {name: str(tmp_path / file) for name, file in files.items()}
    health = tmp_path / "health"
    env |= {"HEALTH_FILE": str(health), "KAFKA_BOOTSTRAP_SERVERS": "localhost:1"}
    with (
        Path("/dev/full").open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", f"{service}.app"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | env,
            cwd=ROOT,
        ) as process,
    ):
        eventually(health.exists, PATIENCE_SECONDS)
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said) == (0, "")
