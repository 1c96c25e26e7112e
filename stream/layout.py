"""How a record is laid out for a model: its features by position or name, each of its type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.decoding import RecordError
from stream.quoting import shown
from stream.records import CATEGORY_BYTES, Cell, ModelInput, Numbers, Record, Schema, Type, normal

LOOKED_AT = 1_000
"""Names of the stream among which the nearest to an unknown one is looked for."""

Rows = Sequence[Sequence[Cell]] | npt.NDArray[np.float64]
"""Features of records as a model takes them; an array of numbers will do."""

Matrix = Any
"""What a model takes: an array of float64, or a data frame where some features are categories."""


class Layout:
    """The names, the types and the label's texts by which a model takes records.

    A model carries its own, so what it predicts does not depend on the schema of the day.

    Parameters
    ----------
    width : int or None
        Number of features; ``None``: any.
    names : sequence of str or None
        Their names. Without names, features come as a list.
    types : sequence of str or None
        The type of each; ``None``: all are numbers.
    positive, negative : str or None
        The texts of the labels 1 and 0; without both, labels come as numbers.

    Attributes
    ----------
    numeric : bool
        Whether all features are numbers.
    categories : list of int
        Positions of the features that are categories.

    Examples
    --------
    >>> layout = Layout(2, ["age", "plan"], ["number", "category"], "yes", "no")
    >>> layout.read(Record(17, {"plan": "pro", "age": True}, "yes"))
    ModelInput(id=17, features=[1.0, 'pro'], label=1)
    """

    def __init__(
        self,
        width: int | None = None,
        names: Sequence[str] | None = None,
        types: Sequence[Type] | None = None,
        positive: str | None = None,
        negative: str | None = None,
    ) -> None:
        self.width = width
        self._columns = names
        self.names = None if names is None else [normal(name) for name in names]
        self.types = None if types is None or {*types} == {"number"} else [*types]
        self.numeric = self.types is None
        self.categories = [i for i, kind in enumerate(self.types or ()) if kind == "category"]
        self._labels: dict[str, int] = {}
        if positive is not None and negative is not None:
            self._labels = {normal(negative): 0, normal(positive): 1}

    def __eq__(self, other: object) -> bool:
        """Tell whether rows of one layout are rows of the other."""
        return isinstance(other, Layout) and (
            (self.width, self.names, self.types) == (other.width, other.names, other.types)
        )

    __hash__ = None  # type: ignore[assignment] # nobody needs one

    def read(self, record: Record) -> ModelInput:
        """Return the record as a model takes it.

        Raises
        ------
        RecordError
            When it does not fit; the message names the feature, its value and its type.
        """
        if type(record) is Numbers and self.numeric and self.width in (None, len(record.features)):
            return record
        return ModelInput(record.id, self._row(record.features), self.label(record.label))

    def label(self, label: int | bool | str | None) -> int | None:
        """Return 0, 1 or ``None`` for a label as a producer writes it.

        Raises
        ------
        RecordError
            When it is a text that does not name a label.
        """
        if not isinstance(label, str):
            return None if label is None else int(label)
        found = self._labels.get(normal(label))
        if found is None:
            texts = "; a text needs positive and negative in the schema"
            if self._labels:
                texts = f", {' or '.join(map(shown, self._labels))}"
            raise RecordError(f"label: expected 0 or 1, true or false{texts}, got {shown(label)}")
        return found

    def matrix(self, rows: Rows) -> Matrix:
        """Return rows as what a model takes.

        Returns
        -------
        ndarray or DataFrame of shape (rows, features)
            NaN where a feature is missing. In a data frame, numbers and times are float64, and
            categories are strings, in columns of objects; columns have the model's own names.
        """
        if not self.categories:
            return np.array(rows, dtype=np.float64)
        types = self.types or []
        columns = zip(*rows, strict=True) if len(rows) else ((),) * len(types)
        return self.frame(
            np.array(_texts(column), object) if kind == "category" else np.array(column, np.float64)
            for kind, column in zip(types, columns, strict=True)
        )

    def frame(self, columns: Iterable[npt.NDArray[Any]]) -> Matrix:
        """Return a data frame of columns: categories as objects, the others as float64."""
        import pandas as pd  # it takes half a second, which streams of numbers need not wait for

        assert self._columns is not None  # types need names
        series = (pd.Series(column, dtype=column.dtype) for column in columns)
        return pd.DataFrame(dict(zip(self._columns, series, strict=True)))

    def place(self, index: int) -> str:
        """Say which feature is at a position: ``features[2] 'plan'``."""
        return f"features[{index}]" + (f" {shown(self.names[index])}" if self.names else "")

    def _row(self, features: Sequence[Any] | Mapping[str, Any]) -> list[Cell]:
        values = self._in_order(features) if isinstance(features, Mapping) else features
        if self.width not in (None, len(values)):
            what = "numbers" if self.numeric else "features"
            raise RecordError(f"features: expected {self.width} {what}, got {len(values)}")
        if self.numeric and {*map(type, values)} <= _PLAIN:
            return [*values]
        types = self.types or ("number",) * len(values)
        try:
            return [
                None if value is None else _READ[kind](value)
                for kind, value in zip(types, values, strict=True)
            ]
        except (ValueError, OverflowError):
            raise self._explained(types, values) from None

    def _in_order(self, features: Mapping[str, Any]) -> list[Any]:
        if self.names is None:
            raise RecordError("features: an object needs a schema with the names of the features")
        by_name = {normal(name): value for name, value in features.items()}
        if len(by_name) < len(features):
            raise RecordError("features: a name is given twice, in two forms of Unicode")
        if self._twice is not None:
            raise RecordError(f"features: the schema names {shown(self._twice)} twice; send a list")
        values = [by_name.pop(name, None) for name in self.names]
        for name in by_name:
            pairs = _pairs(name)
            near = max(self._pairs, key=lambda known: _alike(pairs, self._pairs[known]))
            raise RecordError(
                f"features: the stream has no {shown(name)}; nearest is {shown(near)}"
            )
        return values

    @cached_property
    def _twice(self) -> str | None:
        """The first name that two features have; an object cannot give both."""
        counts = Counter(self.names)
        return next((name for name, count in counts.items() if count > 1), None)

    @cached_property
    def _pairs(self) -> dict[str, set[str]]:
        return {name: _pairs(name) for name in (self.names or [])[:LOOKED_AT]}

    def _explained(self, types: Sequence[str], values: Sequence[Any]) -> RecordError:
        for index, (kind, value) in enumerate(zip(types, values, strict=True)):
            try:
                value is None or _READ[kind](value)
            except (ValueError, OverflowError):
                found = shown(value) if isinstance(value, str) else _json(value)
                return RecordError(f"{self.place(index)}: expected {_ALLOWED[kind]}, got {found}")
        raise AssertionError("each value can be read")


def of(schema: Schema | None) -> Layout:
    """Return the layout that a schema describes; without one, lists of numbers of any width."""
    if schema is None:
        return Layout()
    names = schema.feature_names
    return Layout(len(names), names, schema.types, schema.positive, schema.negative)


def _number(value: object) -> float:
    if isinstance(value, str):
        raise ValueError
    return float(value)  # type: ignore[arg-type] # a number, true or false


def _category(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    # Four bytes a character at most: only a long one is worth encoding to be measured.
    if len(value) > CATEGORY_BYTES // 4 and len(value.encode()) > CATEGORY_BYTES:
        raise ValueError
    return normal(value)


def _time(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError
    found = datetime.fromisoformat(value)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


_READ: dict[str, Callable[[object], Cell]] = {
    "number": _number,
    "category": _category,
    "time": _time,
}
_PLAIN = {float, type(None)}
_ALLOWED = {
    "number": "a number",
    "category": f"a text of at most {CATEGORY_BYTES} bytes",
    "time": "a time in ISO 8601, such as 2026-12-31 or 2026-12-31T10:00:00Z",
}


def _pairs(name: str) -> set[str]:
    """Return the pairs of letters that follow each other in the first 40, with both ends."""
    text = f" {name[:40].casefold()} "
    return {*map("".join, pairwise(text))}


def _alike(pairs: set[str], others: set[str]) -> float:
    """Return how alike two names are, 0 to 1: the Sørensen-Dice coefficient of their pairs."""
    return 2 * len(pairs & others) / (len(pairs) + len(others))


def _texts(column: Sequence[Cell]) -> list[Cell]:
    return [math.nan if value is None else value for value in column]


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.15g}"
