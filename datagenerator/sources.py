"""The records that can be sent: synthetic streams with drift, a data set, a file.

A source gives the same record for the same id in every run, so a run that resumes at an id
neither repeats nor skips anything.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from datagenerator.file import open_file
from datagenerator.lags import Lagged
from datagenerator.rows import BreastCancer, Rows, Source, Timed, mix
from datagenerator.settings import Settings
from datagenerator.table import is_there
from stream.records import ModelInput, Schema
from stream.settings import SettingsError

READ_SECONDS = 86_400.0
"""Timeout of a call that reads a source: a large file takes minutes to be read, or to reach a
record. Without a timeout, the health file would grow old meanwhile."""


def open_source(settings: Settings, say: Callable[[str], object]) -> Source:
    """Return the source that the settings name, with the labels of ``LABEL_LAGS`` as features.

    Parameters
    ----------
    say : callable
        Is given the lines that tell what was understood of a file.

    Raises
    ------
    SettingsError
        When ``STREAM`` is neither a known name nor a file, or a setting does not fit the file.
    SourceError
        When the file cannot be sent.
    """
    source = _open(settings, say)
    return Lagged(source, settings) if settings.lags else source


def _open(settings: Settings, say: Callable[[str], object]) -> Source:
    stream, seed = settings.stream, settings.seed
    if settings.label_time is not None and stream in (*SYNTHETIC, "breast_cancer"):
        raise SettingsError(f"LABEL_TIME={settings.label_time}: {stream} has no such column")
    if stream in SYNTHETIC:
        names, concept = SYNTHETIC[stream]
        return Synthetic(Schema(names, "label", "1"), concept, seed, settings.drift_every)
    if stream == "breast_cancer":
        return Rows(BreastCancer(), seed, settings.repeat)
    if not is_there(stream):
        known = ", ".join([*SYNTHETIC, "breast_cancer"])
        raise SettingsError(f"STREAM={stream}: there is no such file; allowed are {known}, a file")
    in_order = settings.time is not None or bool(settings.lags)
    return Rows(open_file(settings, say), seed, settings.repeat, in_order)


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
    longest_delay = 0.0

    def __init__(self, schema: Schema, concept: Concept, seed: int, drift_every: int) -> None:
        self.schema = schema
        self._concept = concept
        self._seed = seed
        self.drift_every = drift_every

    def records(self, first_id: int) -> Iterator[Timed]:
        """Yield the records from `first_id` on, which have no times."""
        id, length = first_id, self.drift_every
        while True:
            phase, start = divmod(id, length) if length else (0, id)
            pairs = self._concept(phase, mix(self._seed, phase), length)
            for features, label in islice(pairs, start, length or None):
                yield Timed(ModelInput(id, list(features.values()), int(label)))
                id += 1

    def as_recorded(self, schema: Schema) -> None:
        """Do nothing: the names are what they are."""


STAYS = 0.85
"""Share of the records of `persistent` that have the label of the record before."""

HINT = 0.9
"""Half the distance between the means of both labels, where the features deviate by 1."""

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


def _persistent(phase: int, seed: int, length: int) -> Any:
    chance = random.Random(seed)
    weights = [chance.gauss() for _ in range(5)]
    size, label = math.hypot(*weights), chance.random() < 0.5
    while True:
        label ^= chance.random() >= STAYS
        middle = HINT / size if label else -HINT / size
        features = {i: chance.gauss(middle * weight) for i, weight in enumerate(weights)}
        yield features, label


SYNTHETIC: dict[str, tuple[list[str], Concept]] = {
    "sea": (["att1", "att2", "att3"], _sea),
    "agrawal": (
        ["salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan"],
        _agrawal,
    ),
    "hyperplane": ([f"x{i}" for i in range(10)], _hyperplane),
    "random_rbf": ([f"x{i}" for i in range(10)], _random_rbf),
    "persistent": ([f"x{i}" for i in range(5)], _persistent),
}
"""Feature names and concept of each synthetic stream."""
