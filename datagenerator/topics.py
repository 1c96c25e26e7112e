"""What the topics hold when the datagenerator starts or resumes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from datagenerator.outbox import Outbox
from datagenerator.resume import Tail, mismatch, next_ids
from datagenerator.settings import Settings
from stream.clients import admin, closing, consumer
from stream.reading import bounds, last_readable, newest, newest_schema
from stream.records import RecordError, Schema, decode_record, encode_schema
from stream.service import Fatal, Stop
from stream.topics import ensure_topics, partition_counts

SCHEMA_KEY = b"schema"


def prepare(
    settings: Settings, schema: Schema, outbox: Outbox, stop: Stop, log: logging.Logger
) -> list[int]:
    """Create missing topics, write the schema to its own, return the partitions' next ids.

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
        first = next_ids(tails, partial(_newest_misplaced, reader, topic, count, stop))
    if problem := mismatch(topic, settings.schema_topic, schema, found, tails):
        raise Fatal(problem)
    if found is None:
        outbox.send(settings.schema_topic, encode_schema(schema), partition=0, key=SCHEMA_KEY)
        outbox.flush()
    return first


def _tail(reader: KafkaConsumer, place: TopicPartition, stop: Stop) -> Tail:
    _, end = bounds(reader, place)
    last = newest(reader, place, partial(last_readable, decode_record), stop)
    ids: deque[int] = deque(maxlen=2)

    def two_ids(records: Iterator[Any]) -> bool | None:
        ids.clear()  # of a shorter range
        ids.extend(_ids(records))
        return len(ids) == 2 or None

    newest(reader, place, two_ids, stop)
    id, before, *_ = *reversed(ids), None, None
    return Tail(end, id, len(last.features) if last else None, before)


def _newest_misplaced(reader: KafkaConsumer, topic: str, count: int, stop: Stop) -> int:
    """Return the highest id that is on another partition than ``id % count``, -1 without one."""
    found = -1
    for p in range(count):

        def misplaced(records: Iterator[Any], p: int = p) -> int | None:
            return max((id for id in _ids(records) if id % count != p), default=None)

        newer = newest(reader, TopicPartition(topic, p), misplaced, stop)
        found = found if newer is None else max(found, newer)
    return found


def _ids(records: Iterable[Any]) -> Iterator[int]:
    """Yield the ids that are numbers; another producer's may be strings."""
    for record in records:
        with suppress(RecordError):
            id = decode_record(record.value).id
            if isinstance(id, int) and id >= 0:
                yield id
