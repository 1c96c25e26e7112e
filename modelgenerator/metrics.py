"""The modelgenerator's metrics for Prometheus; docs/operations.md says what each means."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS_READ = Counter("modelgenerator_records_read", "Records of the data topic that were read.")
LAG = Gauge("modelgenerator_lag_records", "Records that wait to be read, about.")
WINDOW = Gauge("modelgenerator_window_records", "Labelled records that are kept to train on.")
TRAINING_SECONDS = Histogram(
    "modelgenerator_training_seconds",
    "Fits, and calls of partial_fit, by recipe.",
    ["recipe"],
    buckets=[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600],
)
DRIFT_ALARMS = Counter(
    "modelgenerator_drift_alarms",
    "Rises of the share of errors: of a recipe's model, or of what serves (vote).",
    ["recipe"],
)
PUBLISHED = Counter("modelgenerator_models_published", "Published models.", ["reason"])
PUBLISH_SECONDS = Histogram(
    "modelgenerator_publish_seconds", "From a model that is to be published to its version."
)
MODEL_VERSION = Gauge("modelgenerator_model_version", "Version of the model published last.")
