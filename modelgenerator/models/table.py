"""The catalogue as text, for terminals of any width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from modelgenerator.models.catalogue import Row
from stream.models import Envelope
from stream.quoting import one_line

COLUMNS = (
    "version", "recipe", "algorithm", "size", "trained on", "recipe accuracy", "created", "key",
    "status", "since", "records", "counted", "live accuracy", "note",
)  # fmt: skip
RIGHT = {"version", "size", "trained on", "recipe accuracy", "records", "counted", "live accuracy"}
LEFT_OUT_FIRST = ("created", "key", "algorithm", "trained on", "since", "recipe", "size")
"""Columns that are left out on a narrow terminal, in this order."""

CELL = 300
"""Characters of a cell."""

SILENT_SECONDS = 60
UNITS = {"days": 86_400, "h": 3_600, "min": 60}


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """Return the catalogue as lines of text.

    Parameters
    ----------
    width : int, optional
        Characters that a line may have; by default, any number. Where there is no room, columns
        that matter less are left out, then the ends of the lines.
    """
    if not rows:
        return "no models"
    columns = list(COLUMNS)
    found = [_cells(row) for row in rows]
    cells = {name: [name, *(one_line(row[name], CELL) for row in found)] for name in columns}
    widths = {name: max(map(len, cells[name])) for name in columns}
    for name in LEFT_OUT_FIRST:
        if width is not None and sum(widths[c] + 2 for c in columns if c != "note") > width:
            columns.remove(name)
    lines = []
    for number in range(len(rows) + 1):
        line = "  ".join(
            f"{cells[name][number]:{'>' if name in RIGHT else '<'}{widths[name]}}"
            for name in columns
        ).rstrip()
        lines.append(line if width is None or len(line) <= width else f"{line[: width - 1]}…")
    return "\n".join(lines)


def _cells(row: Row) -> dict[str, str]:
    by_partition = sorted(row.since.items(), key=lambda item: (len(item[0]), item[0]))
    since = [f"{partition}@{offset}" for partition, offset in by_partition]
    cells = {
        **dict.fromkeys(COLUMNS, ""),
        "version": str(row.version),
        "algorithm": "not on the topic",
        "key": row.key,
        "status": row.status + (", pinned" if row.pinned else ""),
        "since": " ".join(since[:2]) + (f" +{len(since) - 2}" if len(since) > 2 else ""),
        "live accuracy": _accuracy(row.accuracy),
    }
    notes = [row.why] if row.why else []
    if row.records:
        cells |= {"records": f"{row.records:,}", "counted": f"{row.counted:,}"}
    if envelope := row.envelope:
        cells |= {
            "recipe": envelope.recipe,
            "algorithm": envelope.algorithm,
            "size": size(row.size),
            "trained on": f"{envelope.trained_on:,}",
            "recipe accuracy": _accuracy(envelope.recipe_accuracy),
            "created": envelope.created[:19].replace("T", " "),
        }
        if envelope.restores:
            notes.insert(0, f"restores {envelope.restores}")
        if types := described(envelope):
            notes.append(types)
    return {**cells, "note": "; ".join(notes)}


def described(envelope: Envelope | None) -> str:
    """Say how many features are of each type; empty where all are numbers."""
    counts = Counter(envelope.types or () if envelope else ())
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def size(size: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if size < 1_000 or unit == "MB":
            break
        size /= 1_000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def silence(heard: int, now: float) -> str:
    """Say since when no predictor has been heard; empty if one was, within a minute.

    Parameters
    ----------
    heard : int
        When one was last heard, in milliseconds since 1970; 0 for never.
    now : float
        Seconds since 1970.
    """
    seconds = now - heard / 1_000
    if seconds < SILENT_SECONDS:
        return ""
    unit = next((unit for unit, length in UNITS.items() if seconds >= 2 * length), "min")
    since = f"for {seconds / UNITS[unit]:.0f} {unit}" if heard else "so far"
    return (
        f"no predictor heard {since}, neither a prediction nor a status: either none runs, or no"
        " record comes"
    )
