"""When to train, and which recipe's model to publish; knows no Kafka."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from modelgenerator.envelope import highest_offsets
from modelgenerator.trial import record_limit
from modelgenerator.window import Labelled, Place, Window
from stream.layout import Layout
from stream.records import Cell

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

CATEGORIES = 254
"""Commonest texts of a category that a model knows; gradient boosting takes no more."""

ONE_HOT = 4_096
"""Columns that all categories together become in the linear recipe, at most, and one each."""

BINS = 2**22
"""Features times bins of a histogram of gradient boosting, at most; each takes 24 bytes, and
several histograms are held."""


@dataclass(frozen=True)
class Columns:
    """What a recipe has to know of the records.

    Attributes
    ----------
    width : int
        Number of features.
    commonest : dict of int to (list of str)
        Position of each category to its texts in the window, the commonest first; those behind
        `CATEGORIES` are left out.
    """

    width: int
    commonest: dict[int, list[str]] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """Positions of the features that are no categories."""
        return [index for index in range(self.width) if index not in self.commonest]

    def encoded(self, most: int) -> list[list[str]]:
        """Return the commonest texts of each category, at least one: an encoder needs one."""
        return [texts[: max(1, most)] or [""] for texts in self.commonest.values()]


@dataclass(frozen=True)
class Recipe:
    """A way to make a model: `make` returns an unfitted classifier, the same one each time."""

    name: str
    make: Callable[[Columns], Any]


def recipes(window: int) -> list[Recipe]:
    """Return the recipes that compete, the first champion first; `window` ends their names."""
    return [Recipe(f"linear_{window}", _linear), Recipe(f"hgb_{window}", _gradient_boosting)]


def _linear(columns: Columns) -> Any:
    """Return a logistic regression; a category is one-hot, unseen and missing ones are zeros."""
    scaled = [SimpleImputer(keep_empty_features=True), StandardScaler()]
    regression = LogisticRegression(max_iter=200)
    if not columns.commonest:
        return make_pipeline(*scaled, regression)
    categories = columns.encoded(min(CATEGORIES, ONE_HOT // len(columns.commonest)))
    return make_pipeline(
        make_column_transformer(
            (OneHotEncoder(categories=categories, handle_unknown="ignore"), [*columns.commonest]),
            (make_pipeline(*scaled), columns.numbers),
        ),
        regression,
    )


def _gradient_boosting(columns: Columns) -> Any:
    """Return gradient boosting; rare, unseen and missing categories are all missing."""
    bins = min(255, max(2, BINS // columns.width))
    boosting = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=0, max_bins=bins
    )
    if not columns.commonest:
        return boosting
    encoder = OrdinalEncoder(
        categories=columns.encoded(min(CATEGORIES, bins - 1)),
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
    )
    boosting.categorical_features = [*range(len(columns.commonest))]  # they come first
    return make_pipeline(
        make_column_transformer((encoder, [*columns.commonest]), ("passthrough", columns.numbers)),
        boosting,
    )


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
    newest : list of rows
        Of the newest records that it was trained on, the newest first, to try it on.
    layout : Layout
        By which its records were read.
    """

    recipe: str
    model: Any
    reason: str
    trained_on: int
    trained_to: dict[str, int]
    accuracies: dict[str, float | None]
    newest: list[list[Cell]]
    layout: Layout

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
    layout : Layout
        By which the records were read. If it names no width, that is the commonest one of the first
        200 records.

    Attributes
    ----------
    layout : Layout
        By which the next records are to be read.

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
        layout: Layout | None = None,
    ) -> None:
        self._recipes = recipes
        self.layout = layout or Layout()
        self._size = window
        self._window = Window(window, self.layout)
        self._retrain_every = retrain_every
        self._champion = recipes[0].name
        self._models: dict[str, Any] = {}
        self._fitted = self.layout
        self._accuracies = {recipe.name: Accuracy() for recipe in recipes}
        self._untested: list[Place] = []
        self._suspended_until: dict[str, int] = {}
        self._observed = 0
        self._next_model = FIRST_MODEL

    def observe(self, records: Iterable[Labelled]) -> Iterator[Publication]:
        """Take the next labelled records, and yield each model as soon as it is to be published.

        A second label of a record that is trained on is ignored, unless it revises the first.
        """
        for record in records:
            if record.revises:
                self._window.revise(record)
            elif record.place not in self._window:
                self._untested.append(record.place)
                self._window.add(record)
                self._observed += 1
                if (len(self._untested) >= LEAST_STEP or self._due) and (found := self._step()):
                    yield found

    def follow(self, layout: Layout) -> None:
        """Take the next records by another layout, of the same types if there were records before.

        Records with another number of features, which came before it was known, are left out.
        """
        if not self._observed:
            self._window = Window(self._size, layout)
        elif self.layout.width is None and layout.width:
            if others := self._window.keep(layout.width):
                log.warning(
                    "%d of the first %d labelled records have another number of features than %d;"
                    " they are not trained on",
                    *(others, self._observed, layout.width),
                )
            self._observed = len(self._window)
        self.layout = layout

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
        ones = self._window.ones
        absent = {0: len(self._window) > ones, 1: ones > 0}
        needed = [f"{more} more"] if more else []
        needed += [f"one labelled {label}" for label, present in absent.items() if not present]
        text = f"the first model needs {FIRST_MODEL} labelled records of both labels"
        return text + (f": {', '.join(needed)}" if needed else ", which are there")

    @property
    def _due(self) -> bool:
        return self._observed >= self._next_model and self._trainable

    @property
    def _trainable(self) -> bool:
        return 0 < self._window.ones < len(self._window)

    def _step(self) -> Publication | None:
        """Test, then train if a model is due or the champion changed."""
        if self.layout.width is None and self._due:
            # The commonest, so that one odd first record does not decide.
            self.follow(Layout(self._window.commonest_width))
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
        return Publication(
            recipe=champion,
            model=self._models[champion],
            reason=reason,
            trained_on=len(self._window),
            trained_to=highest_offsets(self._window),
            accuracies={name: accuracy.value for name, accuracy in self._accuracies.items()},
            newest=self._window.newest(record_limit(self.layout.width or 1)),
            layout=self._fitted,
        )

    def _next_champion(self, available: Mapping[str, Accuracy]) -> str:
        if not available:
            return self._recipes[0].name
        champion = self._champion
        if champion not in available:
            champion = max(available, key=lambda name: available[name].value or 0.0)
        return clearly_better(champion, available)

    def _test(self) -> None:
        untested, self._untested = self._untested, []
        if self._models:
            features, labels = self._window.matrix(self._fitted, untested)
            for name, model in self._models.items():
                self._accuracies[name].add((model.predict(features) == labels).tolist())

    def _train(self) -> None:
        self._fitted = self.layout
        features, labels = self._window.matrix(self._fitted, to_fit=True)
        vocabularies = self._window.encoder.vocabularies
        commonest = {index: each.commonest(CATEGORIES) for index, each in vocabularies.items()}
        columns = Columns(features.shape[1], commonest)
        self._models = {
            recipe.name: recipe.make(columns).fit(features, labels) for recipe in self._recipes
        }
