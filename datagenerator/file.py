"""A file as a source of rows: the columns that were understood, as features, label, id and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

from datagenerator.columns import Understood, understand
from datagenerator.dialect import SourceError
from datagenerator.overview import described, numbered
from datagenerator.readings import READINGS
from datagenerator.rows import Row
from datagenerator.settings import Settings
from datagenerator.table import Table, literal
from stream.quoting import shown
from stream.records import Schema, normal
from stream.settings import SettingsError

LOGGED_COLUMNS = 40
"""Columns of the table in the log; ``python -m datagenerator.look`` shows all."""

_LEFT_OUT = "left out: "
_BY_SETTING = ("LABEL", "ID", "TIME", "LABEL_TIME", "DROP")
_SENT_AS = {"number": ("number", "time"), "category": ("category",), "time": ("time",)}
"""The kinds of columns whose values can be sent as a type; times are sent as seconds, too."""


class File:
    """The rows of a table in the order of the file.

    Attributes
    ----------
    schema : Schema
        With what was understood of each column, so that a restart does the same.
    size : int
        Number of rows.
    longest_delay : float
        Seconds from the time of a row to that of its label, at most.
    """

    def __init__(self, table: Table, found: Understood) -> None:
        self._table = table
        self._found = found
        self._id = "NULL"
        if found.id:
            text = found.id.text
            whole = f"TRY_CAST({text} AS BIGINT)"
            ((integers,),) = table.select([f"bool_and(CAST({whole} AS VARCHAR) = {text})"])
            self._id = whole if integers else text
        self._delay, self.longest_delay = "NULL", 0.0
        if found.time and found.label_time:
            self._delay = f"{found.label_time.value} - {found.time.value}"
            ((self.longest_delay,),) = table.select([f"coalesce(max({self._delay}), 0)"])
        self.size = table.size
        self.schema = self._described()

    def _described(self) -> Schema:
        columns = {
            column.name: f"{_LEFT_OUT}{column.left_out}" if column.left_out else column.reading
            for column in self._found.columns
        }
        found, features = self._found, self._found.features
        types = [column.type for column in features]
        return Schema(
            [column.name for column in features],
            found.label.name if found.label else "",
            found.positive,
            columns,
            types if {*types} != {"number"} else None,
            found.negative or None,
        )

    def as_recorded(self, schema: Schema) -> None:
        """Send the features that the schema on the topic has, read and sent as it says.

        Nothing changes where the file lacks one of them, or a setting leaves it out, or its values
        are not of the type.
        """
        types = dict(zip(schema.feature_names, schema.types or repeat("number"), strict=False))
        recorded = {normal(name): use for name, use in schema.file_columns.items()}
        readings = {}
        for column in self._found.columns:
            if column.left_out not in _BY_SETTING:
                use = recorded.get(column.name, column.reading)
                is_category = types.get(column.name) == "category"
                readings[column.name] = (
                    "category" if is_category else use if use in READINGS else column.reading
                )
        kinds = {name: READINGS[reading].kind for name, reading in readings.items()}
        if any(kinds.get(name) not in _SENT_AS[type] for name, type in types.items()):
            return
        for column in self._found.columns:
            if column.name in types:
                column.left_out = ""
            elif not column.left_out:
                column.left_out = "not in the schema on the topic"
            column.reading = readings.get(column.name, column.reading)
            column.in_seconds = column.kind == "time" and types.get(column.name) == "number"
        self.schema = self._described()

    def rows(self, first: int) -> Iterator[Row]:
        """Yield the rows from number `first` on."""
        label, time = self._found.label, self._found.time
        features = [column.sent for column in self._found.features]
        one, comes = literal(self._found.positive), "true"
        if self._found.label_time:
            comes = f"{self._found.label_time.text} IS NOT NULL"
        wanted = [
            *features,
            f"CASE WHEN {comes} THEN CAST({label.value} = {one} AS INTEGER) END"
            if label
            else "NULL",
            self._id,
            time.value if time else "0::DOUBLE",
            self._delay,
        ]
        for *cells, known, name, seconds, delay in self._table.select(wanted, f"OFFSET {first}"):
            yield Row(cells, known, name, seconds, delay)


def open_file(settings: Settings, say: Callable[[str], object]) -> File:
    """Return the file that ``STREAM`` names, as a source of rows.

    Parameters
    ----------
    say : callable
        Is given the lines that tell what was understood.

    Raises
    ------
    SettingsError, SourceError
        When the file cannot be sent; says all that is wrong, and what to do.
    """
    table = Table(settings.stream, settings.separator, settings.encoding, settings.missing)
    found = understand(table, settings)
    for line in described(table, found, LOGGED_COLUMNS):
        say(line)
    if settings.label is None:
        names = ", ".join(map(shown, table.names[:10]))
        found.wrong_settings.insert(
            0, f"LABEL: name the column of {table.place} that holds the label; it has {names}"
        )
    if wrong := found.wrong_settings + found.problems:
        raise (SettingsError if found.wrong_settings else SourceError)(numbered(wrong))
    return File(table, found)
