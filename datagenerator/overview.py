"""What was understood of a table, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datagenerator.columns import Understood
from datagenerator.table import Table
from stream.quoting import shown

MANY_CATEGORIES = 254
"""Of a column with more, gradient boosting knows the commonest."""


def described(table: Table, found: Understood, limit: int | None = None) -> Iterator[str]:
    """Yield the lines of a table of what was understood, in the order of the file.

    Parameters
    ----------
    limit : int or None
        Columns that are shown; if there are more, those that are no features come first.
    """
    columns = found.columns
    if limit and len(columns) > limit:
        columns = sorted(columns, key=lambda column: not column.left_out)
    rows = [("column", "kind", "missing", "distinct", "example", "")]
    for column in columns[:limit]:
        missing = 100 * (1 - column.values / table.size) if table.size else 0
        about = "about " if column.distinct > 100 else ""
        use = column.left_out
        if column is found.label and found.positive:
            use += f", 1 is {shown(found.positive)}"
        elif use not in ("", "LABEL", "ID", "TIME", "LABEL_TIME"):
            use = f"left out: {use}"
        elif not use and column.kind == "category" and column.distinct > MANY_CATEGORIES:
            use = "many categories; models tell the commonest apart"
        example = shown(column.example) if column.values else ""
        distinct = f"{about}{min(column.distinct, column.values)}"
        kind = column.reading
        if not kind.startswith(column.kind):
            kind = f"{column.kind} {kind}"
        rows.append((shown(column.name), kind, f"{missing:.1f} %", distinct, example, use))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    yield f"{table.place}: {table.size} rows, {len(found.features)} features"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if limit and len(columns) > limit:
        yield f"and {len(columns) - limit} columns more"


def numbered(problems: Sequence[str]) -> str:
    """Return several problems as one line."""
    if len(problems) == 1:
        return problems[0]
    listed = "; ".join(f"({number}) {problem}" for number, problem in enumerate(problems, 1))
    return f"{len(problems)} problems: {listed}"
