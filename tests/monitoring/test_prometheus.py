"""A Prometheus that runs, and what it reads of a service and of the dashboard."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from dashboard.settings import DashboardSettings
from dashboard.state import State
from dashboard.web import Page
from local.kafka import free_port
from local.process import Process
from predictor import metrics
from stream.metrics import serve
from stream.records import Prediction
from stream.settings import StreamSettings
from tests.services import eventually
from tests.unit.classifiers import envelope
from tests.unit.test_monitoring import ALERTS, FOLDER

CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs:
  - {{job_name: predictor, static_configs: [{{targets: ["127.0.0.1:{predictor}"]}}]}}
  - {{job_name: dashboard, static_configs: [{{targets: ["127.0.0.1:{dashboard}"]}}]}}
"""


@pytest.fixture
def targets() -> Iterator[dict[str, int]]:
    """Serve the metrics of a predictor with a model and no records, and of a dashboard."""
    found = {"predictor": free_port()}
    serve(
        StreamSettings.model_validate({"metrics_port": found["predictor"]}), logging.getLogger("t")
    )
    metrics.Gauges().set({0: 7}, 0, envelope(12))
    state, now_ms = State(), 1_000 * time.time()
    prediction = Prediction(1, 1, 0.9, 1, 1, 1, 12, (0, 0))
    state.quality.predicted(prediction, int(now_ms), now_ms)
    state.publish()
    with Page(DashboardSettings.model_validate({"dashboard_port": 0}), state) as page:
        yield found | {"dashboard": page.port}


@pytest.fixture
def prometheus(targets: dict[str, int], tmp_path: Path) -> Iterator[str]:
    """Run a Prometheus that reads them; return its address."""
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(**targets))
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    process = Process(
        "prometheus",
        [*command, f"--web.listen-address={address}"],
        tmp_path / "prometheus.log",
        cwd=tmp_path,
    )
    yield address
    process.stop()


def ask(prometheus: str, query: str) -> list[dict[str, Any]]:
    """Return the series that answer a query; none while it does not answer."""
    try:
        with urlopen(
            f"http://{prometheus}/api/v1/query?query={quote(query)}", timeout=10
        ) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return found


def test_prometheus_reads_what_is_served_and_loads_the_alerts(prometheus: str) -> None:
    def read(query: str) -> list[dict[str, Any]]:
        # A scrape that takes more than a second leaves no series until the next one.
        return eventually(lambda: ask(prometheus, query), message=query)

    eventually(lambda: len(ask(prometheus, "up == 1")) == 2)
    # The page runs in the same process here, and shows what the whole process has.
    (version,) = read('predictor_model_version{job="predictor"}')
    assert (version["metric"]["job"], version["value"][1]) == ("predictor", "12")
    (lag,) = read('predictor_lag_records{job="predictor"}')
    assert (lag["metric"]["partition"], lag["value"][1]) == ("0", "7")
    (accuracy,) = read('quality_accuracy{window="hour"}')
    assert accuracy["value"][1] == "1"
    assert read("predictor_label_delay_seconds_bucket")
    with urlopen(f"http://{prometheus}/api/v1/rules", timeout=10) as answer:
        (group,) = json.load(answer)["data"]["groups"]
    assert [rule["name"] for rule in group["rules"]] == ALERTS
    # There is no modelgenerator here, so one alert is on its way.
    assert read('ALERTS{alertname="ServiceDown"}')
