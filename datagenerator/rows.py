"""Rows that are sent once or again and again, in random order; the same id is the same row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple, Protocol

from stream.records import Cell, ModelInput, Schema

BLOCK_CELLS = 2**19
"""Numbers that are held in memory to be shuffled."""

TEXT_CELLS = 4
"""Numbers that a text counts for: most take as much memory as two, the longest as ten."""

Features = list[Cell]
"""As they are sent: a time is a text in ISO 8601."""


class Row(NamedTuple):
    """A row of a data set or a file.

    Attributes
    ----------
    label : int or None
        ``None`` where the row has none.
    id : int or str or None
        ``None`` where the rows have none of their own.
    time : float
        Seconds since 1970, where the rows have times.
    label_delay : float or None
        Seconds from then until its label comes, where the rows tell it.
    """

    features: Features
    label: int | None
    id: int | str | None = None
    time: float = 0.0
    label_delay: float | None = None


class Timed(NamedTuple):
    """A record, with the time and the delay of its label that its row has."""

    record: ModelInput
    time: float = 0.0
    label_delay: float | None = None


class Source(Protocol):
    """Where records come from.

    Attributes
    ----------
    schema : Schema
        What the features and the label are called.
    size : int or None
        Records before the source repeats or ends; ``None`` if it does neither.
    drift_every : int
        Records from one drift to the next; 0 if there is none.
    longest_delay : float
        Seconds from the time of a record to that of its label, at most; 0 where it tells none.
    """

    schema: Schema
    size: int | None
    drift_every: int
    longest_delay: float

    def records(self, first_id: int) -> Iterator[Timed]:
        """Yield the records from number `first_id` on, each with its time, 0 where it has none."""

    def as_recorded(self, schema: Schema) -> None:
        """Lay the records out as the schema on the topic says, where there is a choice."""


class DataSet(Protocol):
    """Rows that can be read again and again, from any row on."""

    schema: Schema
    size: int
    longest_delay: float

    def rows(self, first: int) -> Iterator[Row]:
        """Yield the rows from number `first` on, always in the same order."""

    def as_recorded(self, schema: Schema) -> None:
        """Lay the rows out as the schema on the topic says, where there is a choice."""


class Rows:
    """The rows of a data set, once or repeatedly, in random order, another one at each pass.

    They are shuffled in blocks, so that memory is flat; half a million cells are one block, where
    a text counts for four.

    Parameters
    ----------
    seed : int
        Decides the order, together with the numbers of the pass and of the block.
    repeat : bool
        Whether another pass follows.
    in_order : bool
        Whether the rows are not shuffled.
    """

    drift_every = 0

    def __init__(
        self,
        data: DataSet,
        seed: int,
        repeat: bool,
        in_order: bool = False,
        cells: int = BLOCK_CELLS,
    ) -> None:
        self.schema = data.schema
        self.size: int | None = data.size
        self.longest_delay = data.longest_delay
        self._data = data
        self._seed = seed
        self._repeat = repeat
        self._in_order = in_order
        self._cells = cells

    def as_recorded(self, schema: Schema) -> None:
        """Lay the records out as the schema on the topic says."""
        self._data.as_recorded(schema)
        self.schema = self._data.schema

    def records(self, first_id: int) -> Iterator[Timed]:
        """Yield the records from number `first_id` on; none if the only pass is over."""
        first_pass, start = divmod(first_id, self._data.size)
        for number in count(first_pass) if self._repeat else range(first_pass, 1):
            id = number * self._data.size + start
            for row in self._pass(number, start):
                record = ModelInput(id if row.id is None else row.id, row.features, row.label)
                yield Timed(record, row.time, row.label_delay)
                id += 1
            start = 0

    def _pass(self, number: int, start: int) -> Iterator[Row]:
        """Yield the rows of a pass from the one on that is sent as number `start`."""
        texts = sum(type != "number" for type in self.schema.types or ())
        cells = len(self.schema.feature_names) + (TEXT_CELLS - 1) * texts
        size = max(1, self._cells // cells)
        block, within = divmod(start, size)
        rows = self._data.rows(block * size)
        while held := list(islice(rows, size)):
            if not self._in_order:
                numbers = (number, block) if block else (number,)
                random.Random(mix(self._seed, *numbers)).shuffle(held)
            yield from held[within:] if within else held
            block, within = block + 1, 0
            held.clear()  # not two blocks at once


class BreastCancer:
    """The data set of scikit-learn, in memory."""

    longest_delay = 0.0

    def __init__(self) -> None:
        # Imported here because it takes a second, and no other source needs it.
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        names = [str(name) for name in data.feature_names]
        self.schema = Schema(names, "diagnosis", "benign", negative="malignant")
        self._rows = [
            Row(*row) for row in zip(data.data.tolist(), data.target.tolist(), strict=True)
        ]
        self.size = len(self._rows)

    def rows(self, first: int) -> Iterator[Row]:
        """Yield the rows from number `first` on."""
        yield from self._rows[first:]

    def as_recorded(self, schema: Schema) -> None:
        """Do nothing: the names are what they are."""


def mix(*numbers: int) -> int:
    """Return a seed that differs for each row of numbers."""
    return random.Random(" ".join(map(str, numbers))).getrandbits(63)
