"""What is said of a stream, as JSON: its windows, its models, its swaps."""

from __future__ import annotations

from typing import Any

from quality.quality import Quality
from quality.scores import wilson
from quality.windows import Bucket, TimeWindow
from stream.times import instant


def window(found: TimeWindow, now_ms: float, limited: bool = False) -> dict[str, Any]:
    """Return what happened in a window, of which not all was read if it is `limited`.

    The rates are from its first record on: a stream may be younger than the window.
    """
    values, start_ms = found.total(now_ms).as_json(), found.start(now_ms)
    first_ms = min(max(start_ms, found.first_ms), now_ms)
    seconds = max(1.0, (now_ms - first_ms) / 1_000)
    return {
        "seconds": found.seconds,
        "since": instant(first_ms if limited else start_ms),
        "limited": limited,
        "predictions_per_second": values["predictions"] / seconds,
        "rejected_per_second": values["rejected"] / seconds,
        **values,
    }


def models(quality: Quality, bucket: Bucket) -> list[dict[str, Any]]:
    """Return the versions that were looked at, oldest first, with their part of the window."""
    serving, rows = quality.serving, []
    for version, served in sorted(quality.served.items()):
        counted, correct = bucket.counted[version], bucket.correct[version]
        status = "barred" if served.barred else "replaced"
        rows.append(
            {
                "version": version,
                "algorithm": served.algorithm or None,
                "reason": served.reason or None,
                "status": "serving" if version == serving else status,
                "since": instant(served.first_ms) if served.first_ms else None,
                "until": instant(served.last_ms) if version != serving else None,
                "predictions": bucket.predictions[version],
                "counted": counted,
                "accuracy": correct / counted if counted else None,
                "interval": wilson(correct, counted),
                "barred": served.barred or None,
            }
        )
    return rows


def swaps(quality: Quality) -> list[dict[str, Any]]:
    """Return the versions that took over from another one, oldest first, and when."""
    return [
        {"version": swap.version, "before": swap.before, "time": instant(swap.time_ms)}
        for swap in quality.swaps
    ]
