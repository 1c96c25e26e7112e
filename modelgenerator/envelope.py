"""What a model is: its envelope, its pickle, and the check of both before it is published."""

from __future__ import annotations

import pickle
import platform
import zlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn

from stream import classifier
from stream.classifier import Model
from stream.models import PART_BYTES, Envelope, ModelError, pack, unpack
from stream.records import Schema
from stream.service import Stop
from stream.settings import ModelLimits
from stream.times import now

MESSAGE_BYTES = 1_000_000
"""What a broker takes as one message by default, with some room."""


def describe(
    model: Any,
    *,
    features: int | None = None,
    schema: Schema | None = None,
    **said: Any,
) -> Envelope:
    """Say what a fitted classifier is; `tried` adds how it is served, `Publisher` the version.

    Parameters
    ----------
    model : object
        Fitted scikit-learn classifier or pipeline, with classes 0 and 1.
    features : int, optional
        Their number; by default the model's own.
    schema : Schema, optional
        The stream's: it gives types and label texts, and names if the model knows none.
    **said
        What its publisher says of it, as in `Envelope`: `recipe`, `reason`, `trained_on`,
        `trained_to`, `recipe_accuracy`, `threshold`, `pinned`.
    """
    features = int(model.n_features_in_) if features is None else features
    final = model
    while hasattr(final, "steps"):
        final = final.steps[-1][1]
    own_names = getattr(model, "feature_names_in_", None)
    names = schema.feature_names if schema and own_names is None else own_names
    return Envelope(
        version=0,
        algorithm=type(final).__name__,
        features=features,
        feature_names=None if names is None else [str(name) for name in names],
        types=schema.types if schema else None,
        positive=schema.positive if schema and schema.negative is not None else None,
        negative=schema.negative if schema else None,
        classes=sorted(int(label) for label in model.classes_),
        accepts_missing=False,
        restores=None,
        created=now(),
        sklearn=sklearn.__version__,
        numpy=np.__version__,
        python=".".join(platform.python_version_tuple()[:2]),
        **{"recipe_accuracy": None, **said},
    )


def highest_offsets(places: Iterable[tuple[int | str, int]]) -> dict[str, int]:
    """Return the highest offset of each partition, as `trained_to` of an envelope has it."""
    highest: dict[str, int] = {}
    for partition, offset in places:
        highest[str(partition)] = max(offset, highest.get(str(partition), offset))
    return highest


def pickled(model: Any) -> bytes:
    """Return the model as a pickle that is compressed with zlib, as `joblib.load` reads it, too."""
    packed = _Packed()
    pickle.Pickler(packed, protocol=5).dump(model)
    return packed.end()


class _Packed:
    """A file that compresses what is written, so that a large pickle is never held as a whole."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(3)
        self._parts: list[bytes] = []

    def write(self, data: Any) -> None:
        self._parts.append(self._packer.compress(data))

    def end(self) -> bytes:
        return b"".join([*self._parts, self._packer.flush()])


def check(
    limits: ModelLimits, envelope: Envelope, pickle: bytes, schema: Schema | None, stop: Stop
) -> Model:
    """Check a model as a predictor does before it serves it, and load it.

    Raises
    ------
    ModelError
        When predictors would refuse it, or its envelope is too large for a message.
    Stopped
    """
    (message,) = pack(replace(envelope, version=1), b"", None)
    unpack(message.value)  # a reader checks each field
    if len(message.value) + 4 * PART_BYTES // 3 > MESSAGE_BYTES:  # base64 takes 4 bytes for 3
        raise ModelError(f"envelope: {len(message.value)} bytes, too many for a message")
    classifier.check(envelope, schema, None)
    return classifier.load_within(limits, stop, envelope, pickle)
