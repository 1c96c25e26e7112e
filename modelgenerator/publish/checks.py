"""A model that was trained anywhere, made ready or refused with the reason; knows no Kafka."""

from __future__ import annotations

import pickle as pickles
import pickletools
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
    model = by_position(model)
    names = stream.schema.feature_names if stream.schema else None
    features = getattr(model, "n_features_in_", len(names) if names else stream.width)
    if features is None:
        raise ModelError("the model does not say how many features it takes, nor does the stream")
    envelope = replace(describe(model, features=int(features), **said), sklearn=made_with)
    classifier.check(envelope, stream.schema, stream.width)
    newest = [each.record.features for each in reversed(stream.newest)]
    envelope, remarks = tried(model, envelope, newest)
    try:
        pickle = pickled(model)
        foreign = any(a == "__main__" for _, a, _ in pickletools.genops(pickles.dumps(model)))
    except Exception as error:  # noqa: BLE001 - a foreign model may raise anything
        reason = " ".join(str(error).split())
        raise ModelError(f"cannot be pickled: {type(error).__name__}: {reason}"[:300]) from None
    if foreign:
        raise ModelError(f"it uses a class or function of {NOTEBOOK}")
    return envelope, pickle, [*remarks, *not_yet_written(envelope.trained_to, stream.newest)]
