"""Pipelines that were fitted on a data frame, made to work on arrays."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer


def by_position(model: Any) -> Any:
    """Return a model whose column transformers select columns by position instead of by name.

    A ColumnTransformer that was fitted on a data frame by names accepts only data frames; a record
    of the stream is an array in the order of the schema. The model itself is not changed: where
    something has to change, a copy is returned.
    """
    if not any(_named(each) for each in _estimators(model)):
        return model
    model = copy.deepcopy(model)
    for each in filter(_named, _estimators(model)):
        names = list(each.feature_names_in_)
        each.transformers_ = [
            (name, transformer, _positions(columns, names))
            for name, transformer, columns in each.transformers_
        ]
    return model


def _named(estimator: Any) -> bool:
    return isinstance(estimator, ColumnTransformer) and hasattr(estimator, "feature_names_in_")


def _estimators(thing: Any) -> Iterator[Any]:
    if isinstance(thing, BaseEstimator):
        yield thing
        thing = vars(thing)
    if isinstance(thing, dict):
        thing = thing.values()
    elif not isinstance(thing, (list, tuple)):
        return
    for part in list(thing):
        yield from _estimators(part)


def _positions(columns: Any, names: list[str]) -> Any:
    if isinstance(columns, str):
        return names.index(columns)
    if isinstance(columns, slice) and isinstance(columns.start or columns.stop, str):
        # As in pandas, a slice of names includes its end.
        start = names.index(columns.start) if columns.start is not None else None
        stop = names.index(columns.stop) + 1 if columns.stop is not None else None
        return slice(start, stop, columns.step)
    if isinstance(columns, slice) or callable(columns):
        return columns
    return [names.index(each) if isinstance(each, str) else each for each in columns]
