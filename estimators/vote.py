"""Several classifiers as one: a weighted vote with calibrated probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float64]

_THREADS = ThreadpoolController()

_RISE = 1e-4
"""Share of the vote itself in a calibrated probability: so it rises with the vote everywhere."""


def positive(classifier: Any, X: Any) -> Floats:
    """Return the probability of label 1 of each record, or the label where there is none.

    A classifier that has seen one label alone answers that one.
    """
    if not hasattr(classifier, "predict_proba"):
        labels: Floats = np.asarray(classifier.predict(X), dtype=np.float64)
        return labels
    found: Floats = np.asarray(classifier.predict_proba(X), dtype=np.float64)
    classes = [*classifier.classes_]
    return found[:, classes.index(1)] if 1 in classes else np.zeros(len(found))


class Calibration(NamedTuple):
    """Turns what a vote says into a probability that comes true as often as it says.

    A line through points, by rising votes, which never falls. So the records whose vote is above
    one half are those whose calibrated probability is above that of one half.

    Attributes
    ----------
    votes, probabilities : tuple of float
        The points.

    Examples
    --------
    >>> Calibration((0.2, 0.8), (0.1, 0.9))(np.array([0.1, 0.5, 0.8])).round(3).tolist()
    [0.1, 0.5, 0.9]
    """

    votes: tuple[float, ...] = (0.0, 1.0)
    probabilities: tuple[float, ...] = (0.0, 1.0)

    def __call__(self, votes: Floats) -> Floats:
        """Return the calibrated probabilities."""
        found: Floats = np.interp(votes, self.votes, self.probabilities)
        return (1 - _RISE) * found + _RISE * votes


class Vote(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # carries no types
    """A weighted soft vote of classifiers that are fitted already.

    Parameters
    ----------
    members : dict of str to estimator
        Fitted classifiers of the labels 0 and 1, by the name of their recipe.
    weights : dict of str to float
        Of those members that vote; together 1.
    features : int
        Number of features.
    calibration : Calibration
        Of the vote.
    threshold : float
        The label is 1 if the calibrated probability of label 1 is not below it.
    """

    def __init__(
        self,
        members: dict[str, Any],
        weights: dict[str, float],
        features: int,
        calibration: Calibration,
        threshold: float,
    ) -> None:
        self.members = members
        self.weights = weights
        self.features = features
        self.calibration = calibration
        self.threshold = threshold

    @property
    def classes_(self) -> NDArray[np.int64]:
        """The labels: 0 and 1."""
        return np.array([0, 1])

    @property
    def n_features_in_(self) -> int:
        """Number of features."""
        return self.features

    def votes(self, X: Any) -> Floats:
        """Return the weighted mean of the members' probabilities of label 1."""
        found = np.zeros(len(X))
        # OpenMP's threads wait for each other at every tree, for very long on a busy machine.
        with _THREADS.limit(limits=1, user_api="openmp"):
            for name, weight in self.weights.items():
                found += weight * positive(self.members[name], X)
        return found

    def predict_proba(self, X: Any) -> Floats:
        """Return the calibrated probabilities of the labels 0 and 1, a row for each record."""
        found = self.calibration(self.votes(X))
        return np.column_stack([1 - found, found])

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the label of each record."""
        return (self.predict_proba(X)[:, 1] >= self.threshold).astype(np.int64)

    def __sklearn_is_fitted__(self) -> bool:
        return True
