from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import orjson

from tests.checker import check
from tests.services import ROOT, Services, eventually
from tests.topics import Topics, assert_exactly_once


def test_models_swap_while_sea_is_predicted_well_above_its_majority_class_and_all_of_it_verifies(
    start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    stream = {"STREAM": "sea", "RATE": "500", "COUNT": "5000", "DATA_PARTITIONS": "2"}
    services = [
        start(service, **stream) for service in ("predictor", "modelgenerator", "datagenerator")
    ]
    with Topics(settings_env, partitions=2) as topics:
        eventually(lambda: topics.answered() == 5_000, 120, lambda: f"{topics.answered()} of 5000")
        predictions = topics.predictions(0) + topics.predictions(1)
        assert_exactly_once(topics)

    counted = [p for p in predictions if p["label"] is not None and not p.get("seen")]
    accuracy = sum(p["prediction"] == p["label"] for p in counted) / len(counted)
    positive = sum(p["label"] for p in counted) / len(counted)
    assert accuracy > max(positive, 1 - positive) + 0.05
    assert len({p["model"] for p in predictions}) >= 3
    for partition in (0, 1):
        versions = [p["model"] for p in predictions if p["source"][0] == partition]
        assert all(older <= newer for older, newer in pairwise(versions))

    log = tmp_path / "predictor.log"
    check(settings_env, [log])
    verified = subprocess.run(
        [sys.executable, "-m", "predictor.verify", "--log", str(log), "--json"],
        cwd=ROOT,
        env=start.env,
        capture_output=True,
        timeout=120,
        check=False,
    )
    report = orjson.loads(verified.stdout)
    assert (verified.returncode, report["verified"]) == (0, True)
    assert report["predictions"] == 5_000
    assert [service.stop() for service in services] == [0, 0, 0]
    assert not any("Traceback" in service.log() for service in services)
