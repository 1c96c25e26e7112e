"""What there is in each column of a table, counted in all of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from datagenerator.readings import GROUPED, PLAIN, READINGS, in_iso
from datagenerator.table import Table
from stream.quoting import shown
from stream.records import FEATURE_LIMIT, Type

_EXACT_INTEGERS = 2**53
_COLUMNS_AT_ONCE = 200


@dataclass
class Column:
    """A column, and what was found in it.

    Attributes
    ----------
    name : str
        As the file has it.
    text : str
        The column in SQL.
    read : dict of str to int
        Reading to the number of values that it can read. Plain numbers count only for the readings
        with a decimal point.
    values : int
        Cells that are not missing.
    distinct : int
        Values that differ, within a few percent.
    example : str
        One of the values.
    constant : bool
        Whether all values are the same.
    integers, large, commas : int
        Values that are whole numbers, those that are too large for a float to tell them from the
        next whole number, and those that have a comma.
    reading : str
        How its cells are read, a key of `READINGS`.
    left_out : str
        Why it is no feature; empty if it is one.
    in_seconds : bool
        Whether its times are sent as numbers, as the version before did.
    """

    name: str
    text: str
    read: dict[str, int]
    values: int
    distinct: int
    example: str
    constant: bool
    integers: int
    large: int
    commas: int
    reading: str = "category"
    left_out: str = ""
    in_seconds: bool = False

    @property
    def kind(self) -> Type:
        """``number``, ``category`` or ``time``."""
        return READINGS[self.reading].kind

    @property
    def type(self) -> Type:
        """The type of the feature that is sent."""
        return "number" if self.in_seconds else self.kind

    @property
    def value(self) -> str:
        """The column's values in SQL; the numbers and times as seconds are floats."""
        return READINGS[self.reading].of(self.text)

    @property
    def sent(self) -> str:
        """The column's values in SQL as they are sent: times are texts."""
        return in_iso(self.value) if self.type == "time" else self.value


def measured(table: Table) -> list[Column]:
    """Read the table once, and once more the columns that hold more than plain numbers."""
    numbers = [READINGS[PLAIN].of(f"v{at}") for at in range(len(table.names))]
    asked = [
        (
            f"count(v{at})",
            f"approx_count_distinct(v{at})",
            f"coalesce(any_value(v{at}), '')",
            f"coalesce(min(v{at}) = max(v{at}), true)",
            rf"count(CASE WHEN regexp_full_match(v{at}, '[+-]?\d+') THEN 1 END)",
            f"count(CASE WHEN abs(number{at}) > {_EXACT_INTEGERS} THEN 1 END)",
            f"count(CASE WHEN contains(v{at}, ',') THEN 1 END)",
            f"count(CASE WHEN abs(number{at}) <= {FEATURE_LIMIT:g} THEN 1 END)",
        )
        for at in range(len(table.names))
    ]
    given = [f"{number} AS number{at}" for at, number in enumerate(numbers)]
    columns = []
    for at, (name, measures) in enumerate(
        zip(table.names, _asked(table, asked, given), strict=True)
    ):
        *found, plain = measures
        columns.append(
            Column(
                name, f"v{at}", dict.fromkeys(READINGS, 0) | {PLAIN: plain, GROUPED: plain}, *found
            )
        )
    mixed = [column for column in columns if column.read[PLAIN] < column.values]
    others = [name for name in READINGS if name not in (PLAIN, "category")]
    asked_more = [
        tuple(
            f"count(CASE WHEN {READINGS[PLAIN].of(column.text)} IS NULL"
            f" THEN {READINGS[name].of(column.text)} END)"
            for name in others
        )
        for column in mixed
    ]
    for column, counts in zip(mixed, _asked(table, asked_more), strict=True):
        for name, count in zip(others, counts, strict=True):
            column.read[name] += count
    return columns


def _asked(
    table: Table, asked: Sequence[Sequence[str]], given: Sequence[str] = ()
) -> Iterator[Sequence[Any]]:
    """Yield the answers about each column; few columns at a time bound what DuckDB holds."""
    for first in range(0, len(asked), _COLUMNS_AT_ONCE):
        part = slice(first, first + _COLUMNS_AT_ONCE)
        row = next(
            table.select([each for column in asked[part] for each in column], given=given[part])
        )
        width = len(asked[0])
        yield from (row[at : at + width] for at in range(0, len(row), width))


def place(table: Table, column: Column) -> str:
    """Return where a column is, as messages say it."""
    return f"{table.place}, column {shown(column.name)}"
