"""What the columns of a table hold, found in all of its rows, and which of them are features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from datagenerator.choice import choose_readings
from datagenerator.labels import labels, positive_text
from datagenerator.measured import Column, measured, place
from datagenerator.readings import KINDS
from datagenerator.settings import Settings, in_setting, names
from datagenerator.table import Table
from stream.quoting import shown
from stream.records import CATEGORY_BYTES, ID_LIMIT_BYTES, normal

FEWEST_ROWS = 20
"""In fewer rows, all values may differ, or a column may equal the label, by chance."""

_COMPARED = 500_000
"""Values of a column that are looked at to see whether two are the same."""


class Understood(NamedTuple):
    """What is known of a table.

    Attributes
    ----------
    columns : list of Column
        All of them, in the order of the file.
    label, id, time, label_time : Column or None
        Those that ``LABEL``, ``ID``, ``TIME`` and ``LABEL_TIME`` name.
    positive, negative : str
        Which text of the label means 1 and which means 0; empty if that is not clear.
    problems : list of str
        Why the table cannot be sent, and what to do; none if it can.
    wrong_settings : list of str
        The same, of settings that do not fit it.
    """

    columns: list[Column]
    label: Column | None
    id: Column | None
    time: Column | None
    label_time: Column | None
    positive: str
    negative: str
    problems: list[str]
    wrong_settings: list[str]

    @property
    def features(self) -> list[Column]:
        """The columns that are sent as features."""
        return [column for column in self.columns if not column.left_out]


def understand(table: Table, settings: Settings) -> Understood:
    """Find out what the columns hold and which are features; collect all that is wrong.

    Raises
    ------
    SourceError
        When the table cannot be read at all.
    """
    problems, wrong = list(table.problems), list[str]()
    columns = [each for each in measured(table) if each.values or each.name not in table.unnamed]
    by_name = {column.name: column for column in reversed(columns)}
    for number, column in enumerate(columns, 1):
        if by_name[column.name] is not column:
            problems.append(
                f"{table.place}, column {number}: {shown(column.name)} is there twice; each column"
                " needs a name of its own"
            )

    def named(setting: str, name: str | None) -> Column | None:
        column = by_name.get(normal(name or ""))
        if name is not None and not column:
            hint = "; SEPARATOR says what stands between them" if len(columns) == 1 else ""
            wrong.append(
                f"{setting}={name}: {table.place} has no such column; it has {_listed(table.names)}"
                f"{hint}"
            )
        return column

    label = named("LABEL", settings.label)
    id, time = named("ID", settings.id), named("TIME", settings.time)
    label_time = named("LABEL_TIME", settings.label_time)
    for why, taken in [
        *(("DROP", named("DROP", name)) for name in names(settings.drop, by_name)),
        *(("LABEL_TIME", label_time), ("TIME", time), ("ID", id), ("LABEL", label)),
    ]:
        if taken:
            taken.left_out = why
    typed = [(named("TYPES", name), kind) for name, kind in _kinds(settings.types, wrong)]
    given = {column.name: kind for column, kind in typed if column}
    problems += choose_readings(table, columns, settings, given)
    positive = negative = ""
    if label:
        label.reading = "category"
        texts, problem = labels(table, label)
        problems += problem
        if not problem:
            positive, problem = positive_text(table, label, settings.positive, texts)
            wrong += problem
            negative = next(text for text in texts if text != positive) if positive else ""
    _leave_out(table, columns, label, given)
    if id:
        problems += _wrong_ids(table, id)
    if time:
        problems += _wrong_times(table, time, label_time)
    found = Understood(columns, label, id, time, label_time, positive, negative, problems, wrong)
    if not found.features:
        problems.append(f"{table.place}: no column is left; TYPES=column:number keeps one")
    problems += _too_long(table, [each for each in found.features if each.kind == "category"])
    return found


def _kinds(types: str | None, wrong: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns that ``TYPES`` names, each with its kind."""
    for pair in names(types):
        name, _, kind = pair.rpartition(":")
        if kind in KINDS:
            yield name, kind
        else:
            wrong.append(f"TYPES={pair}: allowed is a column and {', '.join(KINDS)}: zip:category")


def _listed(names: Iterable[str]) -> str:
    """Name columns: the first ten of them."""
    found = [shown(name) for name in names]
    return ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")


def _leave_out(
    table: Table, columns: Sequence[Column], label: Column | None, given: dict[str, str]
) -> None:
    """Leave out what no model can learn from, and what would tell it the label."""
    for column in columns:
        if column.left_out or column.name in given:
            continue
        integers = column.values and column.integers == column.values
        if column.values == 0:
            column.left_out = "no value"
        elif column.constant and column.values == table.size:
            column.left_out = "constant"
        elif table.size < FEWEST_ROWS:
            continue
        elif (integers or column.kind == "category") and _all_differ(table, column):
            column.left_out = "identifier"
        elif label and column.distinct <= 3 and _repeats(table, column, label):
            column.left_out = "repeats the label"


def _all_differ(table: Table, column: Column) -> bool:
    """Tell whether no two rows have the same value; of very many values, those of some hashes."""
    if column.distinct < 0.8 * column.values:
        return False
    text, parts = column.text, 1 + column.values // _COMPARED
    looked_at = f"WHERE {text} IS NOT NULL AND hash({text}) % {parts} = 0"
    distinct, values = next(table.select([f"count(DISTINCT hash({text}))", "count(*)"], looked_at))
    return bool(distinct == values)


def _repeats(table: Table, column: Column, label: Column) -> bool:
    both = [column.text, label.text]
    present = " AND ".join(f"{text} IS NOT NULL" for text in both)
    pairs = set(table.select([f"DISTINCT {both[0]}", both[1]], f"WHERE {present} LIMIT 5"))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 2


def _too_long(table: Table, categories: Sequence[Column]) -> Iterator[str]:
    if not categories:
        return
    longest = [f"coalesce(max(strlen({column.value})), 0)" for column in categories]
    for column, size in zip(categories, next(table.select(longest)), strict=True):
        if size > CATEGORY_BYTES:
            this = f"strlen({column.value}) = {size}"
            ((text,),) = table.select([column.text], f"WHERE {this} LIMIT 1")
            yield (
                f"{table.find(this)}, column {shown(column.name)}: {shown(text)} has {size} bytes,"
                f" and a category has at most {CATEGORY_BYTES}; leave the column out with"
                f" DROP={in_setting(column.name)}"
            )


def _wrong_ids(table: Table, id: Column) -> list[str]:
    problems = []
    if without := table.size - id.values:
        problems.append(f"{place(table, id)}: {without} rows have no id")
    ((longest,),) = table.select([f"coalesce(max(strlen({id.text})), 0)"])
    if longest > ID_LIMIT_BYTES:
        problems.append(f"{place(table, id)}: an id has at most {ID_LIMIT_BYTES} bytes")
    return problems


def _wrong_times(table: Table, time: Column, label_time: Column | None) -> Iterator[str]:
    earlier = f"{time.value} < lag({time.value}) OVER () AS earlier"
    ((rows,),) = table.select(["count(CASE WHEN earlier THEN 1 END)"], given=[earlier])
    if rows:
        yield f"{place(table, time)}: {rows} rows are earlier than the row before; sort the file"
    if without := table.size - time.values:
        yield f"{place(table, time)}: {without} rows have no time"
    if label_time and label_time.kind != time.kind:
        yield (
            f"{place(table, label_time)}: of kind {label_time.kind}, and TIME is of kind"
            f" {time.kind}; both have to be the same"
        )
