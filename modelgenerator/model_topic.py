"""What is on the model topic, and what predictors said of it, as a publisher looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import sklearn
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from modelgenerator.settings import Settings
from stream import clients, reading
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, unpack, verify
from stream.records import LARGEST_VERSION, RecordError, Status, decode_status
from stream.service import Fatal, Stop

STATUSES = 1_000
"""Latest records of the status topic that are looked through."""

FALLEN = ("refused", "barred")
"""Statuses of a model that is not served."""

HIDDEN_SECONDS = 3.0
"""How long the end of a transaction is waited for that hides the newest records."""


def newest_envelope(
    consumer: KafkaConsumer,
    settings: Settings,
    stop: Stop,
    wanted: Callable[[Envelope], bool] = lambda _: True,
) -> Envelope | None:
    """Return the highest version that a trusted key signed, however many old ones were replayed.

    It looks back from the end, further and further, until nothing newer can stand before.

    Parameters
    ----------
    consumer : KafkaConsumer
    settings : Settings
    stop : Stop
    wanted : callable
        Tells which models are looked for; all, where none is given.
    """
    trusted, place = TrustedKeys(settings.trusted_keys), TopicPartition(settings.model_topic, 0)
    beginning, end = reading.bounds(consumer, place)
    start, length, best = end, 8, None
    while start > beginning:
        start, length = max(beginning, end - length), 8 * length
        complete_from: float = math.inf
        for record in reading.read_range(consumer, place, start, end, stop):
            with suppress(ModelError):
                verify(record.value, record.headers, trusted)
                part = unpack(record.value)
                if part.stood_at(record.offset) >= start:
                    complete_from = min(complete_from, part.envelope.version)
                if wanted(part.envelope) and (not best or part.envelope.version > best.version):
                    best = part.envelope
        if best and complete_from <= best.version:
            break
    return best


def settled_end(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> int:
    """Return the end of the model topic, once no open transaction hides anything before it.

    Raises
    ------
    KafkaError
        When one does, for longer than ours takes to end: it may hide the newest version.
    """
    place = TopicPartition(settings.model_topic, 0)
    all_seeing = clients.consumer(settings, isolation_level="read_uncommitted")
    try:
        end = reading.bounds(all_seeing, place)[1]
    finally:
        clients.close(all_seeing)
    waited = 0.0
    while (seen := reading.bounds(consumer, place)[1]) < end:
        if waited >= HIDDEN_SECONDS:
            raise KafkaError(f"another producer's transaction is open, from offset {seen} on")
        stop.wait(0.1)
        waited += 0.1
    return end


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
    beginning, end = reading.bounds(consumer, place)
    trusted = TrustedKeys(settings.trusted_keys)
    before, length, reason = end, 8, "not on the topic, or not signed by a trusted key"
    while before > beginning:
        start = max(beginning, before - length)
        for offset in [
            record.offset
            for record in reading.read_range(consumer, place, start, before, stop)
            if _part_of(record, trusted) == (version, 1)
        ]:
            assembler = Assembler(settings.model_max_bytes)
            try:
                for record in reading.read_range(consumer, place, offset, end, stop):
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
    start, end = reading.bounds(consumer, partition)
    for record in reading.read_range(consumer, partition, max(start, end - STATUSES), end, stop):
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
