"""Six recipes on windows, to compare with: a vote of what is fitted anew on the newest records."""

from __future__ import annotations

from functools import partial
from typing import Any

from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline

from modelgenerator.training.learning import Latest, Steady
from modelgenerator.training.recipes import Columns, Recipe, boosting, linear


def trees(columns: Columns) -> Any:
    """Return extremely randomized trees."""
    return make_pipeline(
        columns.encoder(),
        ExtraTreesClassifier(n_estimators=50, min_samples_leaf=5, random_state=0),
    )


RECIPES = (
    Recipe("linear_500", linear, partial(Latest, 500, every=250)),
    Recipe("linear_steady", linear, Steady),
    Recipe("boosting_2000", boosting, partial(Latest, 2_000, every=250)),
    Recipe("boosting_steady", boosting, Steady),
    Recipe("trees_2000", trees, partial(Latest, 2_000, every=250)),
    Recipe("trees_steady", trees, Steady),
)
