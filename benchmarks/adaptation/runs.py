"""A run of one learner on one stream, and its result: a JSON file, written when it is done."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from benchmarks.adaptation import metrics, streams
from benchmarks.adaptation.metrics import Floats

_RIGHT = {"1": 1.0, "0": 0.0, ".": float("nan")}


@dataclass(frozen=True)
class Run:
    """What is to be run.

    Attributes
    ----------
    learner : str
        ``kafka``, or a name in `benchmarks.adaptation.offline.LEARNERS`.
    delay : int
        Records after which a label comes; 0: it comes with its record.
    records : int or None
        How much of the stream; ``None``: all.
    rate : float
        Records a second through Kafka.
    settings : dict of str to str
        Of the services, where they are not the defaults.
    """

    learner: str
    stream: str
    seed: int
    delay: int = 0
    records: int | None = None
    rate: float = 0.0
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        stretch = f"-first{self.records}" if self.records else ""
        speed = f"-{self.rate:g}s" if self.rate else ""
        return f"{self.stream}-{self.seed}-late{self.delay}{stretch}-{self.learner}{speed}"

    def make_stream(self) -> streams.Stream:
        """Return its stream."""
        return streams.make(self.stream, self.seed, self.records)


@dataclass(frozen=True)
class Result:
    """What came of a run, as it stands in its file."""

    run: Run
    figures: dict[str, Any]

    @cached_property
    def right(self) -> Floats:
        """1 for a right prediction, 0 for a wrong one, NaN for one that does not count."""
        return np.array([_RIGHT[each] for each in self.figures["right"]])

    @property
    def starts(self) -> list[int]:
        """First record of each concept."""
        return [start for start, _ in self.figures["concepts"]]


def figures(
    stream: streams.Stream,
    predictions: Mapping[int, int],
    probabilities: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """Return the figures that follow from predictions alone.

    Parameters
    ----------
    predictions, probabilities : mapping of int to number
        By the number of the record; only those that count.
    """
    places = sorted(predictions)
    right = {i: predictions[i] == stream.labels[i] for i in places}
    found: dict[str, Any] = {
        "accuracy": sum(right.values()) / len(right),
        "cold_start": places[0],
        "not_counted": len(stream.rows) - len(places),
        "concepts": stream.concepts,
        "right": "".join(
            str(int(right[i])) if i in right else "." for i in range(len(stream.rows))
        ),
    }
    if probabilities:
        given = np.array([probabilities[i] for i in places])
        labels = np.array([stream.labels[i] for i in places])
        away = metrics.settled(len(stream.rows), stream.drifts)[places]
        found["brier"] = metrics.brier(given, labels)
        found["ece"] = metrics.calibration_error(given, labels)
        if away.any():
            found["ece_settled"] = metrics.calibration_error(given[away], labels[away])
    return found


class Results:
    """The results of a folder, one JSON file each.

    A run whose file is there, with the same settings, is done. To measure anew, delete the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, run: Run) -> Result | None:
        """Return the result of a run if it is done."""
        path = self._path(run)
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return Result(run, found["figures"]) if Run(**found["run"]) == run else None

    def put(self, run: Run, figures: dict[str, Any]) -> None:
        """Write a result, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made_with = {
            "python": platform.python_version(),
            "sklearn": sklearn.__version__,
            "numpy": np.__version__,
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        }
        content = {"run": asdict(run), "made_with": made_with, "figures": figures}
        path = self._path(run)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(path)

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run}.json"
