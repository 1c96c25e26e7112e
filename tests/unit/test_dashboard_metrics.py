from __future__ import annotations

import http.client
import time

from prometheus_client.parser import text_string_to_metric_families

from dashboard.settings import DashboardSettings
from dashboard.state import State
from dashboard.web import Page
from stream.records import Prediction

SETTINGS = DashboardSettings.model_validate({"dashboard_port": 0})


def scrape(state: State) -> dict[tuple[str, str], float]:
    """Return the samples of the page's metrics, by name and window."""
    with Page(SETTINGS, state) as page:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        text = answer.read().decode()
    samples = [
        sample for metric in text_string_to_metric_families(text) for sample in metric.samples
    ]
    assert "process_cpu_seconds_total" in {sample.name for sample in samples}
    return {(s.name, s.labels.get("window", "")): s.value for s in samples}


def test_the_metrics_are_what_the_page_shows_of_each_window() -> None:
    state, now_ms = State(), 1_000 * time.time()
    for offset, (predicted, label) in enumerate([(1, 1), (1, 0), (0, 0), (1, 1)]):
        correct = [1, 1, 2, 3][offset]
        prediction = Prediction(
            offset, predicted, 0.6, label, offset + 1, correct, 7, (0, offset), delay=None
        )
        state.quality.predicted(prediction, int(now_ms), now_ms)
    state.publish()
    found = scrape(state)
    shown = state.parts(now_ms)["windows"]
    for window, name in (("60", "minute"), ("86400", "day"), ("1000", "last_1000")):
        assert found["quality_accuracy", name] == 0.75 == shown[window]["accuracy"]
        assert found["quality_baseline", name] == shown[window]["baseline"]
        assert found["quality_counted_predictions", name] == 4
        lower, upper = shown[window]["accuracy_interval"]
        assert found["quality_accuracy_lower", name] == lower
        assert found["quality_accuracy_upper", name] == upper
    assert found["quality_predictions", "hour"] == 4
    assert found["quality_coverage", "hour"] == 1.0
    assert ("quality_predictions", "last_1000") not in found  # it is of outcomes alone
    assert ("quality_label_delay_p50_seconds", "hour") not in found  # no label came later


def test_a_stream_without_predictions_has_no_accuracy_and_none_is_made_up() -> None:
    found = scrape(State())
    assert {name for name, window in found if name.startswith("quality_") and window} == {
        "quality_predictions",
        "quality_counted_predictions",
        "quality_rejected_records",
    }
