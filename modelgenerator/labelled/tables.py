"""Tables of labelled records, as CSV or Parquet: their columns, how they are written and read."""

from __future__ import annotations

import csv
import glob
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb

from modelgenerator.envelope import highest_offsets
from modelgenerator.publish.newest import Found
from stream.records import Type
from stream.service import Fatal
from stream.times import instant

ENDINGS = (".csv", ".parquet")
PLACE = {"partition": "INTEGER", "offset": "BIGINT", "timestamp": "TIMESTAMP", "id": "VARCHAR"}
LABEL = "label"

_LONGEST_LINE = 2**24
"""Bytes of a line of the largest record."""

_CELLS, _FEWEST_ROWS = 2**21, 2_048
"""Size of a row group of Parquet, which is held in memory, and fewest rows that it may have."""


class TableError(Fatal):
    """A table that cannot be read or written; the message says why."""


def columns(names: Sequence[str] | None, width: int) -> list[str]:
    """Return what the columns are called: where a record stood, its features, its label.

    Parameters
    ----------
    names : sequence of str or None
        The features' names in the schema; without one they are x0, x1, and so on.
    width : int
        Number of features.

    Returns
    -------
    list of str
        No two are the same, also without regard to capitals, as Parquet readers ask for; the second
        ``a`` is ``a_2``.

    Examples
    --------
    >>> columns(["age", "Age", "label"], 3)[-4:]
    ['age', 'Age_2', 'label_2', 'label']
    """
    found: list[str] = []
    taken = Counter(name.casefold() for name in (*PLACE, LABEL))
    for name in names or [f"x{i}" for i in range(width)]:
        unique, number = name, 1
        while taken[unique.casefold()]:
            number += 1
            unique = f"{name}_{number}"
        taken[unique.casefold()] += 1
        found.append(unique)
    return [*PLACE, *found, LABEL]


def write_csv(path: Path, names: Sequence[str], records: Iterable[Found]) -> int:
    """Write records as they come, with a line of names before them; return how many.

    A missing feature is an empty cell; an empty text has quotes.
    """
    count = 0
    with path.open("x", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        for found in records:
            record = found.record
            place = (found.partition, found.offset, instant(found.timestamp), record.id)
            cells = (*place, *record.features, record.label)
            file.write(",".join(map(_cell, cells)) + "\n")
            count += 1
    return count


def _cell(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value, _NAME) if not value or _SPECIAL.search(value) else value
    return "" if value is None else str(value)


def as_parquet(
    source: Path, path: Path, names: Sequence[str], types: Sequence[Type] | None = None
) -> None:
    """Turn a CSV file of `write_csv` into Parquet, in bounded memory.

    Parameters
    ----------
    types : sequence of str or None
        Of the features, as in a schema: a category is a text, all else a number.

    Raises
    ------
    TableError
        When that is too little for so many columns.
    """
    types = types or ["number"] * (len(names) - len(PLACE) - 1)
    features = ["VARCHAR" if kind == "category" else "DOUBLE" for kind in types]
    kinds = [*PLACE.values(), *features, "TINYINT"]
    read = ", ".join(f"c{i}: '{kind}'" for i, kind in enumerate(kinds))
    named = ", ".join(f"c{i} AS {_quoted(name, _NAME)}" for i, name in enumerate(names))
    rows = max(_FEWEST_ROWS, _CELLS // len(names))
    query = (
        f"COPY (SELECT {named} FROM read_csv(?, columns={{{read}}}, header=true,"  # noqa: S608 - the names are quoted
        f" auto_detect=false, allow_quoted_nulls=false, quote='\"', escape='\"',"
        f" max_line_size={_LONGEST_LINE}))"
        f" TO {_quoted(str(path), _TEXT)} (FORMAT parquet, ROW_GROUP_SIZE {rows})"
    )
    try:
        with _connected() as database:
            database.execute(query, [glob.escape(str(source))])
    except duckdb.OutOfMemoryException:
        raise TableError(f"{len(names)} columns are too many for Parquet; write .csv") from None


def trained_to(path: Path) -> dict[str, int]:
    """Return the highest offset of each partition in a table, or in what was saved of one.

    Parameters
    ----------
    path : Path
        Parquet if its name ends so, else CSV, with commas, semicolons or tabs, as it is or packed
        with gzip. Only the columns ``partition`` and ``offset`` are read.

    Raises
    ------
    TableError
        When it is no table, has no such columns or no records, or a record lacks them.
    OSError
    """
    try:
        found = highest_offsets(map(_place, _places(path)))
    except (ValueError, TypeError):
        raise TableError(f"{path}: a record without its partition and offset, {_WRITTEN}") from None
    if not found:
        raise TableError(f"{path}: no records with partition and offset, {_WRITTEN}")
    return found


def _places(path: Path) -> Iterator[Sequence[Any]]:
    """Yield partition and offset of each record, or the highest of each partition."""
    if path.suffix == ".parquet":
        path.open("rb").close()  # for an error of the operating system's own
        query = 'SELECT "partition", max("offset") FROM read_parquet(?) GROUP BY 1'
        try:
            with _connected() as database:
                yield from database.execute(query, [glob.escape(str(path))]).fetchall()
        except duckdb.Error as error:
            raise TableError(f"{path}: {str(error).splitlines()[0]}") from None
        return
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        for delimiter in ",;\t":
            names = next(csv.reader([first], delimiter=delimiter), [])
            if {"partition", "offset"} <= {*names}:
                place = itemgetter(names.index("partition"), names.index("offset"))
                yield from (place([*row, "", ""]) for row in csv.reader(file, delimiter=delimiter))


def _place(cells: Sequence[Any]) -> tuple[int, int]:
    partition, offset = map(int, cells)
    if min(partition, offset) < 0:
        raise ValueError(cells)
    return partition, offset


_WRITTEN = "as python -m modelgenerator.labelled writes them"
_NAME, _TEXT = '"', "'"
_SPECIAL = re.compile(r'[",\r\n]|^\s|\s$')


def _quoted(text: str, quote: str) -> str:
    return f"{quote}{text.replace(quote, 2 * quote)}{quote}"


def _connected() -> Any:
    return duckdb.connect(config={"threads": 1, "memory_limit": "800MB"})
