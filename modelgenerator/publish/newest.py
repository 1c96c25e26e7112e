"""What the topics say a model has to fit: the schema, and the newest records to try it on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from heapq import heappop, heappush
from typing import NamedTuple

from kafka import KafkaConsumer

from modelgenerator.envelope import highest_offsets
from modelgenerator.scan import scan
from modelgenerator.settings import Settings
from modelgenerator.trial import record_limit
from stream.reading import newest_schema
from stream.records import Record, RecordError, Schema, decode_record
from stream.service import Fatal, Stop

LOOKED_AT = 200
"""Latest records of each partition whose commonest width is that of a stream without schema."""

CELLS, CELL_BYTES = 2**22, 32
"""Features of all records that are held, at most; long texts count as several."""


class Found(NamedTuple):
    """A valid record and its place on the data topic."""

    partition: int
    offset: int
    timestamp: int
    record: Record


def newest_records(
    consumer: KafkaConsumer, settings: Settings, count: int, stop: Stop
) -> list[Found]:
    """Return the valid records among the latest `count` of each partition, oldest first.

    Of records with many features, it is only the newest that have `CELLS` together.
    """
    topic = settings.data_topic
    found: list[tuple[int, int, int, Found]] = []  # a heap by time and order
    cells, order = 0, itertools.count()
    for read in scan(consumer, topic, consumer.partitions_for_topic(topic) or (), count, stop):
        with suppress(RecordError):  # the predictor rejects it
            record = decode_record(read.value)
            each = Found(read.partition, read.offset, read.timestamp, record)
            size = max(len(record.features), len(read.value) // CELL_BYTES)
            heappush(found, (read.timestamp, next(order), size, each))
            cells += size
        while cells > CELLS:
            cells -= heappop(found)[2]
    return [each for *_, each in sorted(found)]


class Stream(NamedTuple):
    """What a model has to fit: the schema, the newest records, its width or their commonest."""

    schema: Schema | None
    newest: list[Found]
    width: int | None


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
    newest = newest_records(consumer, settings, LOOKED_AT, stop)
    widths = Counter(len(each.record.features) for each in newest)
    width = max(widths, key=widths.__getitem__, default=None)
    if schema:
        width = len(schema.feature_names)  # a record by name may leave some out
    if width and len(newest) < (count := record_limit(width)):
        of_each = -(-count // len(consumer.partitions_for_topic(settings.data_topic)))
        newest = newest_records(consumer, settings, max(LOOKED_AT, of_each), stop)
    return Stream(schema, newest, width)


def not_yet_written(trained_to: Mapping[str, int], found: list[Found]) -> Iterator[str]:
    """Yield a line for each partition whose records are said to be trained on before they exist."""
    for partition, offset in highest_offsets((f.partition, f.offset) for f in found).items():
        if (highest := trained_to.get(partition, -1)) > offset:
            yield (
                f"the newest record of partition {partition} has offset {offset}: those up to"
                f" {highest} will not be counted; was the model trained on another topic?"
            )
