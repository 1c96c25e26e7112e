"""The label of a table: its two texts, and which of them means 1."""

from __future__ import annotations

from datagenerator.measured import Column, place
from datagenerator.table import Table
from stream.quoting import shown
from stream.records import normal

MANY_LABELS = 1_000

_PLAIN = (("1", "0"), ("1.0", "0.0"), ("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))


def labels(table: Table, label: Column) -> tuple[list[str], list[str]]:
    """Return the texts of the label, and what is wrong with them."""
    where = place(table, label)
    if label.distinct > MANY_LABELS:
        values = f"about {label.distinct} values, as {shown(label.example)}"
        return [], [f"{where}: {values}; a label has two"]
    text = label.value
    counts = f"WHERE {text} IS NOT NULL GROUP BY {text} ORDER BY count(*) DESC, {text}"
    found = list(table.select([text, "count(*)"], counts))
    if len(found) == 2:
        return [text for text, _ in found], []
    said = ", ".join(f"{shown(text)} {count} times" for text, count in found[:6]) or "none"
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    values = f"{len(found)} value{'s' * (len(found) != 1)}"
    return [], [f"{where}: {values} in {table.size} rows: {said}{more}; a label has two"]


def positive_text(
    table: Table, label: Column, positive: str | None, texts: list[str]
) -> tuple[str, list[str]]:
    """Return the text of the label that means 1, empty if that is not clear, and what is wrong."""
    if positive is not None and normal(positive) in texts:
        return normal(positive), []
    one, other = sorted(texts, key=str.lower, reverse=True)
    if positive is not None:
        return "", [
            f"POSITIVE={positive}: does not occur in column {shown(label.name)} of {table.place};"
            f" allowed are {shown(other)} and {shown(one)}"
        ]
    if (one.lower(), other.lower()) in _PLAIN:
        return one, []
    return "", [
        f"POSITIVE: say which value of column {shown(label.name)} of {table.place} means 1:"
        f" {shown(other)} or {shown(one)}"
    ]
