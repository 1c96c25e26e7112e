"""The newest records of the data topic, to try a model on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.settings import Settings
from stream import reading
from stream.records import Record, RecordError, decode_record
from stream.service import Stop


class Found(NamedTuple):
    """A valid record and its place on the data topic."""

    partition: int
    offset: int
    timestamp: int
    record: Record


def newest_records(
    consumer: KafkaConsumer,
    settings: Settings,
    count: int,
    stop: Stop,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Found]:
    """Return the valid records among the latest `count` of each partition, oldest first.

    Parameters
    ----------
    progress : callable, optional
        Given 1 for each record read.
    """
    found = []
    for number in sorted(consumer.partitions_for_topic(settings.data_topic) or ()):
        place = TopicPartition(settings.data_topic, number)
        start, end = reading.bounds(consumer, place)
        for read in reading.read_range(consumer, place, max(start, end - count), end, stop):
            progress(1)
            with suppress(RecordError):  # the predictor rejects it
                record = decode_record(read.value)
                found.append(Found(number, read.offset, read.timestamp, record))
    return sorted(found, key=lambda each: each.timestamp)


def width(found: list[Found]) -> int | None:
    """Return the commonest number of features, ``None`` if there are no records."""
    counts = Counter(len(each.record.features) for each in found)
    return counts.most_common(1)[0][0] if counts else None
