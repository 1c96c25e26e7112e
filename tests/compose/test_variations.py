"""Kafka at another port of the host, and a package of one's own in the images."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from lightgbm import LGBMClassifier

from tests.compose.stack import V2, Stack, clean_engine, run
from tests.services import ROOT


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("KAFKA_HOST_PORT", "9093")
    monkeypatch.setenv("EXTRA_PACKAGES", "lightgbm")
    with clean_engine():
        found = Stack(V2, tmp_path, "localhost:9093")
        yield found
        found.close()
    monkeypatch.delenv("EXTRA_PACKAGES")
    run(*V2, "build", seconds=600)  # other tests look at the images as they are


def test_a_model_of_lightgbm_serves_beside_a_kafka_that_the_host_has_at_another_port(
    stack: Stack, tmp_path: Path
) -> None:
    stack("build", seconds=600, status=None)  # a download may fail once
    stack("build", seconds=600)
    stack.kafka("up", "-d")
    stack("up", "-d", env={"RATE": "300"})
    stack.await_more(300)
    assert stack.consume("streaming.prediction")  # in the broker's container it is still 9092
    matrix = np.random.default_rng(0).uniform(0, 10, size=(2_000, 3))
    model = LGBMClassifier(n_estimators=20, verbose=-1).fit(matrix, matrix[:, :2].sum(axis=1) <= 8)
    joblib.dump(model, tmp_path / "model.joblib")
    run("docker", "cp", f"{stack.container('modelgenerator')}:/keys", str(tmp_path))
    patient = ("--wait", "120")
    said = subprocess.run(
        [sys.executable, "-m", "modelgenerator.publish", "model.joblib", *patient],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": "localhost:9093"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert " is serving: " in said
    mounted = ("-v", f"{tmp_path / 'model.joblib'}:/tmp/model.joblib:ro")
    publish = ("python", "-m", "modelgenerator.publish", "/tmp/model.joblib")  # noqa: S108 - in the container
    said = stack("run", "--rm", "-T", *mounted, "modelgenerator", *publish, *patient)
    assert " is serving: " in said
    stack.await_more(300)
    report = stack.check()
    assert len(report.models) > 1
