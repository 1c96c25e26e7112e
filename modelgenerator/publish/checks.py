"""A model that was trained anywhere, made ready or refused with the reason; knows no Kafka."""

from __future__ import annotations

import pickle as pickles
import pickletools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from modelgenerator.envelope import describe, pickled
from modelgenerator.publish.by_position import by_position
from modelgenerator.publish.classifiers import check_is_classifier
from modelgenerator.publish.model_files import NOTEBOOK
from modelgenerator.publish.newest import Stream, not_yet_written
from modelgenerator.trial import tried
from stream import classifier
from stream.models import Envelope, ModelError
from stream.quoting import one_line, shown
from stream.records import Cell, RecordError, Schema, normal


def prepared(
    model: Any, made_with: str, stream: Stream, **said: Any
) -> tuple[Envelope, bytes, list[str]]:
    """Return the envelope and the pickle of a model that fits the stream, and remarks on it.

    Parameters
    ----------
    made_with : str
        The version of scikit-learn that it was made with.
    **said
        What else the envelope says, as in `describe`.

    Raises
    ------
    ModelError
        When it does not fit the stream, gives no firm answers, or cannot be pickled.
    """
    check_is_classifier(model)
    schema = stream.schema
    if "category" not in (schema.types if schema and schema.types else ()):
        model = by_position(model)  # it gets arrays
    if schema and (names := getattr(model, "feature_names_in_", None)) is not None:
        _check_names(names, schema)
    features = getattr(model, "n_features_in_", stream.width)
    if features is None:
        raise ModelError("the model does not say how many features it takes, nor does the stream")
    described = describe(model, features=int(features), schema=schema, **said)
    envelope = replace(described, sklearn=made_with)
    classifier.check(envelope, schema, stream.width)
    envelope, remarks = tried(model, envelope, [*_rows(envelope, stream)])
    try:
        pickle = pickled(model)
        foreign = any(a == "__main__" for _, a, _ in pickletools.genops(pickles.dumps(model)))
    except Exception as error:  # noqa: BLE001 - a foreign model may raise anything
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot be pickled: {type(error).__name__}: {reason}"[:300]) from None
    if foreign:
        raise ModelError(f"it uses a class or function of {NOTEBOOK}")
    return envelope, pickle, [*remarks, *not_yet_written(envelope.trained_to, stream.newest)]


def _check_names(names: Sequence[str], schema: Schema) -> None:
    """Check that a model knows the columns of the stream, and no others."""
    of_model, of_stream = {*map(normal, names)}, {*map(normal, schema.feature_names)}
    problems = [f"the model lacks {shown(name)}" for name in sorted(of_stream - of_model)]
    problems += [f"the stream has no {shown(name)}" for name in sorted(of_model - of_stream)]
    if problems:
        raise ModelError(one_line(f"feature_names: {', '.join(problems)}", 300))


def _rows(envelope: Envelope, stream: Stream) -> Iterator[Sequence[Cell]]:
    """Yield the newest records as the model takes them, the newest first."""
    for each in reversed(stream.newest):
        with suppress(RecordError):  # the predictor rejects it
            yield envelope.layout.read(each.record).features
