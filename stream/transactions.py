"""Transactions that a broker calls complete without having ended them on every topic.

Seen with Kafka 4.3.1 in KRaft mode: a broker that was killed within a transaction and comes back is
fenced at first, and has no leaders for its own partitions. What it has to end meanwhile it skips
as "likely deleted already", and calls the transaction complete. Readers of committed records get
no further, and the next commit under the same name would commit what was to be aborted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import TransactionState
from kafka.errors import (
    RetriableError,
    TopicAuthorizationFailedError,
    TransactionalIdNotFoundError,
    UnsupportedVersionError,
)

from stream import clients, kafka_workarounds
from stream.settings import StreamSettings

_COMMITTED = (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)
_WAIT_SECONDS = 5.0


class Transactions:
    """Begins the transactions of a name, after the end of the last one.

    Parameters
    ----------
    settings : StreamSettings
    name : str
        The transactional id.
    log : logging.Logger
        Where it is said that something was left open.
    group : str, optional
        The consumer group whose offsets they commit.
    """

    def __init__(
        self, settings: StreamSettings, name: str, log: logging.Logger, group: str | None = None
    ) -> None:
        self._settings = settings
        self._name = name
        self._log = log
        self._group = group
        self._commit: bool | None = None

    def initialize(self, producer: KafkaProducer, places: Collection[TopicPartition]) -> None:
        """Do what `init_transactions` does, then end what is left of the last transaction.

        It is committed where the broker had decided so, else aborted: the transaction that does it
        adds nothing, and its end is the end of whatever the same producer left open. What the
        broker had decided it no longer tells after the first step; it is kept until all is done,
        over as many tries as that takes.

        Parameters
        ----------
        producer : KafkaProducer
            Of this name.
        places : collection of TopicPartition
            All that transactions of this name may write to.

        Raises
        ------
        KafkaError
        """
        client = clients.admin(self._settings)
        try:
            state = _state(client, self._name)
            if self._commit is None and state not in (None, TransactionState.EMPTY):
                self._commit = state in _COMMITTED
            producer.init_transactions()
            if state is not None:
                self._end_the_last(producer, _left_open(client, producer, places))
            self._commit = None
        finally:
            clients.close(client)

    def _end_the_last(self, producer: KafkaProducer, left: Collection[TopicPartition]) -> None:
        if not left and (self._group is None or self._commit is None):
            return
        producer.begin_transaction()
        if self._group is not None:
            producer.send_offsets_to_transaction({}, self._group)
        # Last: should this transaction be cut short from here on, the broker aborts what was left.
        kafka_workarounds.add_to_transaction(producer, left)
        if self._commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        if left:
            self._log.warning(
                "the broker had left the last transaction of %s open on %s; it is %s now",
                self._name,
                ", ".join(f"{place.topic} partition {place.partition}" for place in left),
                "committed" if self._commit else "aborted",
            )


def _state(client: KafkaAdminClient, name: str) -> TransactionState | None:
    """Return the state of the last transaction of a name, ``None`` where a broker cannot tell."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return client.describe_transactions([name])[name].state
        except TransactionalIdNotFoundError:
            return TransactionState.EMPTY
        except UnsupportedVersionError:  # before 3.0
            return None
        except RetriableError:  # a cluster that is new makes the topic of transactions first
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _left_open(
    client: KafkaAdminClient, producer: KafkaProducer, places: Collection[TopicPartition]
) -> list[TopicPartition]:
    own = kafka_workarounds.producer_id(producer)
    try:
        found = client.describe_producers(places)
    except TopicAuthorizationFailedError:  # its own text is no topic
        topics = sorted({place.topic for place in places})
        raise TopicAuthorizationFailedError(topics, "Read") from None
    return [
        place
        for place, state in sorted(found.items())
        for each in state.active_producers
        if each.producer_id == own and each.current_transaction_start_offset >= 0
    ]
