"""Open transactions: consumers of committed records are stuck where the first of them begins."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError


class OpenTransaction(NamedTuple):
    """A transaction that has written to a partition and has not ended.

    Attributes
    ----------
    topic : str
    partition : int
    offset : int
        Its first record there. Nobody who reads committed records gets this one or a later one.
    producer : str
        The transactional id, or the producer id if the broker does not tell more.
    since : str or None
        When it began, UTC, ISO 8601.
    """

    topic: str
    partition: int
    offset: int
    producer: str
    since: str | None

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return (
            f"{self.topic} partition {self.partition}: a transaction of {self.producer} is open"
            f" from offset {self.offset} on{since}"
        )


def open_transactions(client: KafkaAdminClient, place: TopicPartition) -> list[OpenTransaction]:
    """Return the transactions that are open on a partition, the one that holds it first.

    Raises
    ------
    KafkaError
        When the broker does not tell, among others brokers before 2.8.
    """
    found = [
        OpenTransaction(
            place.topic,
            place.partition,
            state.current_transaction_start_offset,
            *_who(client, state.producer_id),
        )
        for state in client.describe_producers([place])[place].active_producers
        if state.current_transaction_start_offset >= 0
    ]
    return sorted(found, key=lambda transaction: transaction.offset)


def _who(client: KafkaAdminClient, producer_id: int) -> tuple[str, str | None]:
    """Return the transactional id and the begin; a client without the right learns neither."""
    name, since = f"producer {producer_id}", None
    with suppress(KafkaError):
        listed = client.list_transactions(producer_id_filters=[producer_id]).values()
        for listing in chain.from_iterable(listed):
            name = listing.transactional_id
            began = client.describe_transactions([name])[name].transaction_start_time_ms
            if began >= 0:
                since = datetime.fromtimestamp(began // 1000, UTC).isoformat()[:19] + "Z"
    return name, since
