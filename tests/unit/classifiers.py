"""What goes into a model of a test: classifiers with faults, envelopes, keys."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stream.classifier import Model
from stream.keys import SigningKey
from stream.layout import Matrix
from stream.models import PART_BYTES, Envelope


def new_key() -> SigningKey:
    """Make a key that nobody trusts yet."""
    return SigningKey(Ed25519PrivateKey.generate())


STRANGER = new_key()
"""Trusted by nobody."""
LARGE = bytes(range(256)) * (PART_BYTES // 100)
"""A pickle that goes in three parts."""


def envelope(version: int = 1, **changes: Any) -> Envelope:
    """Make an envelope of a model with two features."""
    fields: dict[str, Any] = {
        "version": version,
        "recipe": "test",
        "algorithm": "Sign",
        "features": 2,
        "feature_names": None,
        "classes": [0, 1],
        "accepts_missing": False,
        "trained_on": 200,
        "trained_to": {},
        "recipe_accuracy": None,
        "reason": "first",
        "restores": None,
        "created": "2026-11-23T20:00:00.000Z",
        "sklearn": sklearn.__version__,
        "numpy": np.__version__,
        "python": "3.11",
    }
    return Envelope(**{**fields, **changes})


class Sign:
    """Predicts 1 where the first feature is positive."""

    classes_ = (0, 1)

    def __init__(self, raises_above: float = np.inf) -> None:
        self.raises_above = raises_above
        self.batches: list[int] = []

    def predict(self, matrix: Matrix) -> Any:
        """Predict, or raise where a feature is above the bound."""
        self.batches.append(len(matrix))
        if (matrix > self.raises_above).any():
            raise ArithmeticError("a feature above the bound")
        return (matrix[:, 0] > 0).astype(int)


class Apart(Sign):
    """Takes a null in any one feature, but not in two at once."""

    n_features_in_ = 2

    def predict(self, matrix: Matrix) -> Any:
        """Predict, or raise where a record has two nulls."""
        if (np.isnan(matrix).sum(axis=1) > 1).any():
            raise ArithmeticError("two nulls at once")
        return super().predict(matrix)


class Leaks(Sign):
    """Keeps a hundred megabytes more at each call; as they stay empty, they take addresses only."""

    def predict(self, matrix: Matrix) -> Any:
        """Predict, and keep memory that nobody needs."""
        self.kept = [*getattr(self, "kept", ()), bytes(100_000_000)]
        return super().predict(matrix)


class Once(Sign):
    """Answers its probe, which predicts more than once, and nothing after it."""

    def predict(self, matrix: Matrix) -> Any:
        """Predict the first times, raise from then on."""
        if len(self.batches) >= 12:
            raise ArithmeticError("not the probe")
        return super().predict(matrix)


class Slow(Sign):
    """Takes so many seconds for each record."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict(self, matrix: Matrix) -> Any:
        """Predict slowly."""
        time.sleep(self.seconds * len(matrix))
        return super().predict(matrix)


class SlowCalls(Sign):
    """Takes so many seconds for each call, however many records it is given."""

    def __init__(self, seconds: float, raises_above: float) -> None:
        super().__init__(raises_above)
        self.seconds = seconds

    def predict(self, matrix: Matrix) -> Any:
        """Predict, or raise, after a while."""
        time.sleep(self.seconds)
        return super().predict(matrix)


class Hanging(Sign):
    """Is not unpickled within an hour."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (3_600.0,)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class Held:
    """Predicts 0 for every record, once the file `go` is there.

    Touches the file `held` when it waits; a probe does not: it repeats eight rows at most.
    """

    classes_ = (0, 1)

    def __init__(self, held: Path, go: Path) -> None:
        self.held = held
        self.go = go

    def predict(self, matrix: Matrix) -> Any:
        """Predict."""
        if len(np.unique(matrix, axis=0)) > 8:
            self.held.touch()
            while not self.go.exists():
                time.sleep(0.01)
        return np.zeros(len(matrix), dtype=int)


def model(version: int = 1, classifier: Any = None, **changes: Any) -> Model:
    """Make a model of `Sign` or of another classifier."""
    return Model(envelope(version, **changes), classifier or Sign())


def pickled(classifier: Any) -> bytes:
    """Pickle a classifier as modelgenerator does."""
    buffer = io.BytesIO()
    joblib.dump(classifier, buffer, compress=3)
    return buffer.getvalue()
