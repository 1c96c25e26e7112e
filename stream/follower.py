"""Follows topics from a moment on: decoded records, also those of partitions that are added."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from stream import reading
from stream.clients import REQUEST_TIMEOUT_MS
from stream.records import RecordError

MOST = 5_000_000
"""Most offsets of a topic that are read from before the start, of all partitions together."""

LEAST = 10
"""Newest offsets of each partition that are read at least: they say where it stands."""

LOOK_SECONDS = 5.0
"""How often it looks for partitions that were added."""


class Said(NamedTuple):
    """A record, decoded, its timestamp and its topic."""

    time_ms: int
    record: Any
    topic: str = ""


class Follower:
    """Reads topics from a moment on, and goes on with what is written.

    A record that cannot be decoded is passed over.

    Parameters
    ----------
    consumer : KafkaConsumer
        For this object alone.
    decoders : mapping of str to callable
        Topic to what decodes the bytes of its records, or raises `RecordError`. A topic that does
        not exist is read from its beginning once it does.
    start_ms : float
        Time of the first record, in milliseconds since 1970.
    most : mapping of str to int, optional
        Topic to the most offsets before its end that are read; `MOST` of those that it lacks.

    Attributes
    ----------
    limited : set of str
        Topics of which not all was read: they have more records since the start.

    Raises
    ------
    KafkaError
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        decoders: Mapping[str, Callable[[bytes | None], Any]],
        start_ms: float,
        most: Mapping[str, int] | None = None,
    ) -> None:
        self._consumer = consumer
        self._decoders = dict(decoders)
        self._most = most or {}
        self.limited: set[str] = set()
        self._paused: set[str] = set()
        self._looked = time.monotonic()
        starts = {place: self._start(place, start_ms) for place in self._places()}
        self._assign(starts)

    def poll(self, timeout_ms: int = 200) -> Iterator[Said]:
        """Yield the records that have come, waiting so long for the first.

        Raises
        ------
        KafkaError
        """
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        if not self._consumer.assignment():
            time.sleep(timeout_ms / 1_000)
            return
        for place, records in self._consumer.poll(timeout_ms=timeout_ms).items():
            decode = self._decoders[place.topic]
            for record in records:
                with suppress(RecordError):  # `verify` names it
                    yield Said(record.timestamp, decode(record.value), place.topic)

    def ends(self) -> dict[TopicPartition, int]:
        """Return the offset after the last record of each partition, also of paused topics.

        Raises
        ------
        KafkaError
            When no broker answers, or a topic was recreated.
        """
        places = list(self._consumer.assignment())
        ends = self._consumer.end_offsets(places, timeout_ms=REQUEST_TIMEOUT_MS) if places else {}
        for place, end in ends.items():
            if end < self._position(place):
                raise OffsetOutOfRangeError(f"{place.topic} has fewer records than before")
        return ends

    def left(self, ends: Mapping[TopicPartition, int]) -> int:
        """Return how many offsets before these ends are not read yet."""
        read = [place for place in ends if place.topic not in self._paused]
        return sum(max(0, ends[place] - self._position(place)) for place in read)

    def pause(self, *topics: str) -> None:
        """Read no more of these topics; their ends are still known."""
        self._paused |= set(topics)
        self._consumer.pause(*(p for p in self._consumer.assignment() if p.topic in self._paused))

    def _position(self, place: TopicPartition) -> int:
        return self._consumer.position(place, timeout_ms=REQUEST_TIMEOUT_MS) or 0

    def _places(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number)
            for topic in self._decoders
            for number in sorted(self._consumer.partitions_for_topic(topic) or ())
        ]

    def _start(self, place: TopicPartition, start_ms: float) -> int:
        first, end = reading.bounds(self._consumer, place)
        wanted = max(first, reading.offset_at(self._consumer, place, int(start_ms), end))
        partitions = len(self._consumer.partitions_for_topic(place.topic))
        newest = max(first, end - max(1, self._most.get(place.topic, MOST) // partitions))
        if wanted < newest:
            self.limited.add(place.topic)
        return max(first, min(max(wanted, newest), end - LEAST))

    def _look(self) -> None:
        self._looked = time.monotonic()
        added = set(self._places()) - self._consumer.assignment()
        self._assign({place: reading.bounds(self._consumer, place)[0] for place in added})

    def _assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Follow further partitions from these offsets on; the others keep their place."""
        if starts:
            self._consumer.assign([*self._consumer.assignment(), *starts])
        for place, start in starts.items():
            self._consumer.seek(place, start)
        self.pause()
