"""Transactions that a broker, killed within them, calls complete and leaves open.

Where a broker does better than the one these were seen with, they are aborted by then, and the
tests hold as well: only `left_open` would have to go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from kafka import KafkaAdminClient, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import TransactionState
from kafka.errors import KafkaError, KafkaTimeoutError

from local.kafka import LocalKafka
from modelgenerator.publication import publish
from modelgenerator.settings import Settings
from stream import clients
from stream.service import Stop
from stream.transactions import Transactions
from tests.checker import check
from tests.services import Services, eventually
from tests.topics import Topics, regression
from tests.unit.classifiers import envelope, pickled

TIMEOUT_MS = 5_000
"""So that it passes while a broker that was killed is fenced: it is for about nine seconds."""
PATIENCE_SECONDS = 120.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    broker = LocalKafka(tmp_path / "kafka")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def kafka(broker: LocalKafka) -> str:
    """Bootstrap servers of a broker of this test's own."""
    return broker.bootstrap_servers


@pytest.fixture
def topics(settings_env: dict[str, str]) -> Iterator[Topics]:
    with Topics(settings_env) as found:
        yield found


def transactional(topics: Topics, name: str) -> KafkaProducer:
    return clients.producer(
        topics.settings, transactional_id=name, transaction_timeout_ms=TIMEOUT_MS
    )


def left_open(topics: Topics, broker: LocalKafka, place: TopicPartition, name: str) -> bool:
    """Kill the broker within a transaction; tell whether it left that open and said it did not."""
    broker.kill()
    broker.start()

    def complete() -> bool:
        with suppress(KafkaError):  # not all of it is up yet
            state = topics.admin.describe_transactions([name])[name].state
            return bool(state is TransactionState.COMPLETE_ABORT)
        return False

    eventually(complete, PATIENCE_SECONDS, f"the broker aborts {name}")
    (state,) = topics.admin.describe_producers([place]).values()
    return any(p.current_transaction_start_offset >= 0 for p in state.active_producers)


def test_a_predictor_ends_what_its_killed_broker_left_open_and_repeats_nothing(
    broker: LocalKafka,
    topics: Topics,
    start: Services,
    settings_env: dict[str, str],
    tmp_path: Path,
) -> None:
    topics.publish(1)
    predictor = start.run(
        "predictor",
        *("tests.faults.struck", "commit_transaction", "3", "pause"),
        REPLICA="one",
        TRANSACTION_TIMEOUT_MS=str(TIMEOUT_MS),
    )

    def is_struck() -> bool:
        topics.write(20)
        return "struck" in predictor.log()

    eventually(is_struck, PATIENCE_SECONDS, predictor.tail)
    place = TopicPartition(topics.settings.prediction_topic, 0)
    assert left_open(topics, broker, place, f"{topics.group}-one")
    predictor.wake()
    eventually(lambda: topics.answered() >= topics.written(), PATIENCE_SECONDS, predictor.tail)
    assert (
        f"the broker had left the last transaction of {topics.group}-one open on"
        f" {place.topic} partition 0; it is aborted now"
    ) in predictor.log()
    topics.write(100)
    eventually(lambda: topics.answered() == topics.written(), PATIENCE_SECONDS)
    check(settings_env, [tmp_path / "predictor.log"])


def test_a_model_that_a_killed_broker_left_open_never_comes_to_light(
    broker: LocalKafka, topics: Topics, settings_env: dict[str, str]
) -> None:
    settings = Settings.model_validate({k.lower(): v for k, v in settings_env.items()})
    place, name = (
        TopicPartition(topics.settings.model_topic, 0),
        f"{topics.settings.model_topic}-publisher",
    )
    interrupted = transactional(topics, name)
    interrupted.init_transactions()
    interrupted.begin_transaction()
    interrupted.send(place.topic, b"a part of model 1", partition=0).get(30)
    assert left_open(topics, broker, place, name)
    clients.close(interrupted)
    for version in (1, 2):
        found = publish(settings, envelope(), pickled(regression()), topics.key, Stop())
        assert found == version
    assert [model["version"] for model in topics.models()] == [1, 2]


def test_what_was_to_be_committed_is_committed_with_its_offsets_though_a_first_try_fails(
    broker: LocalKafka, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, name = topics.settings, f"{topics.group}-one"
    place, data = (
        TopicPartition(settings.prediction_topic, 0),
        TopicPartition(settings.data_topic, 0),
    )
    producer = transactional(topics, name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(place.topic, b"{}", partition=0)
    producer.send_offsets_to_transaction({data: OffsetAndMetadata(7, "tally", -1)}, topics.group)
    producer.flush()
    assert left_open(topics, broker, place, name)
    clients.close(producer)

    # What the broker had decided cannot be had at will, so it is put into its answer.
    decided = SimpleNamespace(state=TransactionState.COMPLETE_COMMIT)
    monkeypatch.setattr(
        KafkaAdminClient, "describe_transactions", lambda _, names: dict.fromkeys(names, decided)
    )
    transactions = Transactions(settings, name, logging.getLogger("test"), topics.group)
    failing = transactional(topics, name)
    with monkeypatch.context() as patch:
        patch.setattr(KafkaAdminClient, "describe_producers", Mock(side_effect=KafkaTimeoutError))
        with pytest.raises(KafkaTimeoutError):
            transactions.initialize(failing, [place])
    clients.close(failing)
    decided.state = TransactionState.EMPTY  # as it is after a try that failed half-way
    successor = transactional(topics, name)
    transactions.initialize(successor, [place])
    clients.close(successor)
    eventually(lambda: topics.predictions() == [{}])
    group = clients.consumer(settings, group_id=topics.group)
    committed = group.committed(data, metadata=True, timeout_ms=10_000)
    clients.close(group)
    assert (committed.offset, committed.metadata) == (7, "tally")
