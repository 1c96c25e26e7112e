"""What stands on the topics when the datagenerator starts."""

from __future__ import annotations

import logging
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from datagenerator.outbox import Outbox
from datagenerator.resume import Tail, misfit, next_ids
from datagenerator.settings import Settings
from stream.clients import admin, close, consumer
from stream.reading import bounds, newest
from stream.records import (
    Record,
    RecordError,
    Schema,
    decode_record,
    decode_schema,
    encode_schema,
)
from stream.service import Fatal, Stop
from stream.topics import ensure_topics, partition_counts

SCHEMA_KEY = b"schema"


def prepare(
    settings: Settings, schema: Schema, outbox: Outbox, stop: Stop, log: logging.Logger
) -> list[int]:
    """Make the topics, put the schema on its own, return the next id of each data partition.

    Raises
    ------
    Fatal
        When the topics carry another schema or width than `schema`.
    KafkaError, Stopped
    """
    client = reader = None
    try:
        client, reader = admin(settings), consumer(settings)
        ensure_topics(client, settings, log)
        count = partition_counts(client, [settings.data_topic])[settings.data_topic]
        tails = [_tail(reader, TopicPartition(settings.data_topic, p), stop) for p in range(count)]
        found = newest(reader, TopicPartition(settings.schema_topic, 0), _newest_schema, stop)
    finally:
        close(reader, client)
    problem = misfit(settings.data_topic, settings.schema_topic, schema, found, tails)
    if problem:
        raise Fatal(problem)
    if found is None:
        outbox.send(settings.schema_topic, encode_schema(schema), partition=0, key=SCHEMA_KEY)
        outbox.settle()
    return next_ids(tails)


def _tail(reader: KafkaConsumer, partition: TopicPartition, stop: Stop) -> Tail:
    _, end = bounds(reader, partition)
    last = newest(reader, partition, _newest_record, stop)
    # Somebody else's records may have names for ids, and ours may stand before them.
    numbered = (
        last
        if last is None or _has_number(last)
        else newest(reader, partition, lambda records: _newest_record(records, _has_number), stop)
    )
    return Tail(
        end,
        int(numbered.id) if numbered else None,
        len(last.features) if last else None,
    )


def _newest_record(records: list[Any], wanted: Any = lambda record: True) -> Record | None:
    for message in reversed(records):
        try:
            record = decode_record(message.value)
        except RecordError:
            continue
        if wanted(record):
            return record
    return None


def _has_number(record: Record) -> bool:
    return isinstance(record.id, int) and record.id >= 0


def _newest_schema(records: list[Any]) -> Schema | None:
    for message in reversed(records):
        try:
            return decode_schema(message.value)
        except RecordError:
            continue
    return None
