from __future__ import annotations

import os
from pathlib import Path

from tests.faults.load import RESUMED_SECONDS, Load
from tests.faults.recoveries import Recoveries
from tests.services import Services, eventually


def test_killed_twenty_times_in_the_middle_of_units_it_resumes_and_loses_and_repeats_nothing(
    load: Load,
    start: Services,
    recoveries: Recoveries,
) -> None:
    predictor = start("predictor", REPLICA="one")
    load.under_way()
    for _ in range(20):
        predictor.kill()
        predictor = start("predictor", REPLICA="one")
        recoveries.add("predictor killed (-9)", load.recovery(RESUMED_SECONDS))
    load.check()


def test_killed_between_commit_and_log_write_the_log_is_completed(
    load: Load,
    start: Services,
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    log, kept, pipe = load.topics.log, tmp_path / "kept", tmp_path / "pipe"
    for _ in range(3):
        predictor = start("predictor", REPLICA="one")
        load.under_way()
        eventually(log.exists)
        os.link(log, kept)
        os.mkfifo(pipe)
        pipe.replace(log)  # opening it for writing blocks until somebody reads
        load.stands_still()
        eventually(lambda: not load.topics.logged(kept))  # it waits there, and nowhere else
        predictor.kill()
        kept.replace(log)
    start("predictor", REPLICA="one")
    recoveries.add("predictor killed before its log write", load.recovery(RESUMED_SECONDS))
    load.check()
    eventually(load.topics.logged)
    load.topics.check(log)
