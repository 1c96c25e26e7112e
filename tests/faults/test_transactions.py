"""Transactions that a broker calls complete and has left open on a topic.

A broker that is killed does so now and then (`stream/transactions.py` says when). Here it is never
told of a partition that a transaction writes to, and so does not end it there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from kafka import KafkaAdminClient, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError

from local.kafka import LocalKafka
from stream import clients
from stream.records import Prediction, encode_prediction
from stream.transactions import Transactions
from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.topics import Topics


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    """A broker that takes records of transactions whose partitions it was not told of."""
    properties = {"transaction.partition.verification.enable": "false"}
    with LocalKafka(tmp_path / "kafka", properties=properties) as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def topics(topics: Topics) -> Topics:
    topics.publish(1)
    return topics


def begun(topics: Topics, name: str, place: TopicPartition, value: bytes) -> KafkaProducer:
    """Begin a transaction that will be left open on a partition, with a record there."""
    producer = clients.producer(topics.settings, transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer._transaction_manager._partitions_in_transaction.add(place)
    producer.send(place.topic, value, partition=place.partition).get(30)
    return producer


def left_open(topics: Topics, place: TopicPartition) -> bool:
    (state,) = topics.admin.describe_producers([place]).values()
    return any(p.current_transaction_start_offset >= 0 for p in state.active_producers)


def test_a_predictor_aborts_what_was_left_open_and_repeats_nothing(
    topics: Topics, start: Services
) -> None:
    name, place = f"{topics.group}-one", TopicPartition(topics.settings.prediction_topic, 0)
    predictor = start("predictor", REPLICA="one")
    topics.write(100)
    eventually(lambda: topics.answered() == 100, PATIENCE_SECONDS)
    assert predictor.stop() == 0
    torn = Prediction(100, 1, 0.5, 1, 101, 1, 1, (0, 100), False)
    producer = begun(topics, name, place, encode_prediction(torn))
    producer.send_offsets_to_transaction({}, topics.group)
    producer.abort_transaction()
    clients.close(producer)
    assert left_open(topics, place)
    predictor = start("predictor", REPLICA="one")
    topics.write(100)
    eventually(lambda: topics.answered() == 200, PATIENCE_SECONDS, predictor.tail)
    assert (
        f"the broker had left the last transaction of {name} open on {place.topic} partition 0;"
        " it is now aborted"
    ) in predictor.log()
    topics.check(topics.log)


def test_a_model_left_in_an_open_transaction_is_never_visible(topics: Topics) -> None:
    place = TopicPartition(topics.settings.model_topic, 0)
    producer = begun(topics, f"{place.topic}-publisher", place, b"a part of model 2")
    producer.send_offsets_to_transaction({}, topics.group)
    producer.abort_transaction()
    clients.close(producer)
    assert left_open(topics, place)
    assert [topics.publish_next() for _ in range(2)] == [2, 3]
    eventually(lambda: [model["version"] for model in topics.models()] == [1, 2, 3])


def test_what_was_to_be_committed_is_committed_even_if_attempts_fail_half_way(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, name = topics.settings, f"{topics.group}-one"
    place, data = (
        TopicPartition(settings.prediction_topic, 0),
        TopicPartition(settings.data_topic, 0),
    )
    producer = begun(topics, name, place, b"{}")
    producer.send_offsets_to_transaction({data: OffsetAndMetadata(7, "tally", -1)}, topics.group)
    producer.commit_transaction()
    clients.close(producer)
    assert left_open(topics, place)
    transactions = Transactions(settings, name, logging.getLogger("test"), topics.group)
    # The first attempt fails before it knows what was left open, the second while it ends that.
    for kind, step in (
        (KafkaAdminClient, "describe_producers"),
        (KafkaProducer, "commit_transaction"),
    ):
        failing = clients.producer(settings, transactional_id=name)
        with monkeypatch.context() as patch:
            patch.setattr(kind, step, Mock(side_effect=KafkaTimeoutError))
            if kind is KafkaProducer:
                patch.setattr("stream.kafka_workarounds.add_to_transaction", lambda *_: None)
            with pytest.raises(KafkaTimeoutError):
                transactions.initialize(failing, [place])
        clients.close(failing)
    successor = clients.producer(settings, transactional_id=name)
    transactions.initialize(successor, [place])
    clients.close(successor)
    eventually(lambda: topics.predictions() == [{}])
    group = clients.consumer(settings, group_id=topics.group)
    committed = group.committed(data, metadata=True, timeout_ms=30_000)
    clients.close(group)
    assert (committed.offset, committed.metadata) == (7, "tally")
