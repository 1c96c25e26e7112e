"""The one transaction of a unit: outputs, and the offsets of both topics with the tallies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import (
    InvalidProducerEpochError,
    KafkaError,
    ProducerFencedError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from predictor.committed import Commit, about
from predictor.group import Group
from predictor.outputs import Message, messages
from predictor.result import Result
from predictor.settings import PredictorSettings
from stream import clients, refusals
from stream.seal import own_seal
from stream.service import Stop
from stream.transactions import Transactions

log = logging.getLogger("predictor")

COMMIT_SECONDS = 10.0
TRANSACTION_TIMEOUT_MS = 10_000


class CommitError(Exception):
    """A transaction failed; whether it was committed is known only after `Committer.renew`."""


class FencedError(CommitError):
    """Another producer has begun transactions under the same transactional id."""


class Committer:
    """Commits results with one transactional producer, all of each or nothing.

    Attributes
    ----------
    producer : KafkaProducer or None
        ``None`` before the first `renew`.
    """

    def __init__(self, settings: PredictorSettings, group: Group, stop: Stop) -> None:
        self.transactional_id = f"{settings.group_id}-{settings.replica}"
        self.producer: KafkaProducer | None = None
        self._settings = settings
        self._group = group
        self._stop = stop
        self._seal = own_seal(settings, log, make=True)
        self._transactions = Transactions(
            settings, self.transactional_id, log, group=settings.group_id
        )

    def renew(self) -> None:
        """Begin with a new producer, which ends the transaction that the last one left open."""
        clients.close(self.producer)
        self.producer = clients.connect(self._initialized, self._settings, self._stop, log)

    def commit(self, membership: ConsumerGroupMetadata, result: Result) -> list[int]:
        """Produce a result and commit the offsets after it.

        Parameters
        ----------
        membership : ConsumerGroupMetadata
            As it was when the records were read.

        Returns
        -------
        list of int
            The offset of each of its predictions on their topic.

        Raises
        ------
        CommitError
        """
        try:
            return self._stop.deadline(
                COMMIT_SECONDS, partial(self._transaction, membership, result)
            )
        except (KafkaError, OSError, ValueError) as error:
            refusals.raise_if_refused(error, self._settings, "Write", self.transactional_id)
            for found in refusals.causes(error):
                if isinstance(found, ProducerFencedError | InvalidProducerEpochError):
                    raise FencedError(repr(error)) from None
            raise CommitError(repr(error)) from None

    def _transaction(self, membership: ConsumerGroupMetadata, result: Result) -> list[int]:
        producer, topics, settings = self.producer, self._group.topics, self._settings
        assert producer is not None
        commits = {
            partition: Commit(state.offset, state.tally, tuple(state.early.offsets))
            for partition, state in result.states.items()
        }
        producer.begin_transaction()
        outputs = messages(result, commits, settings, topics.id, self._seal)
        sent: list[Any] = []
        try:
            sent.extend(producer.send(*output) for output in outputs)
            producer.send_offsets_to_transaction(self._offsets(commits), membership)
            producer.flush()
        finally:  # a record that was refused says more than what failed because of it
            _check(sent, outputs)
        # Asked after the records were read: an id never comes back, so they are this topic's.
        if self._group.describe()[:2] != topics[:2]:
            names = f"{settings.data_topic} or {settings.label_topic}"
            raise UnknownTopicOrPartitionError(f"{names} was recreated")
        producer.commit_transaction()
        return [future.get().offset for future in sent[: len(result.predictions)]]

    def _offsets(self, commits: Mapping[int, Commit]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return both offsets of each partition: one that is not committed for days expires."""
        offsets = {}
        for partition, commit in commits.items():
            for topic, offset, metadata in (
                (self._settings.data_topic, commit.offset, commit.tally.to_metadata()),
                (self._settings.label_topic, commit.tally.labels, commit.label_metadata()),
            ):
                if self._seal:
                    subject = about(self._settings.group_id, topic, partition, offset)
                    metadata = self._seal.sealed(subject, metadata)
                place = TopicPartition(topic, partition)
                offsets[place] = OffsetAndMetadata(offset, metadata, -1)
        return offsets

    def _initialized(self) -> KafkaProducer:
        self._group.ensure_topics()
        settings = self._settings
        producer = clients.producer(
            settings,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            linger_ms=5,
        )
        outputs = [
            TopicPartition(topic, partition)
            for topic in (
                settings.prediction_topic,
                settings.rejected_topic,
                settings.label_rejected_topic,
            )
            for partition in range(self._group.topics.partitions)
        ]
        initialize = partial(self._transactions.initialize, producer, outputs)
        try:
            self._stop.deadline(COMMIT_SECONDS, initialize)
        except BaseException as error:
            clients.close(producer)
            refusals.raise_if_refused(error, settings, transaction=self.transactional_id)
            raise
        return producer


def _check(sent: Sequence[Any], outputs: Sequence[Message]) -> None:
    """Raise the error of the first record that the brokers did not take, with its topic."""
    for future, output in zip(sent, outputs, strict=False):  # fewer are sent where a send raises
        if future.failed():
            size = len(output.value) + len(output.key or b"")
            raise refusals.TopicError(output.topic, future.exception, size)
