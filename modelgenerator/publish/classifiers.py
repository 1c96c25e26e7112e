"""Objects that are no fitted classifier of two labels: what they are, and what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_clusterer, is_outlier_detector, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from stream.classifier import check_classes
from stream.models import ModelError


def check_is_classifier(model: Any) -> None:
    """Check that an object is a fitted classifier of the labels 0 and 1, or False and True.

    Raises
    ------
    ModelError
        The message says what it is instead, and what to do.
    """
    try:
        check_classes(model)
    except ModelError:
        raise ModelError(_what_it_is(model)) from None


def _what_it_is(model: Any) -> str:
    name = type(model).__name__
    name = f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
    if isinstance(model, type):
        return f"the class {model.__name__} itself; make a model of it, and fit that"
    if isinstance(model, (dict, list, tuple)):
        inside = next(_models_in(model), "a fitted classifier")
        return f"{name}, not a classifier; publish {inside}"
    if isinstance(model, BaseEstimator) and (problem := _unfit(model)):
        return f"{name}, {problem}"
    if not hasattr(model, "predict"):
        return f"{name}, not a classifier: it has no predict"
    if not hasattr(model, "classes_"):
        return f"{name} without the classes_ that a classifier of scikit-learn has"
    classes = np.asarray(model.classes_, dtype=object).tolist()
    found = f"{name} whose classes are {str(classes)[:100]}"
    if isinstance(classes, list) and len(classes) == 1:
        return f"{found}; it knows one label only: fit it on records of both"
    one = repr(classes[-1])[:40] if isinstance(classes, list) and classes else "..."
    return f"{found}; they have to be 0 and 1: fit it on y == {one}"


def _unfit(model: BaseEstimator) -> str:
    """Return why an estimator is no fitted classifier; empty if that is not known."""
    if getattr(model, "refit", True) is False:
        return "which keeps no model; search with refit=True"
    for is_one, kind in _OTHERS.items():
        if is_one(model):
            return f"{kind}, not a classifier"
    try:
        check_is_fitted(model)
    except NotFittedError:
        return "not fitted; call fit(X, y) first"
    except Exception:  # noqa: BLE001 - a foreign estimator may raise anything
        return ""
    return ""


_OTHERS = {
    is_regressor: "a regressor",
    is_clusterer: "a clusterer",
    is_outlier_detector: "an outlier detector",
}


def _models_in(container: Any) -> Iterator[str]:
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in items:
        if hasattr(value, "predict") and not isinstance(value, type):
            yield f"the {type(value).__name__} in it, at [{key!r}]"
