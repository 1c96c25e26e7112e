"""What the topics hold when the datagenerator starts or resumes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from datagenerator.late_labels import LateLabels
from datagenerator.outbox import MAX_UNACKNOWLEDGED, Outbox
from datagenerator.resume import Tail, mismatch, next_ids
from datagenerator.settings import Settings
from stream.clients import REQUEST_TIMEOUT_MS, admin, closing, consumer
from stream.reading import bounds, last_readable, newest, newest_schema, read_range
from stream.records import RecordError, Schema, decode_label, decode_record, encode_schema
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


def unlabelled(
    settings: Settings, count: int, late: LateLabels, stop: Stop
) -> dict[int, tuple[int, float]]:
    """Return the records whose labels are to be sent: partition and time in s, by their numbers.

    It reads back as far as a label may be missing. What was sent and not acknowledged may be, too.

    Raises
    ------
    KafkaError, Stopped
    """
    found: dict[int, tuple[int, float]] = {}
    with closing(consumer(settings, max_poll_records=5_000)) as reader:
        places = [TopicPartition(settings.data_topic, p) for p in range(count)]
        newest_times = [newest(reader, place, _newest_time, stop) or 0 for place in places]
        reach = int(max(newest_times) - 1_000 * late.longest)
        for place in places:
            start, end = bounds(reader, place, stop)
            back = end - MAX_UNACKNOWLEDGED - late.records // count
            first = max(start, min(_offset_at(reader, place, reach, end), back))
            sent = list(_without_label(read_range(reader, place, first, end, stop)))
            if not sent:
                continue
            found |= {id: (place.partition, time / 1_000) for id, time in sent}
            labels = TopicPartition(settings.label_topic, place.partition)
            _, end = bounds(reader, labels, stop)
            first = _offset_at(reader, labels, min(time for _, time in sent), end)
            for record in read_range(reader, labels, first, end, stop):
                with suppress(RecordError):
                    if isinstance(id := decode_label(record.value).id, int):
                        found.pop(id, None)
    return found


def _without_label(records: Iterable[Any]) -> Iterator[tuple[int, int]]:
    """Yield id and timestamp in ms of the records that carry no label."""
    for record in records:
        with suppress(RecordError):
            found = decode_record(record.value)
            if isinstance(found.id, int) and found.label is None:
                yield found.id, record.timestamp


def _newest_time(records: Iterable[Any]) -> int | None:
    return max((record.timestamp for record in records), default=None)


def _offset_at(reader: KafkaConsumer, place: TopicPartition, time: int, end: int) -> int:
    """Return the first offset with this timestamp in ms or a later one; `end` without one."""
    at = reader.offsets_for_times({place: max(0, time)}, timeout_ms=REQUEST_TIMEOUT_MS)[place]
    return at.offset if at else end


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
