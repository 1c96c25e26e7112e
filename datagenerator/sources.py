"""The records that can be sent: synthetic streams with drift, a data set, a file.

A source gives the same record for the same id in every run, so a run that resumes at an id
neither repeats nor skips anything.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import StringIO
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from datagenerator.settings import Settings
from stream.records import FEATURE_LIMIT, Record, Schema
from stream.service import Fatal
from stream.settings import SettingsError

Features = list[float | None]


class SourceError(Fatal):
    """A file that cannot be sent; the message names file, line and column."""


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
    """

    schema: Schema
    size: int | None
    drift_every: int

    def records(self, first_id: int) -> Iterator[Record]:
        """Yield the records from `first_id` on; each id is one more than the last."""


def open_source(settings: Settings) -> Source:
    """Return the source that the settings name.

    Raises
    ------
    SettingsError
        When ``STREAM`` is neither a known name nor a file, or ``LABEL`` or ``POSITIVE`` do not
        fit the file.
    SourceError
        When the file holds anything but numbers and a label of two values.
    """
    stream, seed = settings.stream, settings.seed
    if stream in SYNTHETIC:
        names, concept = SYNTHETIC[stream]
        return Synthetic(Schema(names, "label", "1"), concept, seed, settings.drift_every)
    if stream == "breast_cancer":
        return Rows(_breast_cancer(), seed, settings.repeat)
    if not Path(stream).is_file():
        known = ", ".join([*SYNTHETIC, "breast_cancer"])
        raise SettingsError(f"STREAM={stream}: there is no such file; allowed are {known}, a file")
    if settings.label is None:
        raise SettingsError(f"LABEL: name the column of {stream} that holds the label")
    return Rows(read_csv(Path(stream), settings.label, settings.positive), seed, settings.repeat)


class Synthetic:
    """An endless stream in phases with one concept each; the change between them is the drift.

    A phase depends on the seed and its own number alone. A run that starts within a phase
    generates the phase's earlier records too, without sending them (3 to 80 µs each).

    Parameters
    ----------
    concept : callable
        Given the number of the phase, its seed and its length (0: endless), returns pairs of
        features and label.
    drift_every : int
        Length of a phase; 0 for a single endless one.
    """

    size: int | None = None

    def __init__(self, schema: Schema, concept: Concept, seed: int, drift_every: int) -> None:
        self.schema = schema
        self._concept = concept
        self._seed = seed
        self.drift_every = drift_every

    def records(self, first_id: int) -> Iterator[Record]:
        """Yield the records from `first_id` on."""
        id, length = first_id, self.drift_every
        while True:
            phase, start = divmod(id, length) if length else (0, id)
            pairs = self._concept(phase, _mix(self._seed, phase), length)
            for features, label in islice(pairs, start, length or None):
                yield Record(id, list(features.values()), int(label))
                id += 1


class Table(NamedTuple):
    """Rows in memory, and what their columns are called; a label may be ``None``."""

    schema: Schema
    features: list[Features]
    labels: list[int | None]


class Rows:
    """The rows of a table in random order, once or repeatedly, in another order at each pass.

    Parameters
    ----------
    seed : int
        Decides the order, together with the number of the pass.
    repeat : bool
        Whether another pass follows.
    """

    drift_every = 0

    def __init__(self, table: Table, seed: int, repeat: bool) -> None:
        self.schema, self._features, self._labels = table
        self.size: int | None = len(self._labels)
        self._seed = seed
        self._repeat = repeat

    def records(self, first_id: int) -> Iterator[Record]:
        """Yield the records from `first_id` on; none if the only pass is over."""
        size = len(self._labels)
        first_pass, start = divmod(first_id, size)
        for number in count(first_pass) if self._repeat else range(first_pass, 1):
            order = list(range(size))
            random.Random(_mix(self._seed, number)).shuffle(order)
            for id, row in enumerate(order[start:], number * size + start):
                yield Record(id, self._features[row], self._labels[row])
            start = 0


def read_csv(path: Path, label: str, positive: str | None) -> Table:
    """Read a CSV file into memory: a header, then numbers and a label of two values.

    An empty cell is a missing feature, or an unlabelled record in the label's column. Spaces
    around names and cells are ignored; blank lines are skipped.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark.
    label : str
        Name of the label's column.
    positive : str or None
        The value that means 1; ``None`` if the two values are 0 and 1.

    Raises
    ------
    SettingsError
        When there is no column `label`, or `positive` does not occur in it.
    SourceError
        For anything else; names file, line and column.
    """
    lines = _rows(path)
    _, names = next(lines, (0, []))
    _check_header(path, names, label)
    at = names.index(label)
    columns = names[:at] + names[at + 1 :]
    features: list[Features] = []
    cells: list[str] = []
    values: list[str] = []
    for line, row in lines:
        if len(row) != len(names):
            raise SourceError(f"{path}, line {line}: {len(row)} cells, expected {len(names)}")
        cell = row.pop(at)
        if cell and cell not in values:
            values.append(cell)
            if len(values) > 2:
                raise SourceError(
                    f"{path}, line {line}, column {label}: a third value {cell!r} besides"
                    f" {values[0]!r} and {values[1]!r}; a label has two"
                )
        cells.append(cell)
        place = f"{path}, line {line}"
        features.append([_number(place, *named) for named in zip(columns, row, strict=True)])
    if len(values) < 2:
        found = f"only the value {values[0]!r}" if values else "no value at all"
        raise SourceError(f"{path}, column {label}: {found} in {len(cells)} rows; a label has two")
    one = _positive(path, label, positive, values)
    return Table(
        Schema(columns, label, one), features, [int(c == one) if c else None for c in cells]
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its first line."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(f"{path}, line {line}: not UTF-8") from None
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, [cell.strip() for cell in row]
            line = reader.line_num + 1
    except csv.Error as error:
        raise SourceError(f"{path}, line {line}: not CSV: {error}") from None


def _check_header(path: Path, names: list[str], label: str) -> None:
    if not names:
        raise SourceError(f"{path}, line 1: the file is empty; expected a line of column names")
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            wrong = f"{name!r} is there twice" if name else "has no name"
            raise SourceError(
                f"{path}, line 1, column {number}: {wrong}; each column needs a name of its own"
            )
    if label not in names:
        raise SettingsError(
            f"LABEL={label}: {path}, line 1 has no such column; it has {', '.join(names)}"
        )
    if len(names) == 1:
        raise SourceError(f"{path}, line 1: no column besides the label {label}; expected features")


def _positive(path: Path, label: str, positive: str | None, values: list[str]) -> str:
    one, other = sorted(values, reverse=True)
    if positive is None and (one, other) != ("1", "0"):
        raise SettingsError(
            f"POSITIVE: say which value of column {label} of {path} means 1: {other!r} or {one!r}"
        )
    if positive is not None and positive not in values:
        raise SettingsError(
            f"POSITIVE={positive}: does not occur in column {label} of {path};"
            f" allowed are {other!r} and {one!r}"
        )
    return positive or one


def _number(place: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    # Python reads 1_000 as a number, but a CSV file does not mean it; NaN is not within the limit.
    with suppress(ValueError):
        if "_" not in cell and -FEATURE_LIMIT <= (number := float(cell)) <= FEATURE_LIMIT:
            return number
    raise SourceError(
        f"{place}, column {column}: {cell[:40]!r} is not allowed;"
        f" expected a number within ±{FEATURE_LIMIT:g} or an empty cell"
    )


def _breast_cancer() -> Table:
    # Imported here because it takes a second, and no other source needs it.
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name) for name in data.feature_names]
    return Table(Schema(names, "diagnosis", "benign"), data.data.tolist(), data.target.tolist())


def _mix(seed: int, number: int) -> int:
    """Return a seed that differs for each pair."""
    return random.Random(f"{seed} {number}").getrandbits(63)


Concept = Callable[[int, int, int], Iterable[tuple[dict[Any, float], int]]]


def _synth() -> Any:
    # Imported here because it takes two seconds, and a file does not need it.
    from river.datasets import synth

    return synth


def _sea(phase: int, seed: int, length: int) -> Any:
    return _synth().SEA(variant=phase % 4, noise=0.1, seed=seed)


def _agrawal(phase: int, seed: int, length: int) -> Any:
    return _synth().Agrawal(classification_function=phase % 10, perturbation=0.05, seed=seed)


def _hyperplane(phase: int, seed: int, length: int) -> Any:
    # Half of the weights grow by 5 during a phase: the hyperplane turns steadily, then jumps.
    turn = min(1.0, 5 / length) if length else 0.0
    return _synth().Hyperplane(
        seed=seed, n_features=10, n_drift_features=5, mag_change=turn, sigma=0, noise_percentage=0.1
    )


def _random_rbf(phase: int, seed: int, length: int) -> Any:
    # Half of the centroids move by half the edge of the unit cube during a phase.
    return _synth().RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed + 1,
        n_features=10,
        n_centroids=20,
        n_drift_centroids=10,
        change_speed=0.5 / length if length else 0.0,
    )


SYNTHETIC: dict[str, tuple[list[str], Concept]] = {
    "sea": (["att1", "att2", "att3"], _sea),
    "agrawal": (
        ["salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan"],
        _agrawal,
    ),
    "hyperplane": ([f"x{i}" for i in range(10)], _hyperplane),
    "random_rbf": ([f"x{i}" for i in range(10)], _random_rbf),
}
"""Feature names and concept of each synthetic stream."""
