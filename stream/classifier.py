"""A model that may be served: unpickled after every check, probed before its first record."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from stream.models import Envelope, ModelError
from stream.records import Schema

Matrix = npt.NDArray[np.float64]

_PROBE_ROWS = 8


@dataclass(frozen=True)
class Model:
    """A classifier and its envelope."""

    envelope: Envelope
    classifier: Any

    @property
    def version(self) -> int:
        """The model's version."""
        return self.envelope.version

    def predict(self, matrix: Matrix) -> tuple[list[int], list[float | None]]:
        """Predict a batch.

        Parameters
        ----------
        matrix : ndarray of shape (records, features)
            NaN where a feature is missing.

        Returns
        -------
        labels : list of int
            1 where the probability of label 1 is above one half, or not below the envelope's
            threshold where it has one; without probabilities, what the classifier predicts.
        probabilities : list of float or None
            Probability of label 1.

        Raises
        ------
        ModelError
            When the classifier raises, or what it returns is no prediction.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if not hasattr(self.classifier, "predict_proba"):
                    labels = np.asarray(self.classifier.predict(matrix))
                    probabilities = None
                else:
                    probabilities = np.asarray(self.classifier.predict_proba(matrix))
                    if probabilities.shape != (len(matrix), 2):
                        raise ModelError(f"probabilities of shape {probabilities.shape}")
                    if not np.isfinite(probabilities).all():
                        raise ModelError("a probability that is not finite")
                    threshold = self.envelope.threshold
                    labels = (
                        probabilities[:, 1] > 0.5
                        if threshold is None
                        else probabilities[:, 1] >= threshold
                    )
        except Exception as error:  # noqa: BLE001 - a foreign model may raise anything
            raise ModelError(f"model error: {type(error).__name__}: {str(error)[:200]}") from None
        if labels.shape != (len(matrix),) or not np.isin(labels, (0, 1)).all():
            raise ModelError("model error: predictions other than one 0 or 1 a record")
        return (
            labels.astype(int).tolist(),
            [None] * len(matrix) if probabilities is None else probabilities[:, 1].tolist(),
        )


def check(envelope: Envelope, schema: Schema | None, features: int | None) -> None:
    """Check that a model fits this stream and this process, before it is unpickled.

    Parameters
    ----------
    envelope : Envelope
    schema : Schema or None
        The stream's, where there is one.
    features : int or None
        Number of features of the model being served.

    Raises
    ------
    ModelError
        Saying what does not fit.
    """
    installed = version("scikit-learn")
    if envelope.sklearn.split(".")[:2] != installed.split(".")[:2]:
        raise ModelError(f"made with scikit-learn {envelope.sklearn}, here is {installed}")
    if envelope.classes != [0, 1]:
        raise ModelError(f"classes: expected [0, 1], got {str(envelope.classes)[:100]}")
    names = envelope.feature_names
    if names is not None and len(names) != envelope.features:
        raise ModelError(f"features: {envelope.features}, but {len(names)} feature_names")
    expected = len(schema.feature_names) if schema else features
    if expected is not None and envelope.features != expected:
        raise ModelError(f"features: the stream has {expected}, the model {envelope.features}")
    if schema and names is not None and names != schema.feature_names:
        index = next(i for i, name in enumerate(names) if name != schema.feature_names[i])
        raise ModelError(
            f"feature_names: feature {index} of the stream is {schema.feature_names[index]!r},"
            f" of the model {names[index]!r}"
        )


def load(envelope: Envelope, pickle: bytes) -> Model:
    """Unpickle a model whose signature, digest and fit have been checked, and probe it.

    Raises
    ------
    ModelError
        When it is no classifier of the labels 0 and 1, or does not answer its probe.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            classifier = joblib.load(io.BytesIO(pickle))
    except Exception as error:  # noqa: BLE001 - unpickling may raise anything
        raise ModelError(f"cannot be unpickled: {type(error).__name__}: {error}"[:300]) from None
    if not hasattr(classifier, "predict"):
        raise ModelError(f"a {type(classifier).__name__} is no classifier")
    classes = np.asarray(getattr(classifier, "classes_", ()), dtype=object)
    if classes.shape != (2,) or not all(np.ndim(c) == 0 for c in classes) or [*classes] != [0, 1]:
        raise ModelError(f"a {type(classifier).__name__} does not tell label 0 from label 1")
    if envelope.threshold is not None and not hasattr(classifier, "predict_proba"):
        raise ModelError(f"threshold: a {type(classifier).__name__} gives no probabilities")
    model = Model(envelope, classifier)
    rows = np.random.default_rng(0).normal(size=(_PROBE_ROWS, envelope.features))
    rows[0] = 0.0
    if envelope.accepts_missing:
        rows[1] = np.nan
    model.predict(rows)
    return model
