"""The unit of work against Kafka: what is read, and the one transaction that holds all it gave.

Predictions, rejected records and consumed offsets are committed together; the metadata of each
offset carries the partition's tally. Whatever goes wrong in between has one remedy: a new
producer, which ends the transaction left open, then position and tally from what is committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    InvalidProducerEpochError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from predictor.fallback import GROUP, INCARNATION
from predictor.positions import Positions
from predictor.predictor import Consumed, Outcome
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import clients, refusals
from stream.deadlines import DeadlineExceeded
from stream.records import encode_prediction, encode_rejected
from stream.service import Fatal, Stop, Warnings
from stream.topics import ensure_topics
from stream.transactions import Transactions

MAX_RECORDS = 5_000
MAX_BYTES = 32 * 2**20
"""Size of the records at which a unit is full; what one poll returned comes on top."""

COMMIT_SECONDS = 10.0
SESSION_TIMEOUT_MS = 6_000
TRANSACTION_TIMEOUT_MS = 10_000
FENCED_TWICE_SECONDS = 60.0
JOIN_SECONDS = 20.0
LOOK_SECONDS = 5.0
"""How often it is looked whether the data topic has got more partitions or was made again."""

_FENCED = (ProducerFencedError, InvalidProducerEpochError)


class Unit(NamedTuple):
    """Records that are predicted and committed together.

    Attributes
    ----------
    records : list of Consumed
        In the order of each partition.
    membership : ConsumerGroupMetadata
        As it was when they were read: the broker refuses the commit of a member whose
        partitions went to another one since.
    """

    records: list[Consumed]
    membership: ConsumerGroupMetadata


class Units:
    """Gives units of work and commits what became of them, exactly once.

    Parameters
    ----------
    settings : PredictorSettings
    stop : Stop
    log : logging.Logger
    restored : callable
        Given n of each partition whenever position and tallies were read again.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    tallies : dict of int to Tally
        The committed tally of each assigned partition.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        stop: Stop,
        log: logging.Logger,
        restored: Callable[[dict[int, int]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tallies: dict[int, Tally] = {}
        self._settings = settings
        self._transactional_id = f"{settings.group_id}-{settings.replica}"
        self._transactions = Transactions(
            settings, self._transactional_id, log, group=settings.group_id
        )
        self._stop = stop
        self._log = log
        self._restored = restored
        self._clock = clock
        self._warnings = Warnings(log, clock)
        self._producer: KafkaProducer | None = None
        self._fenced_at = -FENCED_TWICE_SECONDS
        self._listener = _Listener()
        self._waiting = False
        self._incarnation: str | None = None
        self._stale = True
        self._offsets: dict[int, int] = {}
        self._partitions = 0
        self._next_look = 0.0
        self._admin = self._connect(lambda: clients.admin(settings))
        self._connect(self._ensure_topics)
        self._positions = Positions(settings, self._admin, stop, log, clock)
        self._consumer: KafkaConsumer = None
        self._new_consumer()

    def __enter__(self) -> Units:
        return self

    def __exit__(self, *_: object) -> None:
        # A transaction still open is aborted by whoever comes next, or by its timeout.
        clients.close(self._producer, self._consumer, *self._positions.clients, self._admin)

    def poll(self, model: int, barred: set[int]) -> Unit | None:
        """Collect records for at most ``COMMIT_INTERVAL_MS``.

        Partitions that a newer model has predicted already wait for one that is as new.

        Parameters
        ----------
        model : int
            Version that will predict the unit; 0 while there is none.
        barred : set of int
            Versions taken out of service.

        Returns
        -------
        Unit or None
            ``None`` when there was nothing to read.
        """
        self._look()
        if self._stale:
            self._restore()
        self._hold(model, barred)
        records: list[Consumed] = []
        size, end = 0, self._clock() + self._settings.commit_interval_ms / 1000
        while len(records) < MAX_RECORDS and size < MAX_BYTES and not self._stop:
            left = end - self._clock()
            if left <= 0:
                break
            try:
                polled = self._consumer.poll(
                    timeout_ms=max(1, int(1000 * left)), max_records=MAX_RECORDS - len(records)
                )
            except (NoOffsetForPartitionError, OffsetOutOfRangeError):
                self._stale = True
            except KafkaError as error:
                refusals.raise_if_refused(error, self._settings)
                self._lose(f"reading {self._settings.data_topic}: {error!r}")
                self._stop.wait(0.2)
            if self._stale or self._listener.changed:
                self._stale = True
                return None
            new = [
                Consumed(place.partition, record.offset, record.key, record.value)
                for place, found in polled.items()
                for record in found
            ]
            records += new
            size += sum(len(consumed.value or b"") for consumed in new)
        membership = self._consumer.group_metadata()
        if not records:
            return None
        if membership.generation_id < 0 or not membership.member_id:
            self._lose("the group membership was lost")
            return None
        return Unit(records, membership)

    def commit(self, unit: Unit, outcome: Outcome) -> bool:
        """Publish an outcome and what was consumed, all of it or nothing.

        Returns
        -------
        bool
            False when it came to nothing; the unit will be read again.

        Raises
        ------
        Fatal
            When another predictor runs under this one's name.
        """
        offsets = {consumed.partition: consumed.offset + 1 for consumed in unit.records}
        try:
            self._stop.deadline(
                COMMIT_SECONDS, lambda: self._transaction(unit.membership, offsets, outcome)
            )
        except (KafkaError, DeadlineExceeded, ValueError) as error:
            refusals.raise_if_refused(error, self._settings, "Write", self._transactional_id)
            # The client raises the broker's answer itself, or as the argument of its own error.
            if any(isinstance(found, _FENCED) for found in (error, *error.args)):
                self._fenced()
            else:
                self._lose(f"not committed, {len(unit.records)} records: {error!r}")
            return False
        self.tallies.update(outcome.tallies)
        self._offsets.update(offsets)
        return True

    def again(self) -> None:
        """Read the unit again that was not committed."""
        self._stale = True

    def lag(self) -> int:
        """Return how many records of the assigned partitions wait to be predicted."""
        # Without `position`, which asks the broker and raises where none answers.
        return sum(
            max(0, (self._consumer.highwater(place) or 0) - self._offsets.get(place.partition, 0))
            for place in self._consumer.assignment()
        )

    def _transaction(
        self, membership: ConsumerGroupMetadata, offsets: dict[int, int], outcome: Outcome
    ) -> None:
        settings, producer = self._settings, self._producer
        assert producer is not None
        producer.begin_transaction()
        outputs = [
            (settings.prediction_topic, prediction.source[0], encode_prediction(prediction), key)
            for prediction, key in outcome.predictions
        ]
        outputs += [
            (settings.rejected_topic, rejected.source[0], encode_rejected(rejected), None)
            for rejected in outcome.rejected
        ]
        last = {(topic, partition): i for i, (topic, partition, *_) in enumerate(outputs)}
        mark = [(GROUP, settings.group_id.encode())]
        if self._incarnation:
            mark.append((INCARNATION, self._incarnation.encode()))
        sent = [
            producer.send(
                topic,
                value,
                key=key,
                partition=partition,
                headers=mark if last[topic, partition] == i else None,
            )
            for i, (topic, partition, value, key) in enumerate(outputs)
        ]
        producer.send_offsets_to_transaction(
            {
                TopicPartition(settings.data_topic, partition): OffsetAndMetadata(
                    offset, outcome.tallies[partition].to_metadata(), -1
                )
                for partition, offset in offsets.items()
            },
            membership,
        )
        producer.flush()
        for future in sent:
            if future.failed():
                raise future.exception
        # Asked after the records were read: an id never comes back, so they are this topic's.
        if self._describe()[0] != self._incarnation:
            raise UnknownTopicOrPartitionError(f"{settings.data_topic} was made again meanwhile")
        producer.commit_transaction()

    def _hold(self, model: int, barred: set[int]) -> None:
        """Pause the partitions that `model` must not predict, let the others go on."""
        if not model and not self._waiting:
            self._log.info("waiting for a model")
        self._waiting = not model
        for partition, tally in self.tallies.items():
            place = TopicPartition(self._settings.data_topic, partition)
            if model and (model >= tally.model or tally.model in barred):
                self._consumer.resume(place)
                continue
            self._consumer.pause(place)
            if model:
                self._warnings.warn(
                    f"hold {partition}",
                    f"partition {partition} was predicted with model {tally.model}"
                    f" and waits for it or a newer one (here: {model})",
                )

    def _fenced(self) -> None:
        now = self._clock()
        if now - self._fenced_at < FENCED_TWICE_SECONDS:
            raise Fatal(
                f"another predictor runs under the name REPLICA={self._settings.replica}"
                f" in the group {self._settings.group_id}; give each its own"
            )
        self._fenced_at = now
        self._lose("fenced by a newer producer of this name")

    def _lose(self, reason: str) -> None:
        self._warnings.warn("lost", f"{reason}; going on from what is committed")
        self._stale = True

    def _restore(self) -> None:
        """Begin again from what is committed, in the one order that is safe."""
        self._producer = self._new_producer()
        self.tallies = {}
        self._positions.begin()
        while True:
            self._join()
            places = self._consumer.assignment()
            positions = self._positions.read(places, self._incarnation)
            if positions is None:
                self._connect(self._ensure_topics)
                self._stop.wait(0.2)
                continue
            if not self._listener.changed:
                break
        for place in places:
            self._consumer.seek(place, positions[place.partition].offset)
        self.tallies = {partition: position.tally for partition, position in positions.items()}
        self._offsets = {partition: position.offset for partition, position in positions.items()}
        self._stale = False
        self._log.info(
            "partitions %s",
            " ".join(f"{p}@{positions[p].offset} n={t.n}" for p, t in self.tallies.items())
            or "none: there are more replicas than partitions",
        )
        counts = {partition: tally.n for partition, tally in self.tallies.items()}
        self._stop.until_stopped(lambda: self._restored(counts))

    def _new_producer(self) -> KafkaProducer:
        clients.close(self._producer)
        settings = self._settings

        def make() -> KafkaProducer:
            self._ensure_topics()
            producer = clients.producer(
                settings,
                transactional_id=self._transactional_id,
                transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                linger_ms=5,
            )
            outputs = [
                TopicPartition(topic, partition)
                for topic in (settings.prediction_topic, settings.rejected_topic)
                for partition in range(self._partitions)
            ]
            begin = partial(self._transactions.initialize, producer, outputs)
            try:
                self._stop.deadline(COMMIT_SECONDS, begin)
            except DeadlineExceeded as error:
                clients.close(producer)
                raise TimeoutError(str(error)) from None
            except BaseException as error:
                clients.close(producer)
                refusals.raise_if_refused(error, settings, transaction=self._transactional_id)
                raise
            return producer

        return self._connect(make)

    def _new_consumer(self) -> None:
        """Join the group afresh."""
        clients.close(self._consumer)
        settings, self._listener, self._stale = self._settings, _Listener(), True
        self._consumer = self._connect(
            lambda: clients.consumer(
                settings,
                group_id=settings.group_id,
                max_poll_records=MAX_RECORDS,
                session_timeout_ms=SESSION_TIMEOUT_MS,
                heartbeat_interval_ms=1_000,
            )
        )
        self._consumer.subscribe([settings.data_topic], listener=self._listener)

    def _ensure_topics(self) -> None:
        ensure_topics(self._admin, self._settings, self._log)
        self._incarnation, self._partitions = self._describe()

    def _look(self) -> None:
        """Look now and then at the data topic; the client does not always notice what changed."""
        if self._stale or self._clock() < self._next_look:
            return
        self._next_look = self._clock() + LOOK_SECONDS
        try:
            incarnation, partitions = self._stop.until_stopped(self._describe)
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            return
        if partitions > self._partitions:
            self._new_consumer()
        self._stale |= incarnation != self._incarnation

    def _describe(self) -> tuple[str | None, int]:
        """Return what tells the data topic from one made after it, and its number of partitions."""
        (topic,) = self._admin.describe_topics([self._settings.data_topic])
        known = topic["topic_id"] and UUID(topic["topic_id"]).int  # brokers before 2.8 have none
        return topic["topic_id"] if known else None, len(topic["partitions"])

    def _join(self) -> None:
        """Take part in the group until it has settled which partitions are ours."""
        end = self._clock() + JOIN_SECONDS
        while True:
            self._stop.check()
            if self._clock() > end:
                self._warnings.warn("join", f"not in {self._settings.group_id} yet; joining afresh")
                self._new_consumer()
                end = self._clock() + JOIN_SECONDS
            self._listener.changed = False
            try:
                self._consumer.pause(*self._consumer.assignment())
                self._consumer.poll(timeout_ms=100)
            except (NoOffsetForPartitionError, OffsetOutOfRangeError):
                pass  # expected: positions are given by _restore
            except KafkaError as error:
                refusals.raise_if_refused(error, self._settings)
                self._warnings.warn("join", f"joining {self._settings.group_id}: {error!r}")
                self._stop.wait(0.2)
            if self._listener.assigned and not self._listener.changed:
                return

    def _connect(self, make: Callable[[], Any]) -> Any:
        return clients.connect(make, self._settings, self._stop, self._log)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python carries no types
    """Remembers that partitions came or went; it runs on the client's own thread."""

    def __init__(self) -> None:
        self.assigned = False
        self.changed = False

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.assigned, self.changed = False, True

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned, self.changed = True, True
