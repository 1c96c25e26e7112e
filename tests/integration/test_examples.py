from __future__ import annotations

import subprocess
import sys

from tests.services import ROOT, Services, eventually
from tests.topics import Topics


def test_the_producer_of_the_readme_is_predicted(
    start: Services, settings_env: dict[str, str]
) -> None:
    with Topics(settings_env) as topics:
        subprocess.run(
            [sys.executable, "examples/producer.py"], cwd=ROOT, env=start.env, check=True
        )
        topics.publish(1)
        start("predictor")
        eventually(lambda: len(topics.predictions()) == 1_000)
        assert topics.rejected() == []
        assert [p["id"] for p in topics.predictions()] == list(range(1_000))
