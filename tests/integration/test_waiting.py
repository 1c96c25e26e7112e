"""Records that wait: for a model, for a newer model, for the end of a transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer, TopicPartition

from local.process import Process
from predictor.waiting import LOOK_AHEAD
from stream.records import Record, encode_record
from tests.batches import Latin, batch, produce
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics, assert_exactly_once, await_answered

INVALID: list[tuple[bytes | None, str]] = [
    (b"not json", "value: not JSON"),
    (None, "value: expected a JSON object, got null"),
    (b'{"id": 1, "label": 1}', "features: missing"),
    (b'{"id": 1, "features": []}', "features: expected a list of 1 to 100000 numbers"),
    (b'{"id": 1, "features": [1, 2], "label": 2}', "label: expected 0 or 1, true or false"),
    (b'{"id": "%b", "features": [1, 2]}' % (b"9" * 300), "id: at most 256 bytes, got 300"),
    (b'{"features": [1, 2]}', "id: missing"),
]
"""The record, and what the reason begins with."""


def values(count: int) -> list[bytes]:
    return [encode_record(Record(n, [1.0 - n % 3, 2.0], n % 2)) for n in range(count)]


def told(process: Process) -> int:
    """Return of how many rejected records the log has given the reasons, in one line or several."""
    line = r"predictor: rejected since the last such line: (\d+), most often "
    return sum(map(int, re.findall(line, process.log())))


def last_lag(process: Process) -> str:
    """Return the lag in the last line of figures, as it stands there."""
    found: list[str] = re.findall(r" (lag<?=\d+)", process.log())
    return found[-1] if found else "none"


@contextmanager
def transaction(topics: Topics, name: str) -> Iterator[KafkaProducer]:
    """Begin a transaction, and leave its end to who asked for it."""
    with topics.transactional(f"{topics.group}-{name}") as producer:
        producer.begin_transaction()
        yield producer


def write_in_a_transaction(topics: Topics, count: int, commit: bool) -> None:
    with transaction(topics, "ended") as producer:
        for value in values(count):
            producer.send(topics.settings.data_topic, value, partition=0)
        producer.flush(30)
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()


def test_records_that_no_model_could_predict_are_rejected_before_there_is_one_and_others_wait(
    topics: Topics, start: Services
) -> None:
    predictor = start("predictor")
    topics.write_values(value for value, _ in INVALID)
    topics.write_values([b'{"id": 1, "features": [1, 2]}'], key=b"9" * 20_000)
    damaged = batch(values(3), headers=[(Latin("é"), b"")])
    produce(topics.admin, TopicPartition(topics.settings.data_topic, 0), damaged)
    reasons = [*(reason for _, reason in INVALID), "key: at most 10000 bytes", "batch: "]
    await_answered(topics, len(reasons))
    for found, reason in zip(topics.rejected(), reasons, strict=True):
        assert found["reason"].startswith(reason)
    topics.check()
    topics.write_values(values(1))
    topics.write_values([b"not json either"] * 3)
    topics.write_values(values(20))
    await_line(predictor, "nothing is predicted: there is no model; 24 records wait, invalid: 3,")
    assert "most often value: not JSON" in predictor.log()
    assert "(3 of them, first at partition 0 offset 12); 9 rejected so far" in predictor.log()
    eventually(lambda: told(predictor) == 9, PATIENCE_SECONDS, predictor.tail)
    assert topics.predictions() == []
    assert len(topics.rejected()) == len(reasons)
    eventually(lambda: last_lag(predictor) == "lag=24", message=predictor.tail)
    topics.check()
    topics.publish(1)
    await_answered(topics, len(reasons) + 24)
    sources = [p["source"][1] for p in topics.predictions()]
    assert sources == [11, *range(15, 35)]
    assert [r["source"][1] for r in topics.rejected()] == [*range(9), 12, 13, 14]
    assert topics.predictions()[-1]["n"] == 21
    eventually(topics.logged)
    topics.check(topics.log)
    verified = start.python("-m", "predictor.verify", "--log", str(topics.log))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_it_says_that_the_models_there_were_refused_and_why(
    topics: Topics, start: Services
) -> None:
    topics.write(10)
    topics.publish(1, sklearn="0.24.2")
    predictor = start("predictor")
    line = "nothing is predicted: no model serves; refused: 1, the last one: model 1: made with"
    await_line(predictor, line)
    await_line(predictor, "; 10 records wait; 0 rejected so far")


def test_a_partition_that_waits_for_a_newer_model_rejects_what_no_model_could_predict(
    three: Topics, start: Services
) -> None:
    three.publish(5)
    three.write(30)
    predictor = start("predictor")
    await_answered(three, 30)
    assert predictor.stop() == 0
    three.admin.delete_records({TopicPartition(three.settings.model_topic, 0): -1})
    three.publish(4)
    three.write_values([b"not json"] * 2)
    three.write(30)
    three.write_values([b"nor this"])
    predictor = start("predictor")
    await_answered(three, 32)
    line = "partition 0 was predicted with model 5 and waits for it or a newer one (here: 4)"
    await_line(predictor, f"{line}; 31 records wait, invalid: 1, most often value: not JSON")
    assert three.answered() == 32
    three.publish(6)
    await_answered(three, 63)
    assert_exactly_once(three)
    three.check(three.log)


def test_of_a_long_queue_not_all_is_read_and_predicting_begins_at_its_first_record(
    topics: Topics, start: Services
) -> None:
    producer = Producer(
        {
            "bootstrap.servers": topics.settings.kafka_bootstrap_servers,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    value = values(1)[0]
    for _ in range(4 * LOOK_AHEAD):
        producer.produce(topics.settings.data_topic, value, partition=0)
    assert producer.flush(60) == 0
    predictor = start("predictor")
    await_line(predictor, f"at most {4 * LOOK_AHEAD:,} records wait, ")
    lag = f"lag<={4 * LOOK_AHEAD}"
    eventually(lambda: last_lag(predictor) == lag, message=predictor.tail)
    topics.publish(1)
    await_answered(topics, 1)
    assert topics.predictions()[0]["source"] == [0, 0]


def test_the_lag_counts_neither_aborted_records_nor_markers_nor_what_is_behind_an_open_transaction(
    topics: Topics, start: Services
) -> None:
    predictor = start("predictor")
    write_in_a_transaction(topics, 50, commit=False)
    write_in_a_transaction(topics, 20, commit=True)
    write_in_a_transaction(topics, 30, commit=False)
    await_line(predictor, "lag=20")
    topics.publish(1)
    await_answered(topics, 20)
    eventually(lambda: last_lag(predictor) == "lag=0", message=predictor.tail)
    with transaction(topics, "open") as left_open:
        at = left_open.send(topics.settings.data_topic, values(1)[0], partition=0).get(30).offset
        topics.write(40)
        line = f"{topics.settings.data_topic} partition 0: a transaction of {topics.group}-open"
        await_line(predictor, f"{line} is open from offset {at} on since 20")
        assert last_lag(predictor) == "lag=0"
        assert predictor.log().count(line) == 1
        left_open.commit_transaction()
    await_answered(topics, 61)
    topics.check(topics.log)


def test_the_lag_is_exact_where_librdkafka_writes_each_record_in_a_transaction(
    topics: Topics, start: Services
) -> None:
    producer = Producer(
        {
            "bootstrap.servers": topics.settings.kafka_bootstrap_servers,
            "transactional.id": f"{topics.group}-foreign",
        }
    )
    producer.init_transactions(30)
    for number, value in enumerate(values(20)):
        producer.begin_transaction()
        producer.produce(topics.settings.data_topic, value, partition=0)
        # To abort what has not been sent is to end a transaction that the broker does not know.
        assert producer.flush(30) == 0
        if number % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    predictor = start("predictor")
    await_line(predictor, "; 10 records wait;")
    eventually(lambda: last_lag(predictor) == "lag=10", message=predictor.tail)
    topics.publish(1)
    await_answered(topics, 10)
    eventually(lambda: last_lag(predictor) == "lag=0", message=predictor.tail)


@pytest.mark.parametrize("topic", ["model_topic", "schema_topic", "status_topic"])
def test_an_open_transaction_of_another_topic_that_is_read_is_named_too(
    topics: Topics, start: Services, topic: str
) -> None:
    predictor = start("predictor")
    await_line(predictor, "partitions 0@0")
    name = getattr(topics.settings, topic)
    with transaction(topics, "open") as left_open:
        at = left_open.send(name, b"{}", b"schema", partition=0).get(30).offset
        line = f"{name} partition 0: a transaction of {topics.group}-open is open from offset {at}"
        await_line(predictor, line)
        left_open.abort_transaction()
