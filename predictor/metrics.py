"""The predictor's metrics for Prometheus; docs/operations.md says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from predictor.result import Result
from stream.metrics import ManyHistogram
from stream.models import Envelope

RECORDS_READ = Counter(
    "predictor_records_read",
    "Records of the data topic that were read; some twice, such as those that wait for a model.",
)
PREDICTIONS = Counter("predictor_predictions", "Committed predictions.", ["prediction"])
OUTCOMES = Counter(
    "predictor_outcomes",
    "Predictions that met their label, at once or later, and what else became of their labels.",
    ["outcome"],
)
REJECTED_RECORDS = Counter("predictor_rejected_records", "Rejected records of the data topic.")
REJECTED_LABELS = Counter("predictor_rejected_labels", "Rejected records of the label topic.")
LABEL_DELAY = ManyHistogram(
    "predictor_label_delay_seconds",
    "From a record to its label, where that came later.",
    [0.1, 1, 10, 60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400],
)
WAITING = Gauge("predictor_waiting_predictions", "Predictions that wait for their labels.")
TRANSACTION_SECONDS = Histogram(
    "predictor_transaction_seconds", "Transactions of units of work, those that failed included."
)
TRANSACTIONS_FAILED = Counter(
    "predictor_transactions_failed", "Transactions that failed; their records are read again."
)
LAG = Gauge(
    "predictor_lag_records", "Records that are not predicted yet, at most so many.", ["partition"]
)
SWAPS = Counter("predictor_swaps", "Models that took over from another one.")
REFUSED = Counter(
    "predictor_models_refused", "Models that were refused, and records that are none."
)
BARRED = Counter("predictor_models_barred", "Models that were taken out of service.")
MODEL_VERSION = Gauge("predictor_model_version", "Version of the model that serves; 0 for none.")
MODEL_CREATED = Gauge(
    "predictor_model_created_timestamp_seconds", "When the model that serves was published."
)
LATENESS = Histogram(
    "predictor_model_lateness_records",
    "Records between the last one that a model was trained on and the first one it predicted.",
    buckets=[10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 100_000],
)

_BY_PREDICTION = [PREDICTIONS.labels(str(prediction)) for prediction in (0, 1)]
_BY_OUTCOME = {
    name: OUTCOMES.labels(name) for name in ("labelled", "expired", "assumed", "revised")
}
"""What a tally counts, under the same name."""


def committed(result: Result) -> None:
    """Take in a committed unit of work."""
    ones = sum(prediction.prediction for prediction in result.made)
    for counter, count in zip(_BY_PREDICTION, (len(result.made) - ones, ones), strict=True):
        counter.inc(count)
    for state in result.states.values():
        for name, counter in _BY_OUTCOME.items():
            counter.inc(getattr(state.tally, name) - getattr(state.before, name))
    REJECTED_RECORDS.inc(len(result.rejected))
    REJECTED_LABELS.inc(len(result.rejected_labels))
    if len(result.made) < len(result.predictions):
        outcomes = (outcome for outcome, _ in result.predictions if outcome.outcome == "labelled")
        LABEL_DELAY.observe(max(0.0, each.delay) for each in outcomes if each.delay is not None)


def swapped(first: Mapping[str, int], model: Envelope) -> None:
    """Take in the first offset that a model predicted in each partition."""
    known = first.keys() & model.trained_to.keys()
    if known:
        LATENESS.observe(sum(max(0, first[p] - model.trained_to[p] - 1) for p in known))


class Gauges:
    """What stands now; to be set about once a second."""

    def __init__(self) -> None:
        self._partitions: set[str] = set()

    def set(self, lags: Mapping[int, int], waiting: int, model: Envelope | None) -> None:
        """Set all gauges.

        Parameters
        ----------
        lags : mapping of int to int
            By partition. Others are no longer this predictor's.
        waiting : int
            Predictions that wait for their labels.
        model : Envelope or None
            Of the model that serves.
        """
        for partition, lag in lags.items():
            LAG.labels(str(partition)).set(lag)
        now = {*map(str, lags)}
        for gone in self._partitions - now:
            LAG.remove(gone)
        self._partitions = now
        WAITING.set(waiting)
        MODEL_VERSION.set(model.version if model else 0)
        if model:
            with suppress(ValueError):  # of a publisher who writes times otherwise
                MODEL_CREATED.set(datetime.fromisoformat(model.created).timestamp())
