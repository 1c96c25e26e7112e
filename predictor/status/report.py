"""What is said of the stream: one JSON object, and the screen that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from predictor.status.checks import Check
from predictor.status.topics import DESCRIBED, Standing
from quality.quality import Quality
from quality.report import models, swaps, window
from stream.follower import Said
from stream.quoting import one_line
from stream.times import instant

RIGHT = {
    "partition", "committed", "lag", "n", "rejected", "waiting", "model", "version", "predictions",
    "counted", "accuracy",
}  # fmt: skip
"""Columns of numbers."""

TALLY = ("n", "correct", "seen", "unlabelled", "rejected", "waiting", "late", "revised", "assumed")


def counts(standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the counts of the group since the beginning, and its lag."""
    tallies = [standing.tally for standing in standings if standing.tally]
    found = {name: sum(getattr(tally, name) for tally in tallies) for name in TALLY}
    return {
        **found,
        "accuracy": found["correct"] / found["n"] if found["n"] else None,
        "lag": sum(standing.lag for standing in standings),
    }


def status(
    quality: Quality,
    standings: Sequence[Standing],
    now_ms: float,
    limited: bool = False,
    refusals: Iterable[Said] = (),
    rejections: Iterable[Said] = (),
    checks: Iterable[Check] = (),
) -> dict[str, Any]:
    """Return what is said of the stream as one JSON object.

    Parameters
    ----------
    quality : Quality
        Has one window of time.
    refusals, rejections : iterable of Said
        The last statuses of models that are not served, and the last rejected records.
    """
    (window_of_time,) = quality.times.values()
    found, total = window(window_of_time, now_ms, limited), counts(standings)
    values = found | {"lag": total["lag"]}
    return {
        "time": instant(now_ms),
        "window": found,
        "counts": total,
        "partitions": [_partition(standing) for standing in standings],
        "models": models(quality, window_of_time.total(now_ms)),
        "swaps": swaps(quality),
        "refusals": [
            {"time": instant(said.time_ms)} | {n: getattr(said.record, n) for n in _REFUSAL}
            for said in refusals
        ],
        "rejections": [
            {"time": instant(said.time_ms)} | {n: getattr(said.record, n) for n in _REJECTION}
            for said in rejections
        ],
        "checks": [
            {"check": str(each), "value": values[each.metric], "holds": each.holds(values)}
            for each in checks
        ],
    }


def _partition(standing: Standing) -> dict[str, Any]:
    names = ("n", "correct", "rejected", "waiting", "model")
    found = {name: getattr(standing.tally, name, None) for name in names}
    accuracy = found["correct"] / found["n"] if found["n"] else None
    place = {name: getattr(standing, name) for name in ("partition", "committed", "end", "lag")}
    return place | found | {"accuracy": accuracy}


def screen(status: dict[str, Any]) -> str:
    """Return the status as lines of text."""
    lines = [f"at {_clock(status['time'])} UTC", _serving(status), *_swaps(status), ""]
    lines += [*_window(status["window"]), ""]
    total = status["counts"]
    lines.append(
        f"since the beginning: n {total['n']:,}, accuracy {_number(total['accuracy'])},"
        f" {total['rejected']:,} rejected, {total['waiting']:,} wait for a label,"
        f" lag {total['lag']:,}"
    )
    lines += ["", *_table(status["partitions"], *_PARTITION)]
    if served := [row for row in status["models"] if row["predictions"] or row["counted"]]:
        for row in served:
            row["95 %"] = _interval(row["interval"])
        hidden = f" (the newest {DESCRIBED} of {len(served)})" if len(served) > DESCRIBED else ""
        lines += ["", f"models in the window{hidden}", *_table(served[-DESCRIBED:], *_MODEL)]
    for name, rows in (("refused", status["refusals"]), ("rejected", status["rejections"])):
        lines += ["", f"last {name}:"] if rows else []
        lines += [f"  {_clock(row['time'])} {_said(row)}" for row in rows]
    return "\n".join(one_line(line, 300) for line in lines)


_REFUSAL = ("version", "status", "replica", "reason")
_REJECTION = ("source", "reason")
_PARTITION = ("partition", "committed", "lag", "n", "accuracy", "rejected", "waiting", "model")
_MODEL = (
    "version", "algorithm", "reason", "status", "since", "until", "predictions", "counted",
    "accuracy", "95 %",
)  # fmt: skip


def _serving(status: dict[str, Any]) -> str:
    row = next((row for row in status["models"] if row["status"] == "serving"), None)
    if row is None:
        return "no model serves"
    what = f" ({row['algorithm']}, reason {row['reason']})" if row["algorithm"] else ""
    return f"model {row['version']}{what} serves since {_clock(row['since'])}"


def _swaps(status: dict[str, Any]) -> list[str]:
    since = status["window"]["since"]
    found = [swap for swap in status["swaps"] if swap["time"] >= since]
    if not status["swaps"]:
        return []
    last = status["swaps"][-1]
    return [
        f"{len(found)} swaps in the window; the last one: {last['before']} to {last['version']}"
        f" at {_clock(last['time'])}"
    ]


def _window(found: dict[str, Any]) -> list[str]:
    limited = f", the newest records only, {found['predictions']:,}" if found["limited"] else ""
    matrix = found["confusion"]
    lines = [
        f"since {_clock(found['since'])}{limited}:",
        f"  predictions {found['predictions']:,}, {found['predictions_per_second']:,.1f}/s,"
        f" {found['n']:,} counted; rejected {found['rejected']:,},"
        f" {found['rejected_per_second']:,.1f}/s",
        f"  accuracy {_number(found['accuracy'])}"
        + (f" (95 %: {_interval(found['accuracy_interval'])})" if found["n"] else "")
        + f", baselines: majority {_number(found['majority'])},"
        f" no change {_number(found['no_change'])}",
        _row(found, "precision", "recall", "f1", "mcc", "roc_auc", "log_loss", "brier", "ece"),
        f"  label 1: {_number(found['positive'])} real,"
        f" {_number(found['predicted_positive'])} predicted;"
        f" tp {matrix['tp']:,}, fp {matrix['fp']:,}, tn {matrix['tn']:,}, fn {matrix['fn']:,}",
    ]
    if found["label_delay_p50"] is not None or (found["coverage"] or 1.0) < 1.0:
        lines.append(
            f"  coverage {_number(found['coverage'])}, label delay"
            f" {_number(found['label_delay_p50'], 1)} s (95 %:"
            f" {_number(found['label_delay_p95'], 1)} s)"
        )
    lines += [f"  {count:,} rejected: {reason}" for reason, count in found["reasons"].items()]
    return lines


def _row(found: dict[str, Any], *names: str) -> str:
    words = {"f1": "F1", "mcc": "MCC", "roc_auc": "ROC AUC", "ece": "ECE", "brier": "Brier"}
    cells = (f"{words.get(n, n.replace('_', ' '))} {_number(found[n])}" for n in names)
    return "  " + ", ".join(cells)


def _said(row: dict[str, Any]) -> str:
    if "version" in row:
        return f"model {row['version']} {row['status']} by {row['replica']}: {row['reason']}"
    number, offset = row["source"]
    return f"partition {number} offset {offset}: {row['reason']}"


def _table(rows: Sequence[dict[str, Any]], *columns: str) -> list[str]:
    cells = [list(columns), *([_cell(row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:{'>' if name in RIGHT else '<'}{width}}"
            for name, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return f"{value:,}"
    return _clock(value) if value.endswith("Z") and "T" in value else one_line(value, 40)


def _clock(time: str) -> str:
    return time[:19].replace("T", " ")


def _interval(found: Sequence[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
