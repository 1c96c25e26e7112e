"""The newest records of the data topic, to try a model on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
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


def not_yet_written(trained_to: Mapping[str, int], found: list[Found]) -> Iterator[str]:
    """Yield a line for each partition whose records are said to be trained on before they exist."""
    newest: dict[int, int] = {}
    for each in found:
        newest[each.partition] = max(each.offset, newest.get(each.partition, 0))
    for partition, offset in newest.items():
        if (highest := trained_to.get(str(partition), -1)) > offset:
            yield (
                f"the newest record of partition {partition} has offset {offset}: those up to"
                f" {highest} will not be counted; was the model trained on another topic?"
            )
