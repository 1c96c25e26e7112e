"""How good a model was, and on which records; knows no Kafka and no HTML."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from quality.scores import Outcome, Scores, chance
from stream.layout import Layout
from stream.records import Cell, Prediction

MOST = 100_000
"""Newest counted predictions of a model that its figures are of."""

PARTS, LEAST = 20, 50
"""Parts that these are split into by time, at most, and predictions of each, at least."""

CATEGORIES, VALUES = 20, 10
"""Features whose slices are looked at, and their commonest values that are shown, at most."""

KNOWN = 10_000
"""Different values of a feature that are counted, at most."""

SIGNIFICANT = 0.05


class Answered(NamedTuple):
    """A prediction that was counted.

    Attributes
    ----------
    offset : int
        Of its record on the data topic.
    time_ms : int
        Timestamp of its record.
    """

    id: int | str
    offset: int
    time_ms: int
    outcome: Outcome


class Newest:
    """Collects the newest counted predictions of one model, in bounded memory.

    Parameters
    ----------
    version : int
    partitions : int
        Of each, as many are kept.
    most : int
        How many are kept together.

    Attributes
    ----------
    by_partition : dict of int to deque of Answered
    """

    def __init__(self, version: int, partitions: int = 1, most: int = MOST) -> None:
        share = most // max(1, partitions)
        self.by_partition: dict[int, deque[Answered]] = defaultdict(lambda: deque(maxlen=share))
        self._version = version
        self._labels: dict[int, int] = {}
        self._counts: dict[int, int] = {}

    def add(self, prediction: Prediction, time_ms: int) -> None:
        """Take a record of the prediction topic and its timestamp; of a partition, in its order."""
        partition, offset = prediction.source
        if prediction.n < self._counts.get(partition, 0):  # counting has started over
            self.by_partition.pop(partition, None)
        self._counts[partition] = prediction.n
        if not prediction.counts:
            return
        label = prediction.label or 0
        before, self._labels[partition] = self._labels.get(partition), label
        if prediction.model != self._version:
            return
        repeats = None if before is None else before == label
        outcome = Outcome(prediction.prediction, label, prediction.probability, repeats)
        time = time_ms if prediction.time is None else prediction.time
        self.by_partition[partition].append(Answered(prediction.id, offset, time, outcome))

    def all(self) -> list[Answered]:
        """Return what is kept."""
        return [each for some in self.by_partition.values() for each in some]


class Part(NamedTuple):
    """Consecutive predictions, by the time of their records."""

    first_ms: int
    last_ms: int
    n: int
    correct: int


def parts(answered: Iterable[Answered]) -> list[Part]:
    """Split predictions into parts of about as many, oldest first."""
    ordered = sorted(answered, key=lambda each: each.time_ms)
    count = max(1, min(PARTS, len(ordered) // LEAST))
    bounds = [number * len(ordered) // count for number in range(count + 1)]
    return [
        Part(
            ordered[start].time_ms,
            ordered[end - 1].time_ms,
            end - start,
            sum(each.outcome.right for each in ordered[start:end]),
        )
        for start, end in pairwise(bounds)
        if start < end
    ]


class Slice(NamedTuple):
    """The records that have a value of a category; ``None`` where it is missing.

    Attributes
    ----------
    p : float or None
        How likely the accuracy differs so much from that of all other records by chance, times the
        number of slices that are compared (Bonferroni); ``None`` where there are too few records.
    """

    feature: str
    value: Cell
    n: int
    correct: int
    p: float | None

    @property
    def differs(self) -> bool:
        """Whether it does so by more than chance."""
        return self.p is not None and self.p < SIGNIFICANT


def slices(rows: Iterable[tuple[Sequence[Cell], bool]], layout: Layout) -> tuple[list[Slice], int]:
    """Return the slices of the commonest values of each category, and of how many records.

    Parameters
    ----------
    rows : iterable of tuple
        Features of each record as the layout reads them, and whether its prediction was right.

    Returns
    -------
    slices : list of Slice
        Those that differ first, the others by falling size.
    total : int
    """
    counts: dict[int, dict[Cell, list[int]]] = {c: {} for c in layout.categories[:CATEGORIES]}
    total = right_of_all = 0
    for features, right in rows:
        total += 1
        right_of_all += right
        for column, known in counts.items():
            value = features[column]
            if value in known or len(known) < KNOWN:
                found = known.setdefault(value, [0, 0])
                found[0] += 1
                found[1] += right
    names = layout.names or []
    common = [
        (names[column], value, n, correct)
        for column, known in counts.items()
        for value, (n, correct) in sorted(known.items(), key=lambda item: -item[1][0])[:VALUES]
    ]
    compared = []
    for feature, value, n, correct in common:
        p = chance(correct, n, right_of_all - correct, total - n)
        corrected = None if p is None else min(1.0, p * len(common))
        compared.append(Slice(feature, value, n, correct, corrected))
    return sorted(compared, key=lambda each: (each.p if each.differs else 1.0, -each.n)), total


class Figures(NamedTuple):
    """What a report says of a model's quality.

    Attributes
    ----------
    about : list of str
        Which predictions they are of.
    of_slices : str
        Which records the slices are of, or why there are none.
    """

    about: list[str]
    scores: Scores
    parts: list[Part]
    slices: list[Slice]
    of_slices: str


def figures(
    about: list[str],
    answered: Sequence[Answered],
    rows: Iterable[tuple[Sequence[Cell], bool]],
    layout: Layout,
) -> Figures:
    """Return the figures of predictions.

    Parameters
    ----------
    rows : iterable of tuple
        As in `slices`, of those whose records can still be had.
    """
    scores = Scores()
    for each in answered:
        scores.add(each.outcome)
    if not layout.categories:
        return Figures(about, scores, parts(answered), [], "No feature is a category.")
    found, total = slices(rows, layout)
    if total:
        said = f"Of {total:,} of these {scores.n:,} records"
        said += ", those that the data topic still has." if total < scores.n else "."
        many = len(layout.categories) - CATEGORIES
        said += f" Of the first {CATEGORIES} categories; {many} more are not shown." * (many > 0)
    else:
        said = "The data topic no longer has these records, so their categories are not known."
    return Figures(about, scores, parts(answered), found, said)
