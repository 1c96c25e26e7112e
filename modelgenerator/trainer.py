"""When to train, and which recipe's model to publish; knows no Kafka."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from modelgenerator.envelope import highest_offsets
from modelgenerator.trial import record_limit
from stream.service import Warnings

log = logging.getLogger("modelgenerator")

FIRST_MODEL = 200
"""Labelled records that the first model needs."""

LEAST_STEP = 100
"""Labelled records between two models, and between two comparisons of recipes, at least."""

SUSPENDED = 10
"""Times `retrain_every` labelled records that a recipe is suspended after a bad model."""

SCORED = 1_000
"""Latest scored records over which a recipe's accuracy is taken."""

LEAST_SCORED = 500
"""Records on which champion and challenger must have been scored before they are compared."""

MARGIN = 0.01
"""How much more accurate than the champion a challenger has to be."""

CELLS = 2**24
"""Features of all records of the window together, at most; each takes 8 bytes, and a fit makes a
few copies."""

BINS = 2**22
"""Features times bins of a histogram of gradient boosting, at most; each takes 24 bytes, and
several histograms are held."""


class Labelled(NamedTuple):
    """A labelled record and its place on the data topic; a missing feature is ``None``.

    If it `revises`, it corrects the label of a record that was labelled before, and says nothing of
    the features.
    """

    partition: int
    offset: int
    features: Sequence[float | None] | NDArray[np.float64]
    label: int
    revises: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True)
class Recipe:
    """A way to make a model: `make` returns an unfitted classifier, the same one each time."""

    name: str
    make: Callable[[], Any]


def recipes(window: int) -> list[Recipe]:
    """Return the recipes that compete, the first champion first; `window` ends their names."""
    return [
        Recipe(
            f"linear_{window}",
            lambda: make_pipeline(
                SimpleImputer(keep_empty_features=True),
                StandardScaler(),
                LogisticRegression(max_iter=200),
            ),
        ),
        Recipe(
            f"hgb_{window}",
            lambda: HistGradientBoostingClassifier(
                max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=0
            ),
        ),
    ]


class Accuracy:
    """Prequential (test-then-train) accuracy over the latest scored records.

    See Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
    Learning 90 (2013), for the sliding window.
    """

    def __init__(self) -> None:
        self._correct: deque[bool] = deque(maxlen=SCORED)

    def add(self, correct: Iterable[bool]) -> None:
        """Take whether each of the next predictions was right."""
        self._correct.extend(correct)

    @property
    def scored(self) -> int:
        """Number of records over which it is taken, at most `SCORED`."""
        return len(self._correct)

    @property
    def value(self) -> float | None:
        """Share of right predictions, ``None`` before the first."""
        return sum(self._correct) / len(self._correct) if self._correct else None


def clearly_better(champion: str, accuracies: Mapping[str, Accuracy]) -> str:
    """Return the best challenger if it is clearly better, else the champion.

    Parameters
    ----------
    champion : str
        Name of a recipe.
    accuracies : mapping of str to Accuracy
        By the name of the recipe.
    """
    values = {
        name: accuracy.value
        for name, accuracy in accuracies.items()
        if accuracy.value is not None and accuracy.scored >= LEAST_SCORED
    }
    if champion not in values:
        return champion
    best = max(values, key=values.__getitem__)
    return best if values[best] >= values[champion] + MARGIN else champion


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A fitted model to publish, and why.

    Attributes
    ----------
    reason : str
        ``first``, ``cadence`` or ``champion`` (the champion changed).
    trained_on : int
        Number of records it was trained on.
    trained_to : dict of str to int
        Partition to the highest offset it was trained on.
    accuracies : dict of str to (float or None)
        Prequential accuracy of each recipe.
    newest : list of features
        Of the newest records that it was trained on, the newest first, to try it on.
    """

    recipe: str
    model: Any
    reason: str
    trained_on: int
    trained_to: dict[str, int]
    accuracies: dict[str, float | None]
    newest: list[list[float | None]]

    def adds_to(self, trained_to: Mapping[str, int] | None) -> bool:
        """Return whether the model was trained on records beyond these offsets.

        ``None``, for no model that can be served, is less than any model.
        """
        before = trained_to or {}
        return trained_to is None or any(o > before.get(p, -1) for p, o in self.trained_to.items())


class Trainer:
    """Retrains each recipe on the latest labelled records, and yields the models to publish.

    A model first scores the records that come next; only later models train on them. So a record
    whose label comes late is scored by the newest models when it comes. What is published depends
    on the records alone, not on the batches in which they come.

    Parameters
    ----------
    recipes : sequence of Recipe
        The first is the champion until another is clearly better.
    window : int
        Labelled records on which a model is trained, at most.
    retrain_every : int
        Labelled records between two models, at most.
    width : int or None
        Number of features of a record; ``None``: the commonest of the first 200 records.

    Attributes
    ----------
    width : int or None
        Number of features that is trained on; ``None`` until it is settled.

    Examples
    --------
    >>> trainer = Trainer(recipes(2000), window=2000, retrain_every=1000)
    >>> records = [Labelled(0, offset, [offset % 7, 1.0], offset % 2) for offset in range(250)]
    >>> [(p.reason, p.trained_on, p.trained_to) for p in trainer.observe(records)]
    [('first', 200, {'0': 199})]
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        window: int,
        retrain_every: int,
        width: int | None = None,
    ) -> None:
        self._recipes = recipes
        self._window = OrderedDict[tuple[int, int], Labelled]()  # a dict is slow at its front
        self._size = window
        self._retrain_every = retrain_every
        self.width = width
        self._champion = recipes[0].name
        self._models: dict[str, Any] = {}
        self._accuracies = {recipe.name: Accuracy() for recipe in recipes}
        self._untested: dict[tuple[int, int], Labelled] = {}
        self._suspended_until: dict[str, int] = {}
        self._ones = self._cells = self._observed = 0
        self._next_model = FIRST_MODEL
        self._skipped = 0
        self._warnings = Warnings(log)

    def observe(self, records: Iterable[Labelled]) -> Iterator[Publication]:
        """Take the next labelled records, and yield each model as soon as it is to be published.

        A second label of a record that is trained on is ignored, unless it revises the first.
        Records with another number of features are skipped, with a warning a minute.
        """
        for record in records:
            if record.revises or record.place in self._window:
                self._revise(record)
                continue
            if self.width not in (None, len(record.features)):
                self._skip(record)
                continue
            # As a list of Python's floats, they would take four times the memory.
            record = record._replace(features=np.array(record.features, dtype=np.float64))
            self._untested[record.place] = record
            self._add(record)
            if (len(self._untested) >= LEAST_STEP or self._due) and (found := self._step()):
                yield found

    def suspend(self, recipe: str) -> None:
        """Suspend a recipe whose model was refused or barred.

        It is not the champion for the next ten times `retrain_every` labelled records, and a
        challenger again after that. The most accurate of the others becomes the champion at the
        next comparison. If all are suspended, the first recipe is published at the usual pace.
        """
        self._suspended_until[recipe] = self._observed + SUSPENDED * self._retrain_every

    @property
    def needs(self) -> str:
        """What the first model still needs, in words."""
        more = max(0, FIRST_MODEL - self._observed)
        absent = {0: len(self._window) > self._ones, 1: self._ones > 0}
        needed = [f"{more} more"] if more else []
        needed += [f"one labelled {label}" for label, present in absent.items() if not present]
        text = f"the first model needs {FIRST_MODEL} labelled records of both labels"
        text += f": {', '.join(needed)}" if needed else ", which are there"
        if self._skipped:
            text += f"; {self._skipped:,} were skipped, which do not have {self.width} features"
        return text

    @property
    def _due(self) -> bool:
        return self._observed >= self._next_model and self._trainable

    @property
    def _trainable(self) -> bool:
        return 0 < self._ones < len(self._window)

    def _add(self, record: Labelled) -> None:
        self._window[record.place] = record
        self._ones += record.label
        self._cells += len(record.features)
        self._observed += 1
        while len(self._window) > self._size or self._cells > CELLS:
            if self._cells > CELLS:
                self._warnings.warn(
                    "cells",
                    f"the window holds {len(self._window) - 1} records instead of"
                    f" WINDOW={self._size}: they have {len(record.features)} features each, and"
                    f" {CELLS} numbers are kept",
                )
            oldest = self._window.pop(next(iter(self._window)))
            self._ones -= oldest.label
            self._cells -= len(oldest.features)

    def _revise(self, record: Labelled) -> None:
        before = self._window.get(record.place)
        if before and record.revises:
            self._ones += record.label - before.label
            revised = self._window[record.place] = before._replace(label=record.label)
            if record.place in self._untested:
                self._untested[record.place] = revised

    def _step(self) -> Publication | None:
        """Test, then train if a model is due or the champion changed."""
        if self.width is None and self._due:
            self._choose_width()
        with warnings.catch_warnings(), threadpool_limits(1):
            # A fit that did not converge is judged by its accuracy, like any other. One thread:
            # several are slower on so few records, and take cores from the predictor.
            warnings.simplefilter("ignore")
            self._test()
            available = {
                name: accuracy
                for name, accuracy in self._accuracies.items()
                if self._observed >= self._suspended_until.get(name, 0)
            }
            champion = self._next_champion(available)
            changed = champion != self._champion
            if not (self._due or (changed and champion in available and self._trainable)):
                return None
            reason = "champion" if changed else "cadence" if self._models else "first"
            self._train()
        self._champion = champion
        self._next_model = self._observed + max(
            LEAST_STEP, min(self._retrain_every, self._observed // 2)
        )
        newest = (record.features for record in reversed(self._window.values()))
        return Publication(
            recipe=champion,
            model=self._models[champion],
            reason=reason,
            trained_on=len(self._window),
            trained_to=highest_offsets(self._window),
            accuracies={name: accuracy.value for name, accuracy in self._accuracies.items()},
            newest=[
                [None if math.isnan(value) else value for value in np.asarray(found).tolist()]
                for found in islice(newest, record_limit(self._cells // len(self._window)))
            ],
        )

    def _next_champion(self, available: Mapping[str, Accuracy]) -> str:
        if not available:
            return self._recipes[0].name
        champion = self._champion
        if champion not in available:
            champion = max(available, key=lambda name: available[name].value or 0.0)
        return clearly_better(champion, available)

    def _test(self) -> None:
        untested, self._untested = self._untested, {}
        if self._models:
            features, labels = _matrix(untested.values())
            for name, model in self._models.items():
                self._accuracies[name].add((model.predict(features) == labels).tolist())

    def _train(self) -> None:
        features, labels = _matrix(self._window.values())
        # A column without values cannot be split into bins; a constant says as little.
        features[:, np.isnan(features).all(axis=0)] = 0.0
        self._models = {
            recipe.name: _bounded(recipe.make(), features.shape[1]).fit(features, labels)
            for recipe in self._recipes
        }

    def _choose_width(self) -> None:
        """Take the commonest number of features, so that one odd first record does not decide."""
        records = list(self._window.values())
        self.width = Counter(len(record.features) for record in records).most_common(1)[0][0]
        self._window.clear()
        self._ones = self._cells = self._observed = 0
        for record in records:
            if len(record.features) == self.width:
                self._add(record)
            else:
                self._skip(record)

    def _skip(self, record: Labelled) -> None:
        self._skipped += 1
        place = f"partition={record.partition} offset={record.offset}"
        self._warnings.warn(
            "width",
            f"{place}: expected {self.width} features, got {len(record.features)}; such records"
            f" are not trained on, {self._skipped} so far",
        )


def _bounded(classifier: Any, width: int) -> Any:
    """Give gradient boosting fewer bins where so many features would take too much memory."""
    if isinstance(classifier, HistGradientBoostingClassifier):
        classifier.max_bins = min(classifier.max_bins, max(2, BINS // width))
    return classifier


def _matrix(records: Collection[Labelled]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the features (n, width), NaN for a missing one, and the labels (n,)."""
    features = np.array([record.features for record in records], dtype=np.float64)
    return features, np.array([record.label for record in records], dtype=np.int64)
