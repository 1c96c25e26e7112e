"""Columns of records as numbers: scaled, without gaps, categories in a fixed width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

REMEMBERED = 10_000
"""Records over which mean and deviation are taken, about; older ones fade."""

LARGEST = 10.0
"""Deviations from the mean beyond which a number is cut off: one wild value must not throw a model
that learns from single records."""

_AT_ONCE = 4_096
"""Columns whose mean is taken at once: the copies of very wide records would take much memory."""

Floats = NDArray[np.float64]


def cells(X: Any, column: int) -> Sequence[Any]:
    """Return the cells of a column of an array or a data frame."""
    found: Sequence[Any] = (X.iloc[:, column] if hasattr(X, "iloc") else X[:, column]).tolist()
    return found


def numbers(X: Any, columns: Sequence[int]) -> Floats:
    """Return columns of an array or a data frame as float64, NaN where a value is missing."""
    if hasattr(X, "iloc"):
        return np.asarray(X.iloc[:, columns].to_numpy(), dtype=np.float64)
    whole = len(columns) == np.shape(X)[1]  # what is wide is not copied
    return np.asarray(X if whole else np.asarray(X)[:, columns], dtype=np.float64)


def _slices(values: Floats) -> Iterator[slice]:
    for start in range(0, values.shape[1], _AT_ONCE):
        yield slice(start, start + _AT_ONCE)


def _moments(values: Floats) -> Floats:
    """Return count, mean and sum of squared deviations of each column; NaN is left out."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.where(there, values, 0.0)
        mean = apart.sum(axis=0) / np.maximum(count, 1)
        apart = np.where(there, apart - mean, 0.0)
        return np.array([count, mean, (apart**2).sum(axis=0)])


class ColumnEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc] # carries no types
    """Scales numbers, fills gaps with the mean, and puts each category into columns of its own.

    Mean and deviation are those of about the last `REMEMBERED` records, so they follow a drift.
    Each text that is known has a column, in which it is a 1. All others share a few columns, chosen
    by a hash: the width stays the same whatever texts come, so an estimator may go on learning with
    `partial_fit`.

    Parameters
    ----------
    texts : dict of int to (list of str), optional
        Position of each category to the texts with a column; all other columns are numbers.
    buckets : int
        Columns of each category for all other texts.

    Notes
    -----
    Mean and variance of blocks are joined as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979).

    Examples
    --------
    >>> ColumnEncoder().fit([[1.0], [3.0]]).transform([[3.0], [float("nan")]]).tolist()
    [[1.0], [0.0]]
    """

    def __init__(self, texts: dict[int, list[str]] | None = None, buckets: int = 8) -> None:
        self.texts = texts
        self.buckets = buckets

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take mean and deviation of these records alone."""
        self.__dict__.pop("n_features_in_", None)
        return self.partial_fit(X)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take these records into mean and deviation."""
        X = X if hasattr(X, "iloc") else np.asarray(X)
        if not hasattr(self, "n_features_in_"):
            self.n_features_in_ = X.shape[1]
            texts = self.texts or {}
            self.codes_ = {
                column: {text: code for code, text in enumerate(known)}
                for column, known in texts.items()
            }
            self.numbers_ = [i for i in range(X.shape[1]) if i not in texts]
            self.count_, self.mean_, self.squares_ = np.zeros((3, len(self.numbers_)))
        values = numbers(X, self.numbers_)
        with np.errstate(over="ignore", invalid="ignore"):
            # One wild value must not decide the scale for long; a lasting change is still followed.
            most = np.where(self.squares_ > 0, LARGEST * self._deviation, np.inf)
            parts = [
                _moments(
                    values[:, some].clip(
                        self.mean_[some] - most[some], self.mean_[some] + most[some]
                    )
                )
                for some in _slices(values)
            ]
            count, mean, squares = np.hstack(parts) if parts else np.zeros((3, 0))
            together = np.maximum(self.count_ + count, 1)
            moved = mean - self.mean_
            self.mean_ = self.mean_ + moved * (count / together)
            self.squares_ += squares + moved**2 * self.count_ * count / together
        self.count_ += count
        fading = np.minimum(1.0, REMEMBERED / np.maximum(self.count_, 1))
        self.count_, self.squares_ = self.count_ * fading, self.squares_ * fading
        return self

    @property
    def _deviation(self) -> Floats:
        """Standard deviations, 1 where there is none."""
        found = np.sqrt(self.squares_ / np.maximum(self.count_, 1))
        return np.where((found > 0) & np.isfinite(found), found, 1.0)

    def transform(self, X: Any) -> Floats:
        """Return numbers as deviations from the mean, then the columns of each category."""
        X = X if hasattr(X, "iloc") else np.asarray(X)
        values, deviation = numbers(X, self.numbers_), self._deviation
        scaled = np.empty_like(values)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for some in _slices(values):
                part = (values[:, some] - self.mean_[some]) / deviation[some]
                part[np.isnan(part)] = 0.0
                part.clip(-LARGEST, LARGEST, out=scaled[:, some])
        return np.hstack([scaled, *(self._columns(X, column) for column in self.codes_)])

    def _columns(self, X: Any, column: int) -> Floats:
        """Return the columns of a category."""
        codes = self.codes_[column]
        found = np.zeros((len(X), len(codes) + self.buckets))
        for row, text in enumerate(cells(X, column)):
            if isinstance(text, str):
                code = codes.get(text)
                if code is None:
                    hashed = crc32(text.encode("utf-8", "surrogatepass"))
                    code = len(codes) + hashed % self.buckets
                found[row, code] = 1.0
        return found


class CategoryCodes(TransformerMixin, BaseEstimator):  # type: ignore[misc] # carries no types
    """Puts the number of a text in place of each category, for gradient boosting.

    Parameters
    ----------
    texts : dict of int to (list of str)
        Position of each category to the texts it knows. All others become missing.

    Examples
    --------
    >>> records = np.array([["pro", 3], ["team", 4]], dtype=object)
    >>> CategoryCodes({0: ["free", "pro"]}).fit_transform(records)
    array([[ 1.,  3.],
           [nan,  4.]])
    """

    def __init__(self, texts: dict[int, list[str]]) -> None:
        self.texts = texts

    def fit(self, X: Any, y: Any = None) -> Self:
        """Remember the number of columns."""
        self.n_features_in_ = X.shape[1]
        self.numbers_ = [i for i in range(X.shape[1]) if i not in self.texts]
        self.codes_ = {
            column: {text: code for code, text in enumerate(texts)}
            for column, texts in self.texts.items()
        }
        return self

    def transform(self, X: Any) -> Floats:
        """Return the columns as float64, in their order."""
        found = np.empty((len(X), self.n_features_in_))
        found[:, self.numbers_] = numbers(X, self.numbers_)
        for column, codes in self.codes_.items():
            found[:, column] = [codes.get(text, np.nan) for text in cells(X, column)]
        return found
