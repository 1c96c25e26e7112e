"""Transactions that a broker calls complete although some partitions are still open.

Seen with Kafka 4.3.1 in KRaft mode: a broker is killed during a transaction. After its restart it
is fenced for a moment, and its own partitions have no leaders. If it has to end the transaction
then, it skips these partitions as "likely deleted already" and calls the transaction complete.
Consumers with ``read_committed`` are stuck there, and the next commit under the same transactional
id would commit records that should be aborted.
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
    """Initializes producers of one transactional id, and ends what a broker left open under it.

    Parameters
    ----------
    name : str
        The transactional id.
    group : str, optional
        The consumer group whose offsets the transactions commit.
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
        """Call `init_transactions`, then end what the broker left open of the last transaction.

        An empty transaction ends it: the end of a transaction ends whatever its producer left open.
        It commits if the broker had decided to commit, else it aborts. The broker forgets that
        decision after `init_transactions`, so it is kept here until all is done, also over retries.

        Parameters
        ----------
        producer : KafkaProducer
            Has this transactional id.
        places : collection of TopicPartition
            All partitions that transactions of this id may write to.

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
        # Last: if this transaction is interrupted from here on, the broker aborts what was left.
        kafka_workarounds.add_to_transaction(producer, left)
        if self._commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        if left:
            self._log.warning(
                "the broker had left the last transaction of %s open on %s; it is now %s",
                self._name,
                ", ".join(f"{place.topic} partition {place.partition}" for place in left),
                "committed" if self._commit else "aborted",
            )


def _state(client: KafkaAdminClient, name: str) -> TransactionState | None:
    """Return the state of the last transaction, ``None`` if the broker is too old to tell."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return client.describe_transactions([name])[name].state
        except TransactionalIdNotFoundError:
            return TransactionState.EMPTY
        except UnsupportedVersionError:  # a broker before 3.0
            return None
        except RetriableError:  # a new cluster first creates its topic of transactions
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _left_open(
    client: KafkaAdminClient, producer: KafkaProducer, places: Collection[TopicPartition]
) -> list[TopicPartition]:
    own = kafka_workarounds.producer_id(producer)
    try:
        found = client.describe_producers(places)
    except TopicAuthorizationFailedError:  # its argument is not a topic
        topics = sorted({place.topic for place in places})
        raise TopicAuthorizationFailedError(topics, "Read") from None
    return [
        place
        for place, state in sorted(found.items())
        for each in state.active_producers
        if each.producer_id == own and each.current_transaction_start_offset >= 0
    ]
