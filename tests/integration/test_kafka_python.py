"""What kafka-python does that surprises, and that the services are built around.

A test that fails here after an update of kafka-python says that a precaution may go.
"""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from typing import Any

import kafka.errors
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
)
from kafka.producer.transaction_manager import TransactionalRequestResult
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


def test_a_wait_for_a_transaction_of_a_closed_producer_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka_workarounds, "LONGEST_WAIT_MS", 50)
    with pytest.raises(KafkaTimeoutError, match=r"no answer within 0\.05 s"):
        TransactionalRequestResult().wait()


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaAdminClient])
def test_a_client_that_finds_no_broker_leaves_no_thread_behind(kind: Any) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KafkaTimeoutError):
        kind(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=300)
    assert not set(threading.enumerate()) - before


def test_a_plain_commit_wipes_the_metadata_of_the_offset(
    topics: Topics, place: TopicPartition
) -> None:
    topics.write(1)
    reader = consumer(topics)
    reader.assign([place])
    reader.commit({place: OffsetAndMetadata(1, "tally", -1)})
    assert reader.committed(place, metadata=True, timeout_ms=10_000).metadata == "tally"
    reader.seek(place, 1)
    reader.commit()
    assert reader.committed(place, metadata=True, timeout_ms=10_000).metadata == ""
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


def test_of_two_producers_with_one_transactional_id_the_older_is_fenced(topics: Topics) -> None:
    name = uuid.uuid4().hex
    elder = transactional(topics, name)
    transactional(topics, name).close()
    elder.begin_transaction()
    elder.send(topics.settings.data_topic, b"{}", partition=0)
    with pytest.raises(KafkaError, match=r"ProducerFenced|InvalidProducerEpoch"):
        elder.commit_transaction()
    clients.close(elder)


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


def test_a_record_over_a_megabyte_is_refused_by_the_producer_before_it_is_sent(
    topics: Topics,
) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        topics.producer.send(topics.settings.data_topic, bytes(1_048_577), partition=0)


def _joined(reader: KafkaConsumer) -> bool:
    with suppress(NoOffsetForPartitionError):
        reader.poll(timeout_ms=100)
    return bool(reader.assignment())
