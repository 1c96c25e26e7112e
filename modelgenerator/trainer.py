"""What to train, when, and which recipe's model to publish; no Kafka in here."""

from __future__ import annotations

import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

log = logging.getLogger("modelgenerator")

FIRST_MODEL = 200
"""Labelled records that the first model needs."""

LEAST_STEP = 100
"""Labelled records between two models, at least; also between two looks at the accuracies."""

SITS_OUT = 10
"""Retrainings (of `retrain_every` records each) that a recipe sits out after a bad model."""

SCORED = 1_000
"""Latest scored records that a recipe's accuracy is taken over."""


class Labelled(NamedTuple):
    """A labelled record and its place on the data topic.

    Attributes
    ----------
    partition, offset : int
    features : list of float or None
        ``None`` for a missing one.
    label : int
        0 or 1.
    """

    partition: int
    offset: int
    features: list[float | None]
    label: int


@dataclass(frozen=True)
class Recipe:
    """A way to make a model.

    Attributes
    ----------
    name : str
    make : callable
        Returns a classifier that is not fitted yet; the same one each time.
    """

    name: str
    make: Callable[[], Any]


def recipes(window: int) -> list[Recipe]:
    """Return the recipes that contend, the one to start with first.

    Parameters
    ----------
    window : int
        Labelled records that they are trained on; part of their names.
    """
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
        """Take in whether each of the next predictions was right."""
        self._correct.extend(correct)

    @property
    def scored(self) -> int:
        """Number of records that it is taken over, `SCORED` at most."""
        return len(self._correct)

    @property
    def value(self) -> float | None:
        """Share of right predictions, ``None`` before the first."""
        return sum(self._correct) / len(self._correct) if self._correct else None


Gate = Callable[[str, Mapping[str, Accuracy]], str]
"""Given the champion and every recipe's accuracy, names the champion from now on."""


def clearly_better(
    champion: str, accuracies: Mapping[str, Accuracy], margin: float = 0.01, least: int = 500
) -> str:
    """Return the recipe that should be the champion: a challenger only when clearly better.

    Parameters
    ----------
    champion : str
    accuracies : mapping of str to Accuracy
        By the name of the recipe.
    margin : float
        How much more accurate a challenger has to be.
    least : int
        Number of records that both must have been scored on.
    """
    values = {
        name: accuracy.value
        for name, accuracy in accuracies.items()
        if accuracy.value is not None and accuracy.scored >= least
    }
    if champion not in values:
        return champion
    best = max(values, key=values.__getitem__)
    return best if values[best] >= values[champion] + margin else champion


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A model to publish, and why.

    Attributes
    ----------
    recipe : str
    model : object
        Fitted classifier.
    reason : str
        ``first``, ``cadence`` or ``champion`` (the champion changed).
    trained_on : int
        Number of records it was trained on.
    trained_to : dict of str to int
        Partition to the highest offset it was trained on.
    accuracies : dict of str to (float or None)
        Prequential accuracy of every recipe.
    """

    recipe: str
    model: Any
    reason: str
    trained_on: int
    trained_to: dict[str, int]
    accuracies: dict[str, float | None]

    @property
    def recipe_accuracy(self) -> float | None:
        """Prequential accuracy of the recipe that made the model."""
        return self.accuracies[self.recipe]


class Trainer:
    """Keeps retraining every recipe on the latest labelled records, and says what to publish.

    A model first scores the records that come next; only the models after it train on them. What
    is published depends on the records alone, not on the batches they come in.

    Parameters
    ----------
    recipes : sequence of Recipe
        The first is the champion until another is clearly better.
    window : int
        Labelled records that a model is trained on, at most.
    retrain_every : int
        Labelled records between two models, at most.
    width : int or None
        Number of features of a record; ``None`` takes the commonest of the first 200 records.
    gate : callable
        Chooses the champion.

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
        gate: Gate = clearly_better,
    ) -> None:
        self._recipes = recipes
        self._window: deque[Labelled] = deque(maxlen=window)
        self._retrain_every = retrain_every
        self._width = width
        self._gate = gate
        self._champion = recipes[0].name
        self._models: dict[str, Any] = {}
        self._accuracies = {recipe.name: Accuracy() for recipe in recipes}
        self._untested: list[Labelled] = []
        self._sits_out_until: dict[str, int] = {}
        self._ones = 0
        self._observed = 0
        self._next_model = FIRST_MODEL
        self._warned = False

    def observe(self, records: Iterable[Labelled]) -> Iterator[Publication]:
        """Take the next labelled records.

        Records of another width than the stream's are skipped, with one warning.

        Yields
        ------
        Publication
            What to publish, as soon as the records taken so far call for it.
        """
        for record in records:
            if self._width not in (None, len(record.features)):
                self._warn(record)
                continue
            self._untested.append(record)
            self._remember(record)
            if len(self._untested) >= LEAST_STEP or self._due:
                publication = self._step()
                if publication is not None:
                    yield publication

    def sit_out(self, recipe: str) -> None:
        """Take note that a model of this recipe was refused or barred.

        It is not the champion for the next ten times `retrain_every` labelled records, after
        which it is a challenger again. The most accurate of the others takes its place at the next
        look at the accuracies. Where none is left, the first recipe is the champion, rather than
        nothing, at the pace of `retrain_every`.
        """
        self._sits_out_until[recipe] = self._observed + SITS_OUT * self._retrain_every

    @property
    def _due(self) -> bool:
        return self._observed >= self._next_model and self._trainable

    @property
    def _trainable(self) -> bool:
        return 0 < self._ones < len(self._window)

    def _remember(self, record: Labelled) -> None:
        if len(self._window) == self._window.maxlen:
            self._ones -= self._window[0].label
        self._window.append(record)
        self._ones += record.label
        self._observed += 1

    def _step(self) -> Publication | None:
        """Test, then train where a model is due or the champion changed."""
        if self._width is None and self._due:
            self._settle_width()
        with warnings.catch_warnings(), threadpool_limits(1):
            # A fit that did not converge is judged by its accuracy, as any other. One thread:
            # several are slower on so few records, and would take the predictor's.
            warnings.simplefilter("ignore")
            self._test()
            available = {
                name: accuracy
                for name, accuracy in self._accuracies.items()
                if self._observed >= self._sits_out_until.get(name, 0)
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
        trained_to: dict[str, int] = {}
        for record in self._window:
            partition = str(record.partition)
            trained_to[partition] = max(record.offset, trained_to.get(partition, -1))
        return Publication(
            recipe=champion,
            model=self._models[champion],
            reason=reason,
            trained_on=len(self._window),
            trained_to=trained_to,
            accuracies={name: accuracy.value for name, accuracy in self._accuracies.items()},
        )

    def _next_champion(self, available: Mapping[str, Accuracy]) -> str:
        if not available:
            return self._recipes[0].name
        champion = self._champion
        if champion not in available:
            champion = max(available, key=lambda name: available[name].value or 0.0)
        return self._gate(champion, available)

    def _test(self) -> None:
        untested, self._untested = self._untested, []
        if self._models:
            features, labels = _matrix(untested)
            for name, model in self._models.items():
                self._accuracies[name].add((model.predict(features) == labels).tolist())

    def _train(self) -> None:
        features, labels = _matrix(self._window)
        # A column without any value has no bins to be split into; one value is as telling.
        features[:, np.isnan(features).all(axis=0)] = 0.0
        self._models = {
            recipe.name: recipe.make().fit(features, labels) for recipe in self._recipes
        }

    def _settle_width(self) -> None:
        """Take the commonest width, so that a stray first record does not decide."""
        records = list(self._window)
        self._width = Counter(len(record.features) for record in records).most_common(1)[0][0]
        self._window.clear()
        self._ones = self._observed = 0
        for record in records:
            if len(record.features) == self._width:
                self._remember(record)
            else:
                self._warn(record)

    def _warn(self, record: Labelled) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "partition=%d offset=%d: expected %d features, got %d; such records are not"
                " trained on",
                record.partition,
                record.offset,
                self._width,
                len(record.features),
            )


def _matrix(records: Collection[Labelled]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the features (n, width), NaN where missing, and the labels (n,)."""
    features = np.array([record.features for record in records], dtype=np.float64)
    return features, np.array([record.label for record in records], dtype=np.int64)
