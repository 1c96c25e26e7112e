"""What stands on the topics at the start: schema, model being served, models of former concepts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import sklearn
from kafka import KafkaConsumer, TopicPartition

from estimators.vote import Vote
from modelgenerator.schema_feed import look_up_schema
from modelgenerator.settings import Settings
from modelgenerator.training.archive import KEPT, Frozen, VotePlace
from modelgenerator.verdicts import served_model
from stream import classifier, clients, layout
from stream.layout import Layout
from stream.model_topic import ModelTopic
from stream.models import Envelope, Former, ModelError
from stream.service import Stop

log = logging.getLogger("modelgenerator")

RECORDS = 8, 64
"""Records of the model topic that are read to find a vote, from where it should stand on: first a
few."""


class Before(NamedTuple):
    """What a trainer goes on with.

    Attributes
    ----------
    layout : Layout
        How records are laid out.
    trained_to : dict of str to int, or None
        What the model being served was trained to, by partition. ``None`` if any new model is
        better than it.
    archive : list of Frozen
        Models of former concepts.
    """

    layout: Layout
    trained_to: dict[str, int] | None = None
    archive: Sequence[Frozen] = ()


def look_back(settings: Settings, stop: Stop, afresh: bool) -> Before:
    """Read what a trainer goes on with; only the layout if it starts `afresh`.

    Raises
    ------
    KafkaError
    Stopped
    """
    with clients.closing(clients.consumer(settings)) as consumer:
        found = layout.of(look_up_schema(consumer, settings, stop))
        served = None if afresh else _served(consumer, settings, found, stop)
        if not served:
            return Before(found)
        return Before(found, served.trained_to, _formers(consumer, settings, served, stop))


def _served(
    consumer: KafkaConsumer, settings: Settings, types: Layout, stop: Stop
) -> Envelope | None:
    """Return what the model being served is.

    ``None`` if any new model is better than it: it was trained on another data topic, it takes
    features of another number or of other types than `types`, it was made with another
    scikit-learn, or there is none.
    """
    models = ModelTopic(settings, consumer, stop, settings.trusted_keys)
    newest = served_model(models, consumer, settings, stop)
    if newest is None or newest.envelope.sklearn != sklearn.__version__:
        return None
    if types.width not in (None, newest.envelope.features):
        return None
    if types.types != newest.envelope.layout.types:
        return None
    topic, trained_to = settings.data_topic, newest.envelope.trained_to
    partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
    found = consumer.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
    ends = {str(partition.partition): end for partition, end in found.items()}
    of_this_topic = all(offset < ends.get(p, 0) for p, offset in trained_to.items())
    return newest.envelope if of_this_topic else None


def _formers(
    consumer: KafkaConsumer, settings: Settings, served: Envelope, stop: Stop
) -> list[Frozen]:
    """Return the models that the envelope of the model being served names, as far as they stand.

    The votes that hold them are verified like any other model.
    """
    named = (served.archive or [])[-KEPT:] if settings.archive else []
    topic = ModelTopic(settings, consumer, stop, settings.trusted_keys)
    found = []
    for former in named:
        try:
            found.append(_read(topic, settings, served, former, stop))
        except ModelError as error:
            log.warning(
                "the model of a former concept, %s of model %d, will not come back: %s",
                *(former.recipe, former.version, error),
            )
    if found:
        log.info("models of former concepts that may come back: %d", len(found))
    return found


def _read(
    topic: ModelTopic, settings: Settings, served: Envelope, former: Former, stop: Stop
) -> Frozen:
    for count in RECORDS:
        topic.read(former.after, count)
        stored = topic.index.find(former.version)
        if stored and stored.whole:
            break
    else:
        gone = f"{settings.model_topic} has it no more"
        raise ModelError(stored.missing if stored else gone)
    envelope, pickle = topic.get(former.version)
    classifier.check(envelope, None, served.features)
    types = served.layout.types  # without them, names say nothing to a model
    if envelope.layout.types != types or (types and envelope.feature_names != served.feature_names):
        raise ModelError("its features are not those of the stream")
    vote = classifier.load_within(settings, stop, envelope, pickle).classifier
    if not isinstance(vote, Vote) or former.recipe not in vote.members:
        raise ModelError("it is no vote with such a member")
    place = VotePlace(former.version, former.after)
    return Frozen(former.recipe, vote.members[former.recipe], former.accuracy, place)
