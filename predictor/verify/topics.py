"""What is on Kafka: commits, records and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from predictor.committed import Commit
from predictor.outputs import POSITION
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from predictor.verify.models import ModelLibrary
from predictor.verify.partition import Committed, Partition, Records, Row
from predictor.verify.recreated import answers_since, recreated_at
from predictor.verify.report import Violation
from stream import clients, reading
from stream.open_transactions import OpenTransaction, open_transactions
from stream.records import RecordError
from stream.service import Fatal, Stop
from stream.topics import partition_counts

COMMITTED_TIMEOUT_MS = 30_000
"""Longer than the transaction of a killed predictor stays open."""

COMMITTED_ATTEMPTS = 100
"""Attempts to read both offsets of a partition as one transaction left them."""

UNIT_MOST = 20_000
"""More outputs than a unit has on one partition of a topic."""


def _held(labels: OffsetAndMetadata) -> Collection[int] | None:
    return Commit(0, Tally(), None).with_labels(labels.offset, labels.metadata).early


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
    inputs : tuple of str
        The data topic and the label topic.
    commits : list of Committed or None
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
        self.inputs = (settings.data_topic, settings.label_topic)
        self._progress = progress
        self._stop = Stop()
        self._admin = clients.admin(settings)
        self._clients: list[Any] = [self._admin]
        stack.callback(lambda: clients.close(*self._clients))
        topics = (settings.data_topic, settings.prediction_topic, settings.rejected_topic)
        labels = (settings.label_topic, settings.label_rejected_topic)
        # Those of the labels are missing beside a predictor of the version before.
        self._partitions = dict.fromkeys(labels, 0) | partition_counts(self._admin, list(labels))
        self._partitions |= self._count_partitions(
            *topics, settings.model_topic, settings.status_topic
        )
        self._label_topic_id = self._topic_id(settings.label_topic)
        self._group = self._consumer(group_id=settings.group_id)
        self._uncommitted = self._consumer(isolation_level="read_uncommitted")
        self._readers = {
            topic: self._consumer(max_poll_records=5_000) for topic in (*topics, *labels)
        }
        self.commits = [self.commit(n) for n in range(self._partitions[settings.data_topic])]
        self.models = ModelLibrary(settings, self._consumer(), self._consumer(), self._stop)

    def commit(self, number: int) -> Committed | None:
        """Return what is committed for a partition now."""
        settings = self._settings
        held: Collection[int] | None = None
        found = self._committed(settings.data_topic, number)
        for _ in range(COMMITTED_ATTEMPTS):
            before, labels = found, self._committed(settings.label_topic, number)
            found = self._committed(settings.data_topic, number)
            if found == before:  # so the labels are of the same transaction
                held = _held(labels) if labels else ()
                break
        if found is None:
            return None
        try:
            tally = Tally.from_metadata(found.metadata)
        except RecordError as error:
            return Committed(found.offset, str(error))
        if tally.label_incarnation not in (None, self._label_topic_id):
            return Committed(found.offset, tally)  # the label topic was deleted
        return Committed(found.offset, tally, labels and labels.offset, held)

    def _committed(self, topic: str, number: int) -> OffsetAndMetadata | None:
        if number >= self._partitions[topic]:
            return None
        place = TopicPartition(topic, number)
        return self._group.committed(place, metadata=True, timeout_ms=COMMITTED_TIMEOUT_MS)

    def pending(self, topic: str, number: int) -> int:
        """Return how many records of a partition are committed there and not yet read."""
        span, commit = self._span(topic, number), self.commits[number]
        read = None
        if commit:
            read = commit.offset if topic == self._settings.data_topic else commit.labels
        start = max(span.start, read or 0)
        return sum(1 for _ in self._read(span._replace(start=start)))

    def open_transactions(self, topic: str, number: int) -> list[OpenTransaction]:
        """Return the transactions that hold back records of a partition."""
        if number >= self._partitions[topic]:
            return []
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
        data, predictions, rejected, labels, rejected_labels = (
            self._span(topic, number) for topic in self._readers
        )
        ends = (predictions.end, rejected.end)
        commit = self.commits[number]
        if commit is None and ends == (predictions.start, rejected.start):
            return None
        committed = commit or Committed(data.start, None)
        if committed.offset > data.end:
            expected = f"a committed offset up to {data.end}, where the topic ends"
            found = str(committed.offset)
            raise Violation("I3", data.topic, number, committed.offset, expected, found)
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

        def records(span: _Span, since: int = 0) -> Records:
            return Records(span.topic, self._rows(span), span.start, since)

        return Partition(
            number,
            records(data._replace(end=committed.offset)),
            records(predictions, since[0]),
            records(rejected, since[1]),
            records(labels._replace(end=committed.labels or 0)),
            records(rejected_labels, self._answers_since(rejected_labels)),
            committed,
            self._answers_since(predictions),
        )

    def _answers_since(self, span: _Span) -> int:
        """Return since when what is on a topic of answers is about the label topic as it is now."""
        if span.partition >= self._partitions[self._settings.label_topic]:
            return span.end
        if self._label_topic_id is None:
            return 0

        def is_current(offset: int) -> bool:
            read = 0
            for record in islice(self._read(span._replace(start=offset)), UNIT_MOST):
                read += 1
                if position := dict(record.headers).get(POSITION):
                    tally = Commit.from_header(position).tally
                    return tally.label_incarnation == self._label_topic_id
            return read < UNIT_MOST  # nothing follows: those of older software are longer

        return answers_since(span.start, span.end, is_current)

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
            yield record.offset, record.value, record.timestamp

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
        client = self._readers[topic] if topic in self.inputs else self._uncommitted
        return _Span(topic, number, *reading.bounds(client, TopicPartition(topic, number)))

    def _topic_id(self, topic: str) -> str | None:
        (found,) = self._admin.describe_topics([topic])
        id: str | None = found.get("topic_id")
        return id if id and UUID(id).int else None  # brokers before 2.8 give none

    def _consumer(self, **options: Any) -> KafkaConsumer:
        self._clients.append(clients.consumer(self._settings, **options))
        return self._clients[-1]

    def _count_partitions(self, *topics: str) -> dict[str, int]:
        found = partition_counts(self._admin, list(topics))
        if missing := [topic for topic in topics if topic not in found]:
            broker = self._settings.kafka_bootstrap_servers
            raise Fatal(f"{broker}: no topic {', '.join(missing)}")
        return found
