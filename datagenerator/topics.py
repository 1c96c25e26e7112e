"""What the topics hold when the datagenerator starts or resumes."""

from __future__ import annotations

import logging
from functools import partial

from kafka import KafkaConsumer, TopicPartition

from datagenerator.outbox import Outbox
from datagenerator.resume import Tail, mismatch, next_ids
from datagenerator.settings import Settings
from stream.clients import admin, closing, consumer
from stream.reading import bounds, last_readable, newest, newest_schema
from stream.records import Record, RecordError, Schema, decode_record, encode_schema
from stream.service import Fatal, Stop
from stream.topics import ensure_topics, partition_counts

SCHEMA_KEY = b"schema"


def prepare(
    settings: Settings, schema: Schema, outbox: Outbox, stop: Stop, log: logging.Logger
) -> list[int]:
    """Create missing topics, write the schema to its own, return each partition's next id.

    Raises
    ------
    Fatal
        When the topics have another schema or number of features than `schema`.
    KafkaError, Stopped
    """
    topic = settings.data_topic
    with closing(admin(settings)) as client, closing(consumer(settings)) as reader:
        ensure_topics(client, settings, log)
        count = partition_counts(client, [topic])[topic]
        tails = [_tail(reader, TopicPartition(topic, number), stop) for number in range(count)]
        found = newest_schema(reader, settings, stop)
    if problem := mismatch(topic, settings.schema_topic, schema, found, tails):
        raise Fatal(problem)
    if found is None:
        outbox.send(settings.schema_topic, encode_schema(schema), partition=0, key=SCHEMA_KEY)
        outbox.flush()
    return next_ids(tails)


def _tail(reader: KafkaConsumer, partition: TopicPartition, stop: Stop) -> Tail:
    _, end = bounds(reader, partition)
    last = newest(reader, partition, partial(last_readable, decode_record), stop)
    # Another producer's ids may be strings, and this service's records may be before them.
    numbered = last
    if last and not _is_number(last.id):
        numbered = newest(reader, partition, partial(last_readable, _decode_numbered), stop)
    return Tail(end, int(numbered.id) if numbered else None, len(last.features) if last else None)


def _decode_numbered(value: bytes | None) -> Record:
    record = decode_record(value)
    if not _is_number(record.id):
        raise RecordError("id: expected 0 or more")
    return record


def _is_number(id: int | str) -> bool:
    return isinstance(id, int) and id >= 0
