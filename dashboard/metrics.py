"""The quality of the stream as metrics for Prometheus; docs/operations.md says what each means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

NAMES = {"60": "minute", "3600": "hour", "86400": "day"}
"""Of the windows of time, by their seconds; the others are of so many records."""

GAUGES = {
    "accuracy": "Share of right predictions.",
    "accuracy_lower": "Lower end of the 95 % interval of the accuracy.",
    "accuracy_upper": "Upper end of the 95 % interval of the accuracy.",
    "majority": "Accuracy of who always predicts the commoner label.",
    "no_change": "Accuracy of who predicts the label that was counted before.",
    "baseline": "The better one of majority and no_change.",
    "above_baseline": "Accuracy minus baseline.",
    "precision": "Of the records predicted 1, the share that is 1.",
    "recall": "Of the records that are 1, the share that was predicted so.",
    "f1": "Harmonic mean of precision and recall.",
    "mcc": "Matthews correlation coefficient.",
    "roc_auc": "Area under the ROC curve.",
    "log_loss": "Mean of -ln of the probability that the real label was given.",
    "brier": "Mean square of the difference between probability and label.",
    "ece": "Expected calibration error.",
    "positive": "Share of label 1.",
    "predicted_positive": "Share of the predictions that are 1.",
    "coverage": "Labels that came, for each prediction.",
    "label_delay_p50_seconds": "How long half of the labels took at most.",
    "label_delay_p95_seconds": "How long 95 % of the labels took at most.",
    "predictions": "Predictions in the window.",
    "counted_predictions": "Predictions that met their label in the window, and count.",
    "rejected_records": "Rejected records in the window.",
}


class QualityMetrics(Collector):
    """The numbers of the page, as gauges with the label `window`.

    What a window says nothing about has no sample.

    Parameters
    ----------
    windows : callable
        Returns what the page shows of each window, by its seconds or its records.
    """

    def __init__(self, windows: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self._windows = windows

    def collect(self) -> Iterable[Metric]:
        """Return all gauges."""
        windows = self._windows()
        for name, documentation in GAUGES.items():
            gauge = GaugeMetricFamily(f"quality_{name}", documentation, labels=["window"])
            for window, values in windows.items():
                if (value := _value(name, values)) is not None:
                    gauge.add_metric([NAMES.get(window, f"last_{window}")], value)
            yield gauge


def _value(name: str, values: Mapping[str, Any]) -> float | None:
    lower, upper = values["accuracy_interval"] or (None, None)
    found: float | None = {
        **values,
        "accuracy_lower": lower,
        "accuracy_upper": upper,
        "label_delay_p50_seconds": values.get("label_delay_p50"),
        "label_delay_p95_seconds": values.get("label_delay_p95"),
        "counted_predictions": values["n"],
        "rejected_records": values.get("rejected"),
    }.get(name)
    return found
