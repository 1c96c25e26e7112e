"""The datagenerator's metrics for Prometheus; docs/operations.md says what each means."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

RECORDS_SENT = Counter(
    "datagenerator_records_sent", "Records that the brokers have acknowledged.", ["topic"]
)
RATE = Gauge(
    "datagenerator_target_records_per_second",
    "The setting RATE; 0 where records are sent as fast as it goes, or as TIME says.",
)
