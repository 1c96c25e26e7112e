"""What is on Kafka: commits, records and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from predictor.settings import PredictorSettings
from predictor.verify.models import ModelLibrary
from predictor.verify.partition import Partition, Records, Row, recreated_at
from predictor.verify.report import Violation
from stream import clients, reading
from stream.open_transactions import OpenTransaction, open_transactions
from stream.service import Fatal, Stop
from stream.topics import partition_counts

COMMITTED_TIMEOUT_MS = 30_000
"""Longer than the transaction of a killed predictor stays open."""


class _Span(NamedTuple):
    """Offsets of a partition from `start` to `end` - 1."""

    topic: str
    partition: int
    start: int
    end: int


class Topics:
    """Reads the topics of a predictor, partition by partition.

    Parameters
    ----------
    stack : ExitStack
        Closes the clients.
    progress : callable
        Called for each record of the data topic.

    Attributes
    ----------
    commits : list of OffsetAndMetadata or None
        What was committed for each partition of the data topic when this was made.

    Raises
    ------
    Fatal
        When a topic is missing.
    """

    def __init__(
        self, settings: PredictorSettings, stack: ExitStack, progress: Callable[[], object]
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._stop = Stop()
        self._admin = clients.admin(settings)
        self._clients: list[Any] = [self._admin]
        stack.callback(lambda: clients.close(*self._clients))
        topics = (settings.data_topic, settings.prediction_topic, settings.rejected_topic)
        self._partitions = self._count_partitions(
            *topics, settings.model_topic, settings.status_topic
        )
        self._group = self._consumer(group_id=settings.group_id)
        self._uncommitted = self._consumer(isolation_level="read_uncommitted")
        self._readers = {topic: self._consumer(max_poll_records=5_000) for topic in topics}
        self.commits = [self.commit(n) for n in range(self._partitions[settings.data_topic])]
        self.models = ModelLibrary(settings, self._consumer(), self._consumer(), self._stop)

    def commit(self, number: int) -> OffsetAndMetadata | None:
        """Return what is committed for a partition now."""
        place = TopicPartition(self._settings.data_topic, number)
        return self._group.committed(place, metadata=True, timeout_ms=COMMITTED_TIMEOUT_MS)

    def pending(self, number: int) -> int:
        """Return how many records of a partition can be predicted and are not yet."""
        data, commit = self._span(self._settings.data_topic, number), self.commits[number]
        start = max(data.start, commit.offset if commit else data.start)
        return sum(1 for _ in self._read(data._replace(start=start)))

    def open_transactions(self, number: int) -> list[OpenTransaction]:
        """Return the transactions that hold back records of a partition of the data topic."""
        topic = self._settings.data_topic
        place = TopicPartition(topic, number)
        end = reading.bounds(self._uncommitted, place)[1]
        readable = self._span(topic, number).end
        if readable >= end:
            return []
        unknown = OpenTransaction(topic, number, readable, "an unknown producer", None)
        return self._open(place) or [unknown]

    def partition(self, number: int) -> Partition | None:
        """Return what is there of a partition; ``None`` if nothing was predicted or committed.

        Raises
        ------
        Violation
            When the committed offset cannot be one of this data topic.
        """
        data, predictions, rejected = (self._span(topic, number) for topic in self._readers)
        ends = (predictions.end, rejected.end)
        commit = self.commits[number]
        if commit is None and ends == (predictions.start, rejected.start):
            return None
        committed = commit.offset if commit else data.start
        if committed > data.end:
            expected = f"a committed offset up to {data.end}, where the topic ends"
            raise Violation("I3", data.topic, number, committed, expected, str(committed))
        times = (record.timestamp for record in self._read(data))
        first_ms = next((time for time in times if time > 0), math.inf)  # a damaged batch has none
        since = (self._at(predictions, first_ms), self._at(rejected, first_ms))
        if commit:
            recreated = recreated_at(
                ((r.offset, r.timestamp, r.value) for r in self._read(predictions)), first_ms
            )
            since = (recreated, since[1]) if recreated else (0, 0)
        elif since != ends:  # there are outputs of this data topic, so something is committed
            self.commits[number] = self.commit(number)
            if self.commits[number]:
                return self.partition(number)
            expected = f"a committed offset of group {self._settings.group_id}"
            raise Violation("I3", data.topic, number, data.start, expected, "none")
        return Partition(
            number,
            Records(data.topic, self._rows(data._replace(end=committed)), data.start),
            Records(predictions.topic, self._rows(predictions), predictions.start, since[0]),
            Records(rejected.topic, self._rows(rejected), rejected.start, since[1]),
            committed,
            commit.metadata if commit else None,
        )

    def _at(self, span: _Span, time_ms: float) -> int:
        """Return the offset of the first record from a time on; the end if there is none."""
        if span.start == span.end or time_ms == math.inf:
            return span.end
        place = TopicPartition(span.topic, span.partition)
        found = self._uncommitted.offsets_for_times({place: int(time_ms)})[place]
        later = self._read(span._replace(start=found.offset)) if found else ()
        return next((record.offset for record in later), span.end)

    def _rows(self, span: _Span) -> Iterator[Row]:
        for record in self._read(span):
            if span.topic == self._settings.data_topic:
                self._progress()
            yield record.offset, record.value

    def _read(self, span: _Span) -> Iterator[Any]:
        if span.start < span.end:
            place = TopicPartition(span.topic, span.partition)
            reader = self._readers[span.topic]
            try:
                yield from reading.read_range(reader, place, span.start, span.end, self._stop)
            except KafkaTimeoutError:
                for transaction in self._open(place):
                    raise Fatal(f"cannot be read to the end: {transaction}") from None
                raise

    def _open(self, place: TopicPartition) -> list[OpenTransaction]:
        try:
            return open_transactions(self._admin, place)
        except KafkaError:
            return []

    def _span(self, topic: str, number: int) -> _Span:
        """Return what is written to a partition until now.

        Of the outputs, that includes a transaction whose offsets are committed, but whose outputs
        are not yet marked as committed: reading to that end waits for it.
        """
        if number >= self._partitions[topic]:
            return _Span(topic, number, 0, 0)
        data = topic == self._settings.data_topic
        client = self._readers[topic] if data else self._uncommitted
        return _Span(topic, number, *reading.bounds(client, TopicPartition(topic, number)))

    def _consumer(self, **options: Any) -> KafkaConsumer:
        self._clients.append(clients.consumer(self._settings, **options))
        return self._clients[-1]

    def _count_partitions(self, *topics: str) -> dict[str, int]:
        found = partition_counts(self._admin, list(topics))
        if missing := [topic for topic in topics if topic not in found]:
            broker = self._settings.kafka_bootstrap_servers
            raise Fatal(f"{broker}: no topic {', '.join(missing)}")
        return found
