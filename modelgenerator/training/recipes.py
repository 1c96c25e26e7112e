"""The recipes: a table that grows by a line for each estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from estimators.columns import CategoryCodes, ColumnEncoder
from estimators.fourier import FourierFeatures
from modelgenerator.training.learning import (
    EachOnce,
    Latest,
    Learning,
    SinceAlarm,
    Steady,
)
from stream.quoting import one_line
from stream.records import FEATURES_LIMIT
from stream.service import Fatal

CATEGORIES = 62
"""Commonest texts of a category that gradient boosting knows: one less than its bins."""

KNOWN, BUCKETS = 32, 8
"""Columns of a category for all other recipes: its commonest texts, and all others, at most."""

ENCODED = 1_024
"""Columns that all categories become together, at most, and one each."""

VOTE, ARCHIVED = "vote", "archived"
TAKEN = {VOTE: "what the recipes serve together", ARCHIVED: "a model of a former concept"}
"""What no recipe may be called, and what that names."""


@dataclass(frozen=True)
class Columns:
    """What a recipe has to know of the records.

    Attributes
    ----------
    width : int
        Number of features.
    commonest : dict of int to (list of str)
        Position of each category to its texts in the window, the commonest first.
    """

    width: int
    commonest: dict[int, list[str]] = field(default_factory=dict)

    def encoder(self) -> ColumnEncoder:
        """Return an encoder that makes scaled numbers of all columns."""
        share = ENCODED // max(1, len(self.commonest))
        buckets = max(1, min(BUCKETS, share // 5))
        known = min(KNOWN, max(0, share - buckets))
        return ColumnEncoder(self._texts(known), buckets)

    def codes(self) -> CategoryCodes:
        """Return an encoder that makes codes of the texts of each category."""
        return CategoryCodes(self._texts(CATEGORIES))

    def _texts(self, most: int) -> dict[int, list[str]]:
        return {column: texts[:most] for column, texts in self.commonest.items()}


@dataclass(frozen=True)
class Recipe:
    """A way to make a model.

    Attributes
    ----------
    name : str
    make : callable
        Returns an unfitted classifier or pipeline, the same one each time.
    learning : callable
        Returns what decides on which records it is trained, and when.
    widest : int
        Number of features up to which it is trained; with more, it is left out.
    """

    name: str
    make: Callable[[Columns], Any]
    learning: Callable[[], Learning]
    widest: int = FEATURES_LIMIT


def sgd(columns: Columns) -> Any:
    """Return a logistic regression that follows; a step that shrinks would not."""
    return make_pipeline(columns.encoder(), _descent(alpha=1e-5, step=0.01))


def rff(columns: Columns) -> Any:
    """Return one that bends its lines, with random Fourier features."""
    return make_pipeline(columns.encoder(), FourierFeatures(), _descent(alpha=1e-6, step=0.03))


def _descent(alpha: float, step: float) -> SGDClassifier:
    return SGDClassifier(
        loss="log_loss", alpha=alpha, learning_rate="constant", eta0=step, random_state=0
    )


def knn(columns: Columns) -> Any:
    """Return the nearest neighbours: nothing is fitted, so it is never late.

    Without a tree and with half the digits, a published model has a fifth of the size.
    """
    single = FunctionTransformer(np.float32)
    return make_pipeline(columns.encoder(), single, KNeighborsClassifier(algorithm="brute"))


def linear(columns: Columns) -> Any:
    """Return a logistic regression."""
    return make_pipeline(columns.encoder(), LogisticRegression(max_iter=200))


def boosting(columns: Columns) -> Any:
    """Return gradient boosting; rare, unseen and missing categories are all missing."""
    trees = HistGradientBoostingClassifier(
        learning_rate=0.25,
        max_iter=30,
        max_leaf_nodes=15,
        min_samples_leaf=10,
        max_bins=CATEGORIES + 1,
        early_stopping=False,
        random_state=0,
        categorical_features=[*columns.commonest] or None,
    )
    if not columns.commonest:
        return trees
    return make_pipeline(columns.codes(), trees)


RECIPES = (
    Recipe("sgd", sgd, partial(EachOnce, every=50)),
    Recipe("rff", rff, partial(EachOnce, every=25), widest=1_000),
    Recipe("knn", knn, partial(Latest, 2_000, every=100), widest=64),
    Recipe("linear", linear, Steady),
    Recipe("hgb_since", boosting, SinceAlarm, widest=10_000),
)


def recipes(name: str | None = None) -> Sequence[Recipe]:
    """Return the recipes that compete.

    Parameters
    ----------
    name : str, optional
        ``package.module:name`` of a table, or of a function that returns one; by default, ours.

    Raises
    ------
    Fatal
        When there is no such table, or it is none; the message says what is there.
    """
    if name is None:
        return RECIPES
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
        found = list(found() if callable(found) else found)
    except Exception as error:  # noqa: BLE001 - a module of one's own may raise anything
        raise Fatal(
            f"RECIPES={name}: {type(error).__name__}: {one_line(str(error), 200)}"
        ) from None
    if not found or not all(isinstance(each, Recipe) for each in found):
        raise Fatal(f"RECIPES={name}: no table of recipes: {one_line(repr(found), 200)}")
    for each in found:
        if each.name in TAKEN:
            raise Fatal(
                f"RECIPES={name}: a recipe is called {each.name!r}, which names"
                f" {TAKEN[each.name]}; any name but {' and '.join(map(repr, TAKEN))} is allowed"
            )
    if len({each.name for each in found}) < len(found):
        raise Fatal(f"RECIPES={name}: two recipes have one name: {[each.name for each in found]}")
    return found
