"""Random Fourier features, with which a linear model bends its lines."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin


class FourierFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc] # carries no types
    """Adds cosines of random projections to the columns.

    Their inner products approximate the kernel exp(-gamma ||x - y||²), as those of scikit-learn's
    `RBFSampler` do; the columns themselves stay beside them. The projections come from the seed
    when they are needed, so a pickle does not hold them.

    Parameters
    ----------
    gamma : float
    components : int
        How many cosines.
    scale : float
        By which they are multiplied.
    seed : int

    Notes
    -----
    Rahimi and Recht, "Random features for large-scale kernel machines" (2007).
    """

    def __init__(
        self, gamma: float = 0.1, components: int = 600, scale: float = 0.1, seed: int = 0
    ) -> None:
        self.gamma = gamma
        self.components = components
        self.scale = scale
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Remember the number of columns."""
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """Return the columns, and the cosines behind them."""
        if not hasattr(self, "_drawn"):
            random = np.random.default_rng(self.seed)
            shape = (self.n_features_in_, self.components)
            directions = random.normal(scale=np.sqrt(2 * self.gamma), size=shape)
            self._drawn = directions, random.uniform(0, 2 * np.pi, self.components)
        directions, shifts = self._drawn
        return np.hstack([X, self.scale * np.cos(X @ directions + shifts)])

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_drawn"}
