"""Reading offsets of one partition: a range, chosen ones, or backwards from its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from stream.clients import REQUEST_TIMEOUT_MS
from stream.records import RecordError, Schema, decode_schema
from stream.service import Stop
from stream.settings import StreamSettings

T = TypeVar("T")

SILENCE_SECONDS = 30.0
"""Timeout of a read that gets nothing. The transaction of a killed service times out sooner."""

NEAR = 1_000
"""Offsets that are read over rather than fetched anew."""


def bounds(
    client: KafkaConsumer, partition: TopicPartition, stop: Stop | None = None
) -> tuple[int, int]:
    """Return the first offset of a partition, and the one after its last committed record.

    With `stop`, it raises `Stopped` when the service is told to stop meanwhile.
    """
    if stop is not None:
        return stop.until_stopped(partial(bounds, client, partition))
    start = client.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
    end = client.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
    return start, end


def read_range(
    client: KafkaConsumer, partition: TopicPartition, start: int, end: int, stop: Stop
) -> Iterator[Any]:
    """Yield the records at offsets `start` to `end` - 1 of one partition.

    Assigns only that partition to the consumer.

    Raises
    ------
    KafkaTimeoutError
        When nothing arrives within `SILENCE_SECONDS`.
    Stopped
    """
    client.assign([partition])
    client.seek(partition, start)
    last, silent_since = start, time.monotonic()
    while (position := client.position(partition) or 0) < end:
        stop.check()
        if position != last:
            last, silent_since = position, time.monotonic()
        elif time.monotonic() - silent_since > SILENCE_SECONDS:
            raise KafkaTimeoutError(
                f"{partition.topic} partition {partition.partition}: no record at offset {position}"
                f" or after it within {SILENCE_SECONDS:g} s"
            )
        for record in client.poll(timeout_ms=200).get(partition, ()):
            if record.offset >= end:
                return
            yield record


def read_at(
    client: KafkaConsumer, partition: TopicPartition, offsets: Collection[int], stop: Stop
) -> Iterator[Any]:
    """Yield the records at these offsets of one partition, those that it still has.

    Assigns only that partition to the consumer.

    Raises
    ------
    KafkaError, Stopped
    """
    if not offsets:
        return
    start, end = bounds(client, partition, stop)
    wanted = {offset for offset in offsets if start <= offset < end}
    for first, last in runs(sorted(wanted)):
        for record in read_range(client, partition, first, last + 1, stop):
            if record.offset in wanted:
                yield record


def runs(offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of ascending offsets that are near each other.

    Examples
    --------
    >>> list(runs([3, 4, 900, 5_000]))
    [(3, 900), (5000, 5000)]
    """
    first = last = -1
    for offset in offsets:
        if first >= 0 and offset - last > NEAR:
            yield first, last
            first = -1
        first, last = (offset if first < 0 else first), offset
    if first >= 0:
        yield first, last


def newest(
    client: KafkaConsumer,
    partition: TopicPartition,
    choose: Callable[[Iterator[Any]], T | None],
    stop: Stop,
    most: int | None = None,
) -> T | None:
    """Read longer and longer ranges at the end of a partition until `choose` finds something.

    Assigns only that partition to the consumer.

    Parameters
    ----------
    choose : callable
        Takes the records of a range, oldest first, as they are read: a range may be larger than
        the memory. Returns what it looked for, or ``None`` to go on with a longer range.
    most : int, optional
        Longest range, in offsets.

    Returns
    -------
    object or None
        ``None`` if `choose` found nothing.
    """
    start, end = bounds(client, partition, stop)
    start = start if most is None else max(start, end - most)
    length = 8
    while end > start:
        first = max(start, end - length)
        found = choose(read_range(client, partition, first, end, stop))
        if found is not None or first == start:
            return found
        length *= 8
    return None


def offset_at(client: KafkaConsumer, partition: TopicPartition, timestamp: int, end: int) -> int:
    """Return the first offset with this timestamp, in ms, or a later one; `end` without one."""
    times = {partition: max(0, timestamp)}
    at = client.offsets_for_times(times, timeout_ms=REQUEST_TIMEOUT_MS)[partition]
    return at.offset if at else end


def newest_time(records: Iterable[Any]) -> int | None:
    """Return the newest timestamp of the records, in ms; ``None`` if there are none."""
    return max((record.timestamp for record in records), default=None)


def last_readable(decode: Callable[[bytes | None], T], records: Iterable[Any]) -> T | None:
    """Return the last record that `decode` can read, decoded; ``None`` if it can read none."""
    found = None
    for record in records:
        with suppress(RecordError):
            found = decode(record.value)
    return found


def newest_schema(client: KafkaConsumer, settings: StreamSettings, stop: Stop) -> Schema | None:
    """Return the newest readable record of the schema topic, ``None`` if there is none."""
    place = TopicPartition(settings.schema_topic, 0)
    return newest(client, place, partial(last_readable, decode_schema), stop)
