"""What the topics hold when the datagenerator starts or resumes."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from datagenerator.outbox import MAX_UNACKNOWLEDGED, ROW_HEADER, Outbox
from datagenerator.resume import Tail, mismatch, next_ids, own_ids
from datagenerator.rows import Source
from datagenerator.settings import Settings
from stream.clients import admin, closing, consumer
from stream.reading import bounds, newest, newest_schema, newest_time, offset_at, read_range
from stream.records import Id, Record, RecordError, decode_label, decode_record, encode_schema
from stream.service import Fatal, Stop, shared_warnings
from stream.topics import ensure_topics, partition_counts

SCHEMA_KEY = b"schema"

MAX_ID = 2**53
"""Ids of an endless source are below it; many readers of JSON round larger integers."""

LOOKED_AT = 64
"""Ids at the end of a partition that are looked at."""


def prepare(
    settings: Settings, source: Source, outbox: Outbox, stop: Stop, log: logging.Logger
) -> list[int]:
    """Create missing topics, write the schema to its own, return the partitions' next ids.

    Raises
    ------
    Fatal
        When the topics have another schema or number of features than `source`.
    KafkaError, Stopped
    """
    topic, finite = settings.data_topic, source.size if not settings.repeat else None
    with closing(admin(settings)) as client, closing(consumer(settings)) as reader:
        ensure_topics(client, settings, log)
        count = partition_counts(client, [topic])[topic]
        places = [TopicPartition(topic, number) for number in range(count)]
        ends = [bounds(reader, place, stop)[1] for place in places]
        # Each id before a lone one is on the topic, or on its way. Where the source ends, records
        # of somebody else would take the place of its own; an endless one goes on above them.
        lone_limit = sum(ends) + (count if finite else MAX_UNACKNOWLEDGED)
        own = partial(own_ids, partitions=count, lone_limit=lone_limit)
        tails = [
            _tail(reader, place, end, finite or MAX_ID, own, stop, log)
            for place, end in zip(places, ends, strict=True)
        ]
        found = newest_schema(reader, settings, stop)
        most = max((tail.id for tail in tails if tail.id is not None), default=-1)
        first = next_ids(tails, partial(_newest_misplaced, reader, places, most, stop))
    if found:
        source.as_recorded(found)
    if problem := mismatch(topic, settings.schema_topic, source.schema, found, tails):
        raise Fatal(problem)
    if found is None:
        schema = encode_schema(source.schema)
        outbox.send(settings.schema_topic, schema, partition=0, key=SCHEMA_KEY)
        outbox.flush()
    return first


class Sent(NamedTuple):
    """Where a record stands on the data topic, and when it was sent, in seconds since 1970."""

    partition: int
    time: float
    offset: int


def unlabelled(settings: Settings, source: Source, count: int, stop: Stop) -> dict[int, Sent]:
    """Return the records whose labels are to be sent, by their numbers.

    It reads back as far as a label may be missing. A label that was sent and not acknowledged may
    be missing, too.

    Raises
    ------
    KafkaError, Stopped
    """
    found: dict[int, Sent] = {}
    with closing(consumer(settings, max_poll_records=5_000)) as reader:
        places = [TopicPartition(settings.data_topic, p) for p in range(count)]
        last = max(newest(reader, place, newest_time, stop) or 0 for place in places)
        longest = max(settings.delay_seconds, source.longest_delay / settings.speed)
        reach = int(last - 1_000 * longest)
        for place in places:
            start, end = bounds(reader, place, stop)
            back = end - MAX_UNACKNOWLEDGED - settings.delay_records // count
            first = max(start, min(offset_at(reader, place, reach, end), back))
            sent = list(_without_label(read_range(reader, place, first, end, stop)))
            if not sent:
                continue
            found |= {number: each for number, _, each in sent}
            numbers: dict[Id | None, int] = {id: number for number, id, _ in sent}
            at = {each.offset: number for number, _, each in sent}
            labels = TopicPartition(settings.label_topic, place.partition)
            _, end = bounds(reader, labels, stop)
            oldest = min(each.time for *_, each in sent)
            first = offset_at(reader, labels, int(1_000 * oldest), end)
            for record in read_range(reader, labels, first, end, stop):
                with suppress(RecordError):
                    label = decode_label(record.value)
                    known = at.get(label.source[1]) if label.source else numbers.get(label.id)
                    found.pop(-1 if known is None else known, None)
    return found


def _without_label(records: Iterable[Any]) -> Iterator[tuple[int, Id, Sent]]:
    """Yield number, id and place of the records that carry no label."""
    for read, record in _readable(records):
        number = _number(read, record)
        if number is not None and number >= 0 and record.label is None:
            yield number, record.id, Sent(read.partition, read.timestamp / 1_000, read.offset)


def _tail(
    reader: KafkaConsumer,
    place: TopicPartition,
    end: int,
    limit: int,
    choose: Callable[[Iterable[int]], list[int]],
    stop: Stop,
    log: logging.Logger,
) -> Tail:
    ids: deque[tuple[int, int]] = deque(maxlen=LOOKED_AT)  # each with its offset
    beyond: deque[tuple[int, int]] = deque(maxlen=1)
    width: int | None = None

    def enough(records: Iterator[Any]) -> bool | None:
        nonlocal width
        ids.clear()  # of a shorter range
        for read, record in _readable(records):
            width = len(record.features)
            if (number := _number(read, record)) is not None:
                (ids if number < limit else beyond).append((number, read.offset))
        return len(ids) == LOOKED_AT or None

    newest(reader, place, enough, stop)
    own = choose(id for id, _ in ids)
    for id, offset in [*beyond, *ids]:
        if id not in own:
            shared_warnings(log).warn(
                "foreign id",
                f"{place.topic} partition {place.partition} offset {offset}: id {id} does not"
                " continue the ids of this stream and is ignored; another producer wrote it",
            )
    id, before, *_ = *reversed(own), None, None
    return Tail(end, id, width, before)


def _newest_misplaced(
    reader: KafkaConsumer, places: Sequence[TopicPartition], most: int, stop: Stop
) -> int:
    """Return the highest id up to `most` that is not on its partition, -1 without one."""

    def misplaced(p: int, records: Iterator[Any]) -> int | None:
        ids = (_number(read, record) for read, record in _readable(records))
        wrong = (id for id in ids if id is not None and 0 <= id <= most and id % len(places) != p)
        return max(wrong, default=None)

    found = (newest(reader, at, partial(misplaced, at.partition), stop) for at in places)
    return max((id for id in found if id is not None), default=-1)


def _readable(records: Iterable[Any]) -> Iterator[tuple[Any, Record]]:
    """Yield the valid records, as they were read and decoded."""
    for read in records:
        with suppress(RecordError):
            yield read, decode_record(read.value)


def _number(read: Any, record: Record) -> int | None:
    """Return the number that a record was sent as: its id, or the header where that is a name."""
    rows = [value for name, value in read.headers if name == ROW_HEADER and value]
    if rows and re.fullmatch(rb"\d{1,18}", rows[0]):
        return int(rows[0])
    return record.id if isinstance(record.id, int) else None
