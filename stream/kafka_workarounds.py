"""Workarounds for bugs in kafka-python 3.0.12, applied on import.

Each has a test in `tests/integration/test_kafka_python.py` that fails once the bug is fixed, by
calling what was patched here: the names that start with ``unpatched``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    KafkaTimeoutError,
    NotControllerError,
    SaslAuthenticationFailedError,
    UnknownBrokerIdError,
    UnknownError,
    UnsupportedSaslMechanismError,
    for_code,
)
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.transaction_manager import TransactionalRequestResult, TransactionManager

from stream import batches

LONGEST_WAIT_MS = 120_000
"""Longer than any transaction of the services may take."""

_ADD_SECONDS = 5.0


# Symptom: a batch that cannot be decoded leaves `poll` spinning for ever: the generator that raised
# is asked again and again.

Fetcher.PartitionRecords._unpack_records = batches.unpack_records


# Symptom: a poll is bounded by a number of records alone, and compressed ones may unpack to
# gigabytes. Here it ends at the record with which those of a partition reach `POLL_BYTES`.

POLL_BYTES = 16 * 2**20


def _take(part: Any, most: int | None = None) -> list[Any]:
    part._maybe_raise_next_inline_exception()
    found, size = [], 0
    try:
        for record in islice(part.record_iterator, most):
            found.append(record)
            size += record.serialized_value_size
            if size >= POLL_BYTES:
                break
    except Exception as error:
        if not found:
            raise
        part._next_inline_exception = error  # raised at the next call, as the client does
    part.is_full = size >= POLL_BYTES
    return found


def _append(fetcher: Any, drained: Any, part: Any, most: int, update_offsets: bool) -> int:
    taken: int = unpatched_append(fetcher, drained, part, most, update_offsets)
    return most if getattr(part, "is_full", False) else taken


unpatched_take, unpatched_append = Fetcher.PartitionRecords.take, Fetcher._append
Fetcher.PartitionRecords.take, Fetcher._append = _take, _append


# Symptom: the wait for the end of a transaction has no timeout. If the producer is closed meanwhile
# the thread waits for ever, and keeps the producer's memory.


def _wait(result: Any, timeout_ms: float | None = None) -> bool:
    done = unpatched_wait(result, LONGEST_WAIT_MS if timeout_ms is None else timeout_ms)
    if timeout_ms is None and not done:
        raise KafkaTimeoutError(f"no answer within {LONGEST_WAIT_MS / 1_000:g} s")
    return bool(done)


unpatched_wait = TransactionalRequestResult.wait
TransactionalRequestResult.wait = _wait


# Symptom: a transactional producer that the broker has fenced requests a new epoch by itself. That
# fences its successor, and `commit_transaction` may report as committed what the broker has
# aborted. Without a new epoch it raises, as it should.


def _supports_epoch_bump(manager: Any) -> bool:
    return not manager.is_transactional() and bool(unpatched_supports_epoch_bump(manager))


unpatched_supports_epoch_bump = TransactionManager._supports_epoch_bump
TransactionManager._supports_epoch_bump = _supports_epoch_bump


# Symptom: the constructor of a client that finds no broker raises, and leaves its thread and its
# connections behind.


def _close_if_it_raises(initialize: Callable[..., None]) -> Callable[..., None]:
    def initialize_or_close(client: Any, *topics: str, **options: Any) -> None:
        try:
            initialize(client, *topics, **options)
        except BaseException:
            if hasattr(client, "_net"):
                client._client.close()
                client._net.close()
            raise

    return initialize_or_close


unpatched_init = {kind: kind.__init__ for kind in (KafkaConsumer, KafkaAdminClient)}
for _kind, _init in unpatched_init.items():
    _kind.__init__ = _close_if_it_raises(_init)


# Symptom: a wrong password is retried for ever. The broker's answer arrives together with the end
# of the connection, and then it is dropped. So the data is handed on first, and the error at the
# next call.


def _data_first(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    def receive_data_first(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return data, None if data else error

    return receive_data_first


unpatched_receive = {kind: kind._sock_recv for kind in (KafkaTCPTransport, KafkaSSLTransport)}
for _kind, _receive in unpatched_receive.items():
    _kind._sock_recv = _data_first(_receive)


# Symptom: the same, although the answer is read: `initialize` does not raise, and of the errors of
# SASL only one class ends the retries.

_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


async def _authenticate(connection: Any, timeout_at: float | None = None) -> None:
    try:
        await unpatched_authenticate(connection, timeout_at)
    except _REFUSALS as error:
        connection.refusal = error
        raise


async def _initialize(connection: Any, timeout_at: float | None = None) -> None:
    connection.refusal = None
    await unpatched_initialize(connection, timeout_at)
    if connection.refusal:
        raise SaslAuthenticationFailedError(*connection.refusal.args or (connection.refusal,))


unpatched_authenticate = KafkaConnection._sasl_authenticate
unpatched_initialize = KafkaConnection.initialize
KafkaConnection._sasl_authenticate = _authenticate
KafkaConnection.initialize = _initialize


# Symptom: a producer whose flush times out in `close` stays half closed. Its thread goes on, and it
# does the same again, with a stack trace, when it is garbage collected.


def close_producer(producer: KafkaProducer) -> None:
    """Close a producer within about a second; drop the records that are not sent by then."""
    try:
        producer.close(timeout=1)
    except KafkaTimeoutError:
        producer._sender.force_close()
        producer.close(timeout=1)


# Symptom: a flush raises `UnknownError` when a batch that was too large for its topic is split
# meanwhile.


def _flush(producer: KafkaProducer, timeout: float | None = None) -> None:
    while True:
        try:
            unpatched_flush(producer, timeout)
        except UnknownError as error:
            if error.args == ("Future not done",):
                continue  # the halves of the batch are waited for now
            raise
        return


unpatched_flush = KafkaProducer.flush
KafkaProducer.flush = _flush


# Missing: a way to add a partition to a transaction without sending a record, and to ask a producer
# for its id. `stream/transactions.py` needs both to end what a broker left open.


def producer_id(producer: KafkaProducer) -> int:
    """Return the id that the broker gave to a transactional producer."""
    return int(producer._transaction_manager.producer_id_and_epoch.producer_id)


def add_to_transaction(producer: KafkaProducer, places: Collection[TopicPartition]) -> None:
    """Add partitions to the open transaction without sending a record.

    Raises
    ------
    KafkaError
    """
    transaction = producer._transaction_manager
    for place in places:
        transaction.maybe_add_partition_to_transaction(place)
    producer._sender.wakeup()
    end = time.monotonic() + _ADD_SECONDS
    while not all(transaction.is_partition_added(place) for place in places):
        if transaction.last_error:
            raise transaction.last_error
        if time.monotonic() > end:
            raise KafkaTimeoutError("partitions were not added to the transaction")
        time.sleep(0.005)


# Symptom: a transactional producer tells some answers of the broker only in the text of a plain
# `KafkaError`.

_CODE = re.compile(r"\[Error (\d+)\]")


def errors_in_text(error: BaseException) -> Iterator[KafkaError]:
    """Yield the broker's answers that a plain `KafkaError` has in its text."""
    if type(error) is KafkaError:
        for code in _CODE.findall(" ".join(part for part in error.args if isinstance(part, str))):
            yield for_code(int(code))()


# Symptom: where the controller moves twice, the admin client raises an error that is no
# `KafkaError`.


async def _send_to_controller(client: Any, *request: Any, **options: Any) -> Any:
    try:
        return await unpatched_send_to_controller(client, *request, **options)
    except RuntimeError as error:
        raise NotControllerError(str(error)) from None


unpatched_send_to_controller = KafkaAdminClient._send_request_to_controller
KafkaAdminClient._send_request_to_controller = _send_to_controller


# Missing: a way to ask a client for the addresses that the brokers advertise.


class Broker(NamedTuple):
    """A broker as the cluster advertises it."""

    id: int
    host: str
    port: int


def cluster_id(client: KafkaConsumer) -> str | None:
    """Return the id of the cluster; ``None`` if the brokers give none, or were not asked yet."""
    found: str | None = client._cluster.cluster_id
    return found


def advertised(client: KafkaAdminClient) -> list[Broker]:
    """Return the brokers under the addresses by which clients are to reach them."""
    brokers = client._manager.cluster.brokers()
    return sorted(Broker(broker.node_id, broker.host, broker.port) for broker in brokers)


# Missing: how far a consumer of committed records can read. `highwater` counts what is behind an
# open transaction, and `position` asks the broker and raises where none answers.


class Progress(NamedTuple):
    """How far a consumer has read a partition, as of the last answer of the broker.

    Attributes
    ----------
    position : int
        The next offset to read.
    readable : int
        The last stable offset: the first one behind what is committed or aborted.
    end : int
        The first offset behind all records. If `readable` is lower, a transaction is open.
    """

    position: int
    readable: int
    end: int


def progress(consumer: KafkaConsumer) -> dict[TopicPartition, Progress]:
    """Return how far a consumer has read each partition of which the broker has told an end."""
    return {
        place: Progress(state.position.offset, state.readable, state.highwater)
        for place, state in dict(consumer._subscription.assignment).items()
        if state.position
        and getattr(state, "readable", None) is not None
        and state.highwater is not None
    }


def _parse_fetched_data(fetcher: Any, fetch: Any) -> Any:
    parsed = unpatched_parse_fetched_data(fetcher, fetch)
    state = fetcher._subscriptions.assignment.get(fetch.topic_partition)
    if state and (readable := fetch.partition_data.last_stable_offset) >= 0:
        state.readable = readable
    return parsed


unpatched_parse_fetched_data = Fetcher._parse_fetched_data
Fetcher._parse_fetched_data = _parse_fetched_data


# Symptom: a partition that is paused while some of its records wait to be delivered, and resumed
# later, is never read again, if those of another partition were delivered to the last meanwhile.


def _fetched_records(fetcher: Any, *args: Any, **options: Any) -> Any:
    if not fetcher._next_partition_records:  # all delivered, but not `None`, as it looks for
        fetcher._next_partition_records = None
    return unpatched_fetched_records(fetcher, *args, **options)


unpatched_fetched_records = Fetcher.fetched_records
Fetcher.fetched_records = _fetched_records


# Symptom: `end_offsets` and `beginning_offsets` raise `KeyError` for a partition that the client
# does not know yet, as one that was just added. It leaves that one out instead of asking again.


async def _send_list_offsets_requests(fetcher: Any, timestamps: Any) -> tuple[Any, set[Any]]:
    leader = fetcher._manager.cluster.leader_for_partition
    unknown = {place for place in timestamps if leader(place) in (None, -1)}
    found, again = await unpatched_send_list_offsets_requests(fetcher, timestamps)
    return found, again | unknown


unpatched_send_list_offsets_requests = Fetcher._send_list_offsets_requests
Fetcher._send_list_offsets_requests = _send_list_offsets_requests


# Symptom: a client that connected before a broker had joined the cluster raises
# `UnknownBrokerIdError` for everything that this broker leads, for five minutes: only then does it
# read the brokers again.


def _get_connection(manager: Any, *args: Any, **options: Any) -> Any:
    try:
        return unpatched_get_connection(manager, *args, **options)
    except UnknownBrokerIdError:
        manager.cluster.request_update()
        raise


unpatched_get_connection = KafkaConnectionManager.get_connection
KafkaConnectionManager.get_connection = _get_connection
