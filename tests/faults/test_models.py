"""Models that fail on real records, under load."""

from __future__ import annotations

import math
import time
from functools import partial

from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics
from tests.unit.classifiers import Once


def test_a_model_that_fails_after_its_probe_is_barred_and_the_one_before_predicts_its_unit(
    three: Topics,
    start: Services,
    settings_env: dict[str, str],
    recoveries: Recoveries,
) -> None:
    three.publish(1)
    predictor = start("predictor")
    with (
        Topics(settings_env, partitions=3) as publisher,
        Load(three, models_every=math.inf) as load,
    ):
        load.recovery(PATIENCE_SECONDS)
        for version in (2, 4, 6):
            publisher.publish(version, Once())
            begun = time.monotonic()
            await_line(predictor, f"barred model {version}: model error: ArithmeticError")
            fault = "model that fails after its probe"
            recoveries.add(fault, load.recovery(PATIENCE_SECONDS, begun))
            publisher.publish(version + 1)
            eventually(partial(was_said, publisher, version + 1, "serving"), PATIENCE_SECONDS)
        assert predictor.stop() == 0
        start("predictor")
        load.recovery(PATIENCE_SECONDS)
        report = load.check()
        assert report.rejected == 0
        # Those that failed may have predicted before.
        assert report.models - {2, 4, 6} == {1, 3, 5, 7}
        barred = [s["version"] for s in publisher.statuses() if s["status"] == "barred"]
        assert barred == [2, 4, 6]


def was_said(topics: Topics, version: int, status: str) -> bool:
    return any((s["version"], s["status"]) == (version, status) for s in topics.statuses())
