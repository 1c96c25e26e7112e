from __future__ import annotations

from pathlib import Path

from tests.checker import check
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import Services

RESUMED_SECONDS = 2 * 15.0


def test_killed_twenty_times_in_the_middle_of_units_it_resumes_and_nothing_is_lost_or_twice(
    load: Load,
    start: Services,
    settings_env: dict[str, str],
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    predictor = start("predictor", REPLICA="one")
    load.recovery(RESUMED_SECONDS)
    for _ in range(20):
        predictor.kill()
        predictor = start("predictor", REPLICA="one")
        recoveries.add("predictor killed (-9)", load.recovery(RESUMED_SECONDS))
    load.finish()
    report = check(settings_env, [tmp_path / "predictor.log"])
    assert report.n == load.topics.written()
