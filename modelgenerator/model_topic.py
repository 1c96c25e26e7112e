"""What is on the model topic, and what predictors said of it, as a publisher looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import sklearn
from kafka import KafkaConsumer, TopicPartition

from modelgenerator.settings import Settings
from stream import clients
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, unpack, verify
from stream.records import LARGEST_VERSION, RecordError, Status, decode_status
from stream.service import Fatal, Stop

STATUSES = 1_000
"""Latest records of the status topic that are looked through."""

FALLEN = ("refused", "barred")
"""Statuses of a model that is not served."""


def newest_envelope(
    consumer: KafkaConsumer,
    settings: Settings,
    stop: Stop,
    wanted: Callable[[Envelope], bool] = lambda _: True,
) -> Envelope | None:
    """Return the highest version among the newest records that a trusted key signed.

    Parameters
    ----------
    consumer : KafkaConsumer
    settings : Settings
    stop : Stop
    wanted : callable
        Tells which models are looked for; all, where none is given.
    """
    trusted = TrustedKeys(settings.trusted_keys)

    def highest(records: list[Any]) -> Envelope | None:
        found = []
        for record in records:
            with suppress(ModelError):
                verify(record.value, record.headers, trusted)
                found.append(unpack(record.value).envelope)
        return max(filter(wanted, found), key=lambda envelope: envelope.version, default=None)

    return clients.newest(consumer, TopicPartition(settings.model_topic, 0), highest, stop)


def trained_already(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> dict[str, int]:
    """Return what the newest published model was trained to, by partition.

    Empty where no model is published that this data topic and this scikit-learn can be served
    with: then any model is better.
    """
    newest = newest_envelope(consumer, settings, stop)
    if newest is None or newest.sklearn != sklearn.__version__:
        return {}
    topic = settings.data_topic
    partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
    ends = {
        str(partition.partition): end
        for partition, end in consumer.end_offsets(
            partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS
        ).items()
    }
    of_another_topic = any(offset >= ends.get(p, 0) for p, offset in newest.trained_to.items())
    return {} if of_another_topic else newest.trained_to


def stored(
    consumer: KafkaConsumer, settings: Settings, version: int, stop: Stop
) -> tuple[Envelope, bytes]:
    """Return a model of the topic with its pickle, signature and digest checked, not unpickled.

    Where a version stands there more than once, for instance replayed, its latest is taken: the
    signature says that it is the same one.

    Raises
    ------
    Fatal
        When the topic has no such model that is whole and signed by a trusted key.
    """
    place = TopicPartition(settings.model_topic, 0)
    beginning, end = clients.bounds(consumer, place)
    trusted = TrustedKeys(settings.trusted_keys)
    before, length, reason = end, 8, "not on the topic, or not signed by a trusted key"
    while before > beginning:
        start = max(beginning, before - length)
        for offset in [
            record.offset
            for record in clients.read_range(consumer, place, start, before, stop)
            if _part_of(record, trusted) == (version, 1)
        ]:
            assembler = Assembler(settings.model_max_bytes)
            try:
                for record in clients.read_range(consumer, place, offset, end, stop):
                    if (_part_of(record, trusted) or (0,))[0] == version:
                        whole = assembler.add(unpack(record.value))
                        if whole:
                            return whole
            except ModelError as error:
                reason = str(error)
        before, length = start, 8 * length
    raise Fatal(f"{settings.model_topic}: model {version}: {reason}")


def _part_of(record: Any, trusted: TrustedKeys) -> tuple[int, int] | None:
    with suppress(ModelError):
        verify(record.value, record.headers, trusted)
        part = unpack(record.value)
        return part.envelope.version, part.part
    return None


def statuses(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Iterator[Status]:
    """Yield what predictors said lately, oldest first."""
    partition = TopicPartition(settings.status_topic, 0)
    start, end = clients.bounds(consumer, partition)
    for record in clients.read_range(consumer, partition, max(start, end - STATUSES), end, stop):
        with suppress(RecordError):
            yield decode_status(record.value)


def serving(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Envelope | None:
    """Return the model that predictors serve: the newest that none has refused or barred."""
    found = statuses(consumer, settings, stop)
    fallen = {status.version for status in found if status.status in FALLEN}
    return newest_envelope(consumer, settings, stop, lambda e: e.version not in fallen)


def last_version(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> int:
    """Return the highest version that a predictor has lately told of, 0 if none has."""
    versions = (status.version for status in statuses(consumer, settings, stop))
    return max((version for version in versions if version < LARGEST_VERSION), default=0)
