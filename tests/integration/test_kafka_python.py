"""What kafka-python does that surprises, and that the services are built around.

A test that fails here after an update of kafka-python says that a precaution may go.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import inspect
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import kafka.errors
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.consumer.fetcher import Fetcher
from kafka.errors import (
    InvalidTransactionTimeoutError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    ProducerFencedError,
    SaslAuthenticationFailedError,
    UnknownBrokerIdError,
    UnknownError,
    UnsupportedSaslMechanismError,
)
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.transaction_manager import TransactionManager
from kafka.structs import OffsetAndMetadata

from stream import clients, kafka_workarounds
from stream.deadlines import DeadlineExceeded
from stream.service import Stop
from tests.services import eventually
from tests.topics import Topics


@pytest.fixture
def place(topics: Topics) -> TopicPartition:
    return TopicPartition(topics.settings.data_topic, 0)


def consumer(topics: Topics, **options: Any) -> KafkaConsumer:
    return clients.consumer(topics.settings, group_id=topics.group, **options)


def transactional(topics: Topics, name: str, **options: Any) -> KafkaProducer:
    producer = clients.producer(topics.settings, transactional_id=name, **options)
    producer.init_transactions()
    return producer


@pytest.fixture(params=[False, True], ids=["unpatched", "patched"])
def patched(request: pytest.FixtureRequest) -> bool:
    """Whether a test tries the workaround, or shows that it is still needed."""
    return bool(request.param)


def test_the_wait_for_a_transaction_of_a_closed_producer_times_out(
    topics: Topics, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_workarounds, "LONGEST_WAIT_MS", 50)
    producer = transactional(topics, uuid.uuid4().hex)
    producer.begin_transaction()
    producer.close(timeout=5)
    end = producer._transaction_manager.begin_commit()
    if patched:
        with pytest.raises(KafkaTimeoutError, match=r"no answer within 0\.05 s"):
            end.wait()
    else:
        with pytest.raises(DeadlineExceeded):
            Stop().deadline(1, partial(kafka_workarounds.unpatched_wait, end))
        end.done()  # or its thread would wait for ever


def test_a_fenced_producer_does_not_fence_its_successor(
    topics: Topics, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not patched:
        original = kafka_workarounds.unpatched_supports_epoch_bump
        monkeypatch.setattr(TransactionManager, "_supports_epoch_bump", original)
    name, topic = uuid.uuid4().hex, topics.settings.model_topic
    elder = transactional(topics, name, linger_ms=0)
    elder.begin_transaction()
    elder.send(topic, b"first", partition=0).get(30)
    successor = transactional(topics, name, linger_ms=0)
    successor.begin_transaction()
    successor.send(topic, b"first", partition=0).get(30)
    lost = elder.send(topic, b"second", partition=0)
    fenced = r"ProducerFenced|InvalidProducerEpoch" + ("" if patched else "|BUMPING_PRODUCER_EPOCH")
    for call in (elder.commit_transaction, partial(lost.get, 30)):
        with pytest.raises(KafkaError, match=fenced):
            Stop().deadline(60, call)
    if patched:
        successor.commit_transaction()
        topics.await_decided()
        assert [record.value for record in topics.records(topic)] == [b"first"]
    else:
        with pytest.raises(ProducerFencedError):
            successor.commit_transaction()
    clients.close(elder, successor)


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaAdminClient])
def test_a_client_that_finds_no_broker_leaves_no_thread_behind(kind: Any, patched: bool) -> None:
    before = set(threading.enumerate())
    client = kind.__new__(kind)
    initialize = kind.__init__ if patched else kafka_workarounds.unpatched_init[kind]
    with pytest.raises(KafkaTimeoutError):
        initialize(client, bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=300)
    assert bool(set(threading.enumerate()) - before) == (not patched)
    client._client.close()
    client._net.close()


@pytest.mark.parametrize("kind", [KafkaTCPTransport, KafkaSSLTransport])
def test_what_a_broker_says_before_it_closes_the_connection_is_read(
    kind: Any, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net:
        async def wait_read(self, _: object) -> None:
            """There is always something to read."""

        def unregister_event(self, *_: object) -> None:
            """Nothing was registered."""

    class Protocol:
        _sensors = None
        said: ClassVar[list[bytes]] = []
        lost: ClassVar[list[object]] = []

        def data_received(self, data: bytes) -> None:
            self.said.append(data)

        def connection_lost(self, error: object) -> None:
            self.lost.append(error)

    if not patched:
        monkeypatch.setattr(kind, "_sock_recv", kafka_workarounds.unpatched_receive[kind])
    ours, brokers = socket.socketpair()
    transport = kind.__new__(kind)
    KafkaTCPTransport.__init__(transport, Net(), ours)
    transport.set_protocol(Protocol())
    transport._read = True
    brokers.sendall(b"wrong password")
    brokers.close()
    asyncio.run(transport._read_from_sock())
    assert Protocol.said == ([b"wrong password"] if patched else [])
    assert len(Protocol.lost) == 1


@pytest.mark.parametrize("refusal", [SaslAuthenticationFailedError, UnsupportedSaslMechanismError])
def test_a_refused_login_is_raised_as_the_error_that_ends_the_retries(
    refusal: type[KafkaError], patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_: object) -> None:
        raise refusal("wrong password")

    async def no_versions(*_: object) -> None:
        return None

    monkeypatch.setattr(KafkaConnection, "_get_api_versions", no_versions)
    monkeypatch.setattr(kafka_workarounds, "unpatched_authenticate", answer)
    connection = KafkaConnection(None, security_protocol="SASL_PLAINTEXT")
    if patched:
        with pytest.raises(SaslAuthenticationFailedError, match="wrong password"):
            asyncio.run(connection.initialize())
    else:
        asyncio.run(kafka_workarounds.unpatched_initialize(connection))


def test_a_producer_whose_flush_times_out_is_closed(
    topics: Topics, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = clients.producer(topics.settings)
    producer.send(topics.settings.data_topic, b"sent", partition=0).get(30)
    silent = threading.Event()

    def no_broker() -> None:
        silent.set()
        time.sleep(0.05)

    monkeypatch.setattr(producer._sender, "run_once", no_broker)
    producer._sender.wakeup()
    assert silent.wait(60)
    producer.send(topics.settings.data_topic, b"not sent", partition=0)
    if not patched:
        with pytest.raises(KafkaTimeoutError):
            producer.close(timeout=1)
        assert (producer._closed, producer._sender.is_alive()) == (False, True)
    kafka_workarounds.close_producer(producer)
    producer._sender.join(10)
    assert (producer._closed, producer._sender.is_alive()) == (True, False)


def test_a_transaction_is_extended_to_a_partition_without_a_record(
    topics: Topics, place: TopicPartition
) -> None:
    assert not [name for name in dir(KafkaProducer) if re.search("add_|producer_id", name)]
    name = uuid.uuid4().hex
    producer = transactional(topics, name)
    producer.begin_transaction()
    kafka_workarounds.add_to_transaction(producer, [place])
    found = topics.admin.describe_transactions([name])[name]
    assert found.producer_id == kafka_workarounds.producer_id(producer)
    producer.commit_transaction()
    clients.close(producer)


def test_a_plain_commit_wipes_the_metadata_of_the_offset(
    topics: Topics, place: TopicPartition
) -> None:
    topics.write(1)
    reader = consumer(topics)
    reader.assign([place])
    reader.commit({place: OffsetAndMetadata(1, "tally", -1)})
    assert reader.committed(place, metadata=True, timeout_ms=30_000).metadata == "tally"
    reader.seek(place, 1)
    reader.commit()
    assert reader.committed(place, metadata=True, timeout_ms=30_000).metadata == ""
    reader.close()


def test_without_a_committed_offset_poll_raises_and_does_not_move(
    topics: Topics, place: TopicPartition
) -> None:
    reader = consumer(topics)
    reader.assign([place])
    with pytest.raises(NoOffsetForPartitionError):
        eventually(lambda: reader.poll(timeout_ms=5_000))
    reader.close()


@pytest.mark.parametrize(
    ("option", "default", "ours"),
    [
        ("enable_auto_commit", True, False),
        ("auto_offset_reset", "latest", "none"),
        ("isolation_level", "read_uncommitted", "read_committed"),
    ],
)
def test_a_default_that_would_lose_or_double_records_is_overridden(
    topics: Topics, option: str, default: object, ours: object
) -> None:
    assert KafkaConsumer.DEFAULT_CONFIG[option] == default
    assert topics.consumer.config[option] == ours


def test_an_absent_broker_raises_a_timeout_and_not_no_brokers_available() -> None:
    assert not hasattr(kafka.errors, "NoBrokersAvailable")
    with pytest.raises(KafkaTimeoutError):
        KafkaConsumer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=200)


def test_checksums_are_made_by_the_compiled_package() -> None:
    assert importlib.util.find_spec("crc32c") is not None
    from kafka.record.util import calc_crc32c

    assert calc_crc32c(b"123456789") == 0xE3069283


def test_commit_and_abort_have_no_timeout_so_they_get_a_deadline() -> None:
    for call in (KafkaProducer.commit_transaction, KafkaProducer.abort_transaction):
        assert list(inspect.signature(call).parameters) == ["self"]
    stop = Stop()
    with pytest.raises(DeadlineExceeded):
        stop.deadline(0.2, lambda: Stop().wait(30))


def test_committed_waits_while_a_killed_transaction_over_the_offset_is_pending(
    topics: Topics, place: TopicPartition
) -> None:
    topics.write(1)
    reader = consumer(topics)
    reader.subscribe([place.topic])
    eventually(lambda: _joined(reader))
    killed = transactional(topics, f"{topics.group}-killed", transaction_timeout_ms=30_000)
    killed.begin_transaction()
    offsets = {place: OffsetAndMetadata(1, "tally", -1)}
    killed.send_offsets_to_transaction(offsets, reader.group_metadata())

    def waits() -> bool:
        try:
            reader.committed(place, timeout_ms=1_000)
        except KafkaTimeoutError:
            return True
        return False  # what was sent is still on its way

    eventually(waits)
    # Its successor of the same name ends the transaction at once.
    successor = transactional(topics, f"{topics.group}-killed")
    assert eventually(lambda: [reader.committed(place, timeout_ms=5_000)]) == [None]
    clients.close(killed, successor, reader)


def test_a_late_answer_to_committed_is_returned_to_the_next_call(
    topics: Topics, place: TopicPartition
) -> None:
    writer, reader = consumer(topics), consumer(topics)
    writer.assign([place])
    writer.commit({place: OffsetAndMetadata(1, "", -1)})
    assert reader.committed(place, timeout_ms=30_000) == 1
    with pytest.raises(KafkaTimeoutError):
        reader.committed(place, timeout_ms=0)
    answers = reader._coordinator._offset_fetch_futures.values()
    eventually(lambda: all(answer.is_done for answer in answers))
    writer.commit({place: OffsetAndMetadata(2, "", -1)})
    assert [reader.committed(place, timeout_ms=30_000) for _ in range(2)] == [1, 2]
    clients.close(writer, reader)


def test_a_consumer_that_left_has_no_membership(topics: Topics, place: TopicPartition) -> None:
    reader = consumer(topics)
    reader.subscribe([place.topic])
    eventually(lambda: _joined(reader))
    snapshot = reader.group_metadata()
    assert snapshot.generation_id >= 0
    reader.unsubscribe()
    reader.close()
    assert (reader.group_metadata().generation_id, reader.group_metadata().member_id) == (-1, "")
    assert snapshot.generation_id >= 0


POLL_TWICE = """
import sys
from kafka import KafkaConsumer, TopicPartition
from kafka.serializer import Deserializer

class Number(Deserializer):
    def deserialize(self, topic, headers, data):
        return int(data)

place = TopicPartition(sys.argv[2], 0)
consumer = KafkaConsumer(bootstrap_servers=sys.argv[1], value_deserializer=Number())
consumer.assign([place])
consumer.seek(place, 0)
for _ in range(2):
    try:
        while not consumer.poll(timeout_ms=500): pass
    except ValueError:
        print("raised", flush=True)
"""


def test_after_an_exception_in_a_deserializer_poll_never_returns(topics: Topics) -> None:
    topics.write_values([b"not a number"])
    broker = topics.settings.kafka_bootstrap_servers
    command = [sys.executable, "-c", POLL_TWICE, broker, topics.settings.data_topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "raised\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def test_a_record_over_a_megabyte_is_refused_by_a_producer_unless_that_is_overridden(
    topics: Topics, place: TopicPartition
) -> None:
    broker = topics.settings.kafka_bootstrap_servers
    plain = KafkaProducer(bootstrap_servers=broker)
    with pytest.raises(MessageSizeTooLargeError, match="max_request_size"):
        plain.send(place.topic, bytes(1_048_577), partition=0)
    clients.close(plain)
    with pytest.raises(MessageSizeTooLargeError):  # the broker's answer
        topics.producer.send(place.topic, bytes(1_048_577), partition=0).get(30)


def test_a_flush_raises_when_a_batch_is_split_meanwhile_unless_it_is_repeated(
    topics: Topics, place: TopicPartition
) -> None:
    limit = ConfigResource(ConfigResourceType.TOPIC, place.topic, {"max.message.bytes": "1000"})
    topics.admin.alter_configs([limit])

    def send() -> list[Any]:
        return [topics.producer.send(place.topic, bytes(200), partition=0) for _ in range(50)]

    def raises() -> bool:
        send()
        try:
            kafka_workarounds.unpatched_flush(topics.producer, 30)
        except UnknownError as error:
            return bool(error.args == ("Future not done",))
        return False  # a batch may be split before the flush looks at it

    eventually(raises)
    sent = send()
    topics.producer.flush(30)
    assert all(future.succeeded() for future in sent)


def test_some_answers_to_a_transactional_producer_are_told_in_a_text_alone(
    topics: Topics,
) -> None:
    with pytest.raises(KafkaError) as raised:  # the broker allows 15 minutes
        transactional(topics, uuid.uuid4().hex, transaction_timeout_ms=1_000_000)
    assert raised.type is KafkaError
    assert not isinstance(raised.value.args[0], KafkaError)
    (answer,) = kafka_workarounds.errors_in_text(raised.value)
    assert isinstance(answer, InvalidTransactionTimeoutError)


def test_the_brokers_of_a_cluster_are_known_before_they_are_reached(topics: Topics) -> None:
    host, port = topics.settings.kafka_bootstrap_servers.split(":")
    (broker,) = kafka_workarounds.advertised(topics.admin)
    assert (broker.host, broker.port) == (host, int(port))


def test_how_far_committed_records_can_be_read_is_known_without_asking(
    topics: Topics, place: TopicPartition
) -> None:
    assert not [name for name in dir(KafkaConsumer) if re.search("stable|lag", name)]
    reader = consumer(topics)
    reader.assign([place])
    reader.seek(place, 0)
    topics.write(2)
    writer = transactional(topics, uuid.uuid4().hex)
    for count in (1, 2):
        writer.begin_transaction()
        writer.send(place.topic, b"aborted", partition=0).get(30)
        if count == 1:
            writer.abort_transaction()

    def read() -> bool:
        reader.poll(timeout_ms=200)
        # Two records, an aborted one, its marker, and then an open transaction.
        expected = kafka_workarounds.Progress(position=4, readable=4, end=5)
        return kafka_workarounds.progress(reader) == {place: expected}

    eventually(read, message=lambda: str(kafka_workarounds.progress(reader)))
    assert reader.highwater(place) == 5
    writer.abort_transaction()
    clients.close(writer, reader)


def _joined(reader: KafkaConsumer) -> bool:
    with suppress(NoOffsetForPartitionError):
        reader.poll(timeout_ms=100)
    return bool(reader.assignment())


def test_a_poll_ends_when_its_records_have_many_bytes(
    topics: Topics, place: TopicPartition, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not patched:
        monkeypatch.setattr(Fetcher.PartitionRecords, "take", kafka_workarounds.unpatched_take)
        monkeypatch.setattr(Fetcher, "_append", kafka_workarounds.unpatched_append)
    with clients.closing(clients.producer(topics.settings, compression_type="gzip")) as producer:
        for _ in range(64):
            producer.send(place.topic, bytes(2**20), partition=0)
        producer.flush(30)
    with clients.closing(clients.consumer(topics.settings)) as reader:
        reader.assign([place])
        reader.seek(place, 0)
        polled: list[int] = []
        while sum(polled) < 64:
            polled.append(len(reader.poll(1_000, max_records=5_000).get(place, ())))
        assert reader.position(place) == 64
    # 16 MiB are 16 of them.
    assert (max(polled) <= 16) == patched


def test_a_partition_that_was_paused_with_records_to_deliver_is_read_after_it_is_resumed(
    three: Topics, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not patched:
        unpatched = kafka_workarounds.unpatched_fetched_records
        monkeypatch.setattr(Fetcher, "fetched_records", unpatched)
    three.write(30)
    first, second, _ = places = [TopicPartition(three.settings.data_topic, p) for p in range(3)]
    with clients.closing(clients.consumer(three.settings)) as reader:

        def poll(most: int) -> int:
            return sum(map(len, reader.poll(timeout_ms=200, max_records=most).values()))

        reader.assign(places)
        reader.pause(*places)
        for place in places:
            reader.seek(place, 0)
        reader.resume(first)
        eventually(lambda: poll(1))
        reader.resume(second)
        reader.pause(first)
        read = 0
        while read < 10:
            read += poll(20)
        reader.resume(first)
        if patched:
            eventually(lambda: poll(20))
        else:
            assert not any(poll(20) for _ in range(10))


def test_the_end_of_a_partition_that_was_just_added_is_told(
    topics: Topics, place: TopicPartition, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not patched:
        unpatched = kafka_workarounds.unpatched_send_list_offsets_requests
        monkeypatch.setattr(Fetcher, "_send_list_offsets_requests", unpatched)
    added = TopicPartition(place.topic, 1)
    # By itself, a client hears of it once its metadata is old.
    age = {} if patched else {"metadata_max_age_ms": 300_000}
    with clients.closing(clients.consumer(topics.settings, **age)) as reader:
        assert reader.end_offsets([place], timeout_ms=30_000) == {place: 0}
        topics.admin.create_partitions({place.topic: 2})
        if patched:
            assert reader.end_offsets([place, added], timeout_ms=30_000) == {place: 0, added: 0}
        else:
            with pytest.raises(KeyError):
                reader.end_offsets([place, added], timeout_ms=30_000)


@pytest.mark.parametrize("patched", [True, False])
def test_a_broker_that_joined_after_the_client_connected_is_found(
    topics: Topics, place: TopicPartition, patched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not patched:
        unpatched = kafka_workarounds.unpatched_get_connection
        monkeypatch.setattr(KafkaConnectionManager, "get_connection", unpatched)
    with clients.closing(clients.admin(topics.settings)) as admin:
        brokers = admin._manager.cluster._brokers
        joined = dict(brokers)
        brokers.clear()  # as it was when the client connected: another one is there
        other = copy.copy(*joined.values())
        other.node_id = 999
        brokers[other.node_id] = other
        with pytest.raises(UnknownBrokerIdError):
            admin.list_partition_offsets({place: OffsetSpec.LATEST})
        if patched:
            eventually(lambda: admin._manager.cluster._brokers.keys() == joined.keys(), 30)
            found = admin.list_partition_offsets({place: OffsetSpec.LATEST})
            assert found[place].offset == 0
        else:
            assert not admin._manager.cluster.need_update
            assert admin._manager.cluster.ttl() > 240_000


def test_a_consumer_says_what_it_reads(topics: Topics, place: TopicPartition) -> None:
    with clients.closing(clients.consumer(topics.settings)) as reader:
        reader.assign([place])
        reader.seek(place, 7)
        assert reader._reading() == f"reading {place.topic} partition 0 offset 7"
