"""The newest records of the data topic, to try a model on."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from kafka import KafkaConsumer

from modelgenerator.scan import scan
from modelgenerator.settings import Settings
from stream.records import Record, RecordError, decode_record
from stream.service import Stop


class Found(NamedTuple):
    """A valid record and its place on the data topic."""

    partition: int
    offset: int
    timestamp: int
    record: Record


def newest_records(
    consumer: KafkaConsumer, settings: Settings, count: int, stop: Stop
) -> list[Found]:
    """Return the valid records among the latest `count` of each partition, oldest first."""
    topic, found = settings.data_topic, []
    for read in scan(consumer, topic, consumer.partitions_for_topic(topic) or (), count, stop):
        with suppress(RecordError):  # the predictor rejects it
            record = decode_record(read.value)
            found.append(Found(read.partition, read.offset, read.timestamp, record))
    return sorted(found, key=lambda each: each.timestamp)


def width(found: list[Found]) -> int | None:
    """Return the commonest number of features, ``None`` if there are no records."""
    counts = Counter(len(each.record.features) for each in found)
    return counts.most_common(1)[0][0] if counts else None
