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
    KafkaTimeoutError,
    RetriableError,
    TransactionalIdNotFoundError,
    UnsupportedVersionError,
)

_TO_BE_COMMITTED = (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT)
_WAIT_SECONDS = 5.0


def initialize(
    client: KafkaAdminClient,
    producer: KafkaProducer,
    places: Collection[TopicPartition],
    log: logging.Logger,
    group: str | None = None,
) -> None:
    """Do what `init_transactions` does, then end what is left of the last transaction of that name.

    It is committed where the broker had decided so, else aborted: the transaction that does it
    adds nothing, and its end is the end of whatever the same producer left open.

    Parameters
    ----------
    client : KafkaAdminClient
    producer : KafkaProducer
    places : collection of TopicPartition
        All that transactions of that name may write to.
    log : logging.Logger
        Where it is said that something was left.
    group : str, optional
        The consumer group whose offsets they may commit.

    Raises
    ------
    KafkaError
    """
    name = producer.config["transactional_id"]
    state = _state(client, name)
    producer.init_transactions()
    left = _left_open(client, producer, places)
    if not left and (group is None or state is TransactionState.EMPTY):
        return
    commit = state in _TO_BE_COMMITTED
    producer.begin_transaction()
    _add(producer, left)
    if group is not None:
        producer.send_offsets_to_transaction({}, group)
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    if left:
        log.warning(
            "the broker had left the last transaction of %s open on %s; it is %s now",
            name,
            ", ".join(f"{place.topic} partition {place.partition}" for place in left),
            "committed" if commit else "aborted",
        )


def _state(client: KafkaAdminClient, name: str) -> TransactionState:
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return client.describe_transactions([name])[name].state
        except (TransactionalIdNotFoundError, UnsupportedVersionError):  # of a broker before 3.0
            return TransactionState.EMPTY
        except RetriableError:  # a cluster that is new makes the topic of transactions first
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _left_open(
    client: KafkaAdminClient, producer: KafkaProducer, places: Collection[TopicPartition]
) -> list[TopicPartition]:
    own = producer._transaction_manager.producer_id_and_epoch.producer_id
    try:
        found = client.describe_producers(places)
    except UnsupportedVersionError:
        return []
    return [
        place
        for place, state in sorted(found.items())
        for each in state.active_producers
        if each.producer_id == own and each.current_transaction_start_offset >= 0
    ]


def _add(producer: KafkaProducer, places: Collection[TopicPartition]) -> None:
    """Make partitions part of the transaction, without a record."""
    transaction = producer._transaction_manager
    for place in places:
        transaction.maybe_add_partition_to_transaction(place)
    producer._sender.wakeup()
    end = time.monotonic() + _WAIT_SECONDS
    while not all(transaction.is_partition_added(place) for place in places):
        if time.monotonic() > end:
            raise KafkaTimeoutError("partitions were not added to the transaction")
        time.sleep(0.005)
