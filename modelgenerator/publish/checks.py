"""A model that was trained anywhere, made ready for the stream or refused with the reason."""

from __future__ import annotations

import pickle as pickles
import pickletools
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from kafka import KafkaConsumer

from modelgenerator.envelope import describe, final_step, pickled
from modelgenerator.publish.by_position import by_position
from modelgenerator.publish.classifiers import check_is_classifier
from modelgenerator.publish.newest import Found, newest_records, width
from modelgenerator.settings import Settings
from stream import classifier
from stream.classifier import Model
from stream.models import Envelope, ModelError
from stream.reading import newest_schema
from stream.records import Schema
from stream.service import Fatal, Stop

LOOKED_AT = 200
"""Latest records of each partition whose commonest width is that of the stream, and how many of
all of them a model is tried on at most."""

LACKED = 100
"""First features that a model is tried without, one at a time."""


class Stream(NamedTuple):
    """What a model has to fit: the schema, and the newest records."""

    schema: Schema | None
    newest: list[Found]

    @property
    def width(self) -> int | None:
        """The commonest number of features."""
        return width(self.newest)


def read_stream(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Stream:
    """Read the schema and the newest records.

    Raises
    ------
    Fatal
        When a topic is missing.
    KafkaError
    """
    topics = {settings.data_topic, settings.schema_topic, settings.model_topic}
    missing = topics - consumer.topics()
    if missing:
        raise Fatal(
            f"{settings.kafka_bootstrap_servers}: no topic {', '.join(sorted(missing))};"
            " start the services first"
        )
    schema = newest_schema(consumer, settings, stop)
    return Stream(schema, newest_records(consumer, settings, LOOKED_AT, stop))


def prepared(model: Any, made_with: str, stream: Stream, **said: Any) -> tuple[Envelope, bytes]:
    """Return the envelope and the pickle of a model that fits the stream.

    Parameters
    ----------
    model : object
        Fitted classifier or pipeline.
    made_with : str
        The version of scikit-learn that it was made with.
    stream : Stream
    **said
        What else the envelope says, as in `describe`.

    Raises
    ------
    ModelError
        When it does not fit the stream, or cannot be pickled.
    """
    check_is_classifier(model)
    model = by_position(model)
    names = stream.schema.feature_names if stream.schema else None
    features = getattr(model, "n_features_in_", len(names) if names else stream.width)
    if features is None:
        raise ModelError("the model does not say how many features it takes, nor does the stream")
    if said["threshold"] is None:
        said["threshold"] = _own_threshold(model)
    envelope = replace(describe(model, features=int(features), **said), sklearn=made_with)
    if not _answers(model, envelope):
        envelope = _tried_on_a_record(model, envelope, stream.newest)
    classifier.check(envelope, stream.schema, stream.width)
    try:
        pickle = pickled(model)
        foreign = any(a == "__main__" for _, a, _ in pickletools.genops(pickles.dumps(model)))
    except Exception as error:  # noqa: BLE001 - a foreign model may raise anything
        raise ModelError(f"cannot be pickled: {type(error).__name__}: {error}"[:300]) from None
    if foreign:
        raise ModelError(
            "it uses a class or function of __main__, the notebook or script, which predictors do"
            " not have; put it in a package that is installed there"
        )
    return envelope, pickle


def _answers(model: Any, envelope: Envelope) -> bool:
    try:
        Model(envelope, model).predict(classifier.probe(envelope))
    except ModelError:
        return False
    return True


def _tried_on_a_record(model: Any, envelope: Envelope, newest: Sequence[Found]) -> Envelope:
    """Take the newest record that the model predicts as its probe, if there is one.

    Nulls are accepted where it predicts that record without one of its features.
    """
    rows = (each.record.features for each in reversed(newest))
    for row in islice((row for row in rows if len(row) == envelope.features), LOOKED_AT):
        tried = replace(envelope, probe=list(row))
        if _answers(model, tried):
            lacking = ([*row[:i], None, *row[i + 1 :]] for i in range(min(len(row), LACKED)))
            missing = any(_answers(model, replace(envelope, probe=each)) for each in lacking)
            return replace(tried, accepts_missing=missing)
    return envelope


def _own_threshold(model: Any) -> float | None:
    """Return the threshold that scikit-learn's threshold classifiers carry, as the stream uses it.

    Raises
    ------
    ModelError
        When it is not one of the probability of label 1.
    """
    final = final_step(model)
    threshold = getattr(final, "best_threshold_", getattr(final, "threshold", None))
    if not isinstance(threshold, (float, int)) or not hasattr(model, "predict_proba"):
        return None
    if getattr(final, "response_method", "auto") == "decision_function" or final.pos_label == 0:
        raise ModelError(
            f"the threshold of a {type(final).__name__} has to be one of the probability of label 1"
        )
    return float(threshold)
