"""The streams that adaptation is measured on: drifts at known records, the same for each seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from datagenerator.settings import Settings
from datagenerator.sources import open_source
from stream.records import Cell, Schema, Type

CONCEPT = 15_000
"""Records from one drift to the next, where a stream has drifts."""

STEADY = 60_000
"""Records of a stream that drifts all the time."""

CITIES = 30

Pairs = Iterable[tuple[dict[Any, Any], Any]]


@dataclass(frozen=True)
class Stream:
    """A stream of labelled records.

    Attributes
    ----------
    rows : list of list
        Features of each record.
    concepts : list of tuple of int and str
        First record of each concept, and which it is: one that comes back has its former name.
    """

    schema: Schema
    rows: list[list[Cell]]
    labels: list[int]
    concepts: list[tuple[int, str]]

    @property
    def drifts(self) -> list[int]:
        """First record of each concept but the first."""
        return [start for start, _ in self.concepts[1:]]

    def first(self, records: int | None) -> Stream:
        """Return the stream up to so many records; ``None``: all."""
        if records is None:
            return self
        concepts = [concept for concept in self.concepts if concept[0] < records]
        rows, labels = self.rows[:records], self.labels[:records]
        return replace(self, rows=rows, labels=labels, concepts=concepts)


def make(name: str, seed: int, records: int | None = None) -> Stream:
    """Return a stream, or how it begins."""
    return STREAMS[name](seed).first(records)


def _numeric(pairs: Pairs, concepts: list[tuple[int, str]]) -> Stream:
    rows: list[list[Cell]] = []
    labels = []
    features: dict[Any, Any] = {}
    for features, label in pairs:
        rows.append([float(value) for value in features.values()])
        labels.append(int(label))
    return Stream(Schema([str(name) for name in features]), rows, labels, concepts)


def _phases(
    make_concept: Callable[[int, int], Pairs], variants: Iterable[int], seed: int
) -> Stream:
    """Return a stream of one concept after another; each is drawn by a seed of its own."""
    concepts = [(number * CONCEPT, str(variant)) for number, variant in enumerate(variants)]

    def pairs() -> Iterator[tuple[dict[Any, Any], Any]]:
        for number, (_, variant) in enumerate(concepts):
            yield from islice(make_concept(int(variant), seed + number), CONCEPT)

    return _numeric(pairs(), concepts)


def _synth() -> Any:
    # Imported here because it takes two seconds, and what only reads results does not need it.
    from river.datasets import synth

    return synth


def sea(seed: int) -> Stream:
    """Return `sea` with 10 % noise: its boundary moves three times."""
    return _phases(lambda v, s: _synth().SEA(variant=v, noise=0.1, seed=s), (0, 1, 2, 3), seed)


def _agrawal(functions: Iterable[int], seed: int) -> Stream:
    def concept(function: int, seed: int) -> Pairs:
        found: Pairs = _synth().Agrawal(
            classification_function=function, seed=seed, perturbation=0.05
        )
        return found

    return _phases(concept, functions, seed)


def agrawal(seed: int) -> Stream:
    """Return `agrawal` with four of its functions."""
    return _agrawal((0, 3, 4, 6), seed)


def recurring(seed: int) -> Stream:
    """Return `agrawal` with two functions that come back twice."""
    return _agrawal((0, 3) * 3, seed)


def hyperplane(seed: int) -> Stream:
    """Return a hyperplane that turns all the time, with 5 % noise."""
    found = _synth().Hyperplane(
        seed=seed,
        n_features=10,
        n_drift_features=10,
        mag_change=0.001,
        noise_percentage=0.05,
        sigma=0.1,
    )
    return _numeric(islice(found, STEADY), [(0, "")])


def random_rbf(seed: int) -> Stream:
    """Return clusters of two classes that move all the time."""
    found = _synth().RandomRBFDrift(
        seed_model=seed,
        seed_sample=seed + 1,
        n_classes=2,
        n_features=10,
        n_centroids=50,
        change_speed=0.0001,
        n_drift_centroids=50,
    )
    return _numeric(islice(found, STEADY), [(0, "")])


def customers(seed: int) -> Stream:
    """Return a table with categories and gaps, in which other customers leave after each drift.

    A fifth of the ages is missing. Each concept has weights of its own for every number, plan, city
    and device. The probability that a customer leaves is steep in their sum: who knew it would be
    right on 91 to 95 % of a concept.
    """
    draw = np.random.default_rng(seed)
    plans, devices = np.array(["free", "basic", "pro", "team"]), np.array(["web", "ios", "android"])
    cities = np.array([f"city {number}" for number in range(CITIES)])
    common = 1 / np.arange(1, CITIES + 1)
    rows: list[list[Cell]] = []
    labels: list[int] = []
    for _ in range(4):
        numbers = draw.normal(size=(CONCEPT, 3))
        codes = [
            draw.integers(len(plans), size=CONCEPT),
            draw.choice(CITIES, CONCEPT, p=common / common.sum()),
            draw.integers(len(devices), size=CONCEPT),
        ]
        risk = numbers @ draw.normal(size=3)
        for code, texts in zip(codes, (plans, cities, devices), strict=True):
            risk += draw.normal(scale=1.5, size=len(texts))[code]
        leaves = draw.random(CONCEPT) < 1 / (1 + np.exp(-3 * (risk - np.median(risk))))
        ages = (45 + 15 * numbers[:, 0]).round(1).tolist()
        missing = draw.random(CONCEPT) < 0.2
        columns = [
            [None if gone else age for age, gone in zip(ages, missing, strict=True)],
            (1_500 + 1_200 * numbers[:, 1]).round(2).tolist(),
            numbers[:, 2].round(3).tolist(),
            *(
                texts[code].tolist()
                for code, texts in zip(codes, (plans, cities, devices), strict=True)
            ),
        ]
        rows += map(list, zip(*columns, strict=True))
        labels += leaves.astype(int).tolist()
    types: list[Type] = ["number", "number", "number", "category", "category", "category"]
    schema = Schema(["age", "balance", "calls", "plan", "city", "device"], types=types)
    return Stream(schema, rows, labels, [(n * CONCEPT, str(n)) for n in range(4)])


def persistent(seed: int) -> Stream:
    """Return the datagenerator's stream whose labels stay for a while, with earlier labels given.

    Repeating the last label is right on 85 %.
    """
    given = {"stream": "persistent", "seed": seed, "drift_every": CONCEPT, "label_lags": "1,2,48"}
    source = open_source(Settings.model_validate(given), print)
    records = [timed.record for timed in islice(source.records(0), STEADY)]
    return Stream(
        source.schema,
        [[None if cell is None else float(cell) for cell in each.features] for each in records],
        [int(record.label or 0) for record in records],
        [(start, str(start)) for start in range(0, STEADY, CONCEPT)],
    )


STREAMS: dict[str, Callable[[int], Stream]] = {
    "sea": sea,
    "agrawal": agrawal,
    "hyperplane": hyperplane,
    "random_rbf": random_rbf,
    "recurring": recurring,
    "customers": customers,
    "persistent": persistent,
}
"""Each stream by its name, made by a seed."""
