"""Which reading fits each column of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from datagenerator.measured import Column, place
from datagenerator.readings import BOOLEAN, COMMA, DAY_FIRST, GROUPED, MONTH_FIRST, PLAIN, READINGS
from datagenerator.settings import Settings, in_setting
from datagenerator.table import Table
from stream.quoting import shown
from stream.records import FEATURE_LIMIT


def choose_readings(
    table: Table, columns: Sequence[Column], settings: Settings, given: Mapping[str, str]
) -> list[str]:
    """Set how each column is read; return what is wrong.

    Parameters
    ----------
    given : mapping
        Column to the kind that ``TYPES`` says it has.
    """
    if settings.decimal == "," or any(c.commas or c.read[COMMA] for c in columns):
        wanted = [f"count({READINGS[COMMA].of(column.text)})" for column in columns]
        for column, count in zip(columns, next(table.select(wanted)), strict=True):
            column.read[COMMA] = count
    comma = any(column.read[COMMA] > column.read[GROUPED] for column in columns)
    problems: list[str] = []
    for column in columns:
        if column.values and (not column.left_out or column.left_out in ("TIME", "LABEL_TIME")):
            # A column of whole numbers, or of 1.000, is read as the others of its file are.
            fits = column.read[COMMA] == column.values
            mark = settings.decimal or ("," if comma and fits else None)
            if column.commas and fits and not mark and _commas_are_open(table):
                problems.append(
                    f"{place(table, column)}: {shown(column.example)} may be read in two ways;"
                    " say which mark is the decimal one: DECIMAL=',' or DECIMAL='.'"
                )
            problems += _choose(table, column, mark, given.get(column.name))
    return problems


def _commas_are_open(table: Table) -> bool:
    """Tell whether ``1,000`` may be 1 in this file; where commas separate cells, it is 1000."""
    return table.dialect is not None and table.dialect.separator[0] != ","


def _choose(table: Table, column: Column, mark: str | None, given: str | None) -> Iterator[str]:
    """Set the reading of a column, that of most cells; yield what is wrong with it."""
    if given == "category":
        return
    allowed = [
        name
        for name, reading in READINGS.items()
        if reading.kind in ({given} if given else {"number", "time"})
        and name not in {".": (COMMA,), ",": (PLAIN, GROUPED)}.get(mark or "", ())
    ]
    best = max(allowed, key=lambda name: column.read[name])
    count, reading = column.read[best], READINGS[best]
    if not given and not column.left_out and column.large and column.integers == column.values:
        return  # a float has no such digits: they are a name
    most = count == column.values if best == BOOLEAN else 2 * count > column.values
    if not most and not given and not column.left_out:
        return
    column.reading = best
    if count < column.values:
        bounded = f"abs({reading.of(column.text)}) <= {FEATURE_LIMIT:g}"
        wrong = f"{column.text} IS NOT NULL AND NOT coalesce({bounded}, false)"
        cell = next(table.select([column.text], f"WHERE {wrong} LIMIT 1"))[0]
        is_number = reading.kind == "number" and not column.left_out
        what = f"a number within ±{FEATURE_LIMIT:g}" if is_number else "a time"
        name = in_setting(column.name)
        yield (
            f"{table.find(wrong)}, column {shown(column.name)}: {shown(cell)} is not {what}, as"
            f" {count} of {column.values} cells are; if it stands for a missing value, add it to"
            " NULLS; if the line is a total or a note, delete it"
            + (f"; else TYPES={name}:category or DROP={name}" if not column.left_out else "")
        )
    elif reading.kind == "time" and column.read[DAY_FIRST] == column.read[MONTH_FIRST] == count:
        yield (
            f"{place(table, column)}: {shown(column.example)} may begin with the day or with the"
            f" month; write it as 2026-12-31, or DROP={in_setting(column.name)}"
        )
