"""What Write on one topic, or a right on the group or a transactional id, lets somebody do.

Nobody here has a key. What the model topic, the status topic and half a commit allow is in
`test_attacks`; docs/security.md has the table of all of it.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from predictor.model_feed import LATEST
from predictor.tally import Tally
from stream import clients, reading
from stream.records import Schema
from tests.batches import HEADER_BYTES, batch, marker, produce, with_attributes, with_payload
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually, last_error
from tests.topics import Topics, assert_exactly_once, await_answered, await_no_members
from tests.unit.classifiers import Once

GZIP = 1
LONG_AGO = -(2**62)
"""A timestamp that no calendar has, and that brokers take."""


def answer(topics: Topics, start: Services, count: int = 100) -> None:
    """Let a predictor with a model answer records, and end."""
    topics.write(count)
    predictor = start("predictor")
    await_answered(topics)
    assert predictor.stop() == 0
    await_no_members(topics)


def forge_prediction(topics: Topics, timestamp_ms: int | None = None, **changes: object) -> None:
    """Write the last prediction once more, changed, with the headers of a group's own."""
    last = topics.records(topics.settings.prediction_topic)[-1]
    topics.producer.send(
        topics.settings.prediction_topic,
        orjson.dumps(orjson.loads(last.value) | changes),
        headers=list(last.headers),
        partition=0,
        timestamp_ms=timestamp_ms,
    ).get(30)


@contextmanager
def member(topics: Topics) -> Iterator[KafkaConsumer]:
    """Join the group as a stranger, and get partitions."""
    stranger = clients.consumer(topics.settings, group_id=topics.group)
    try:
        stranger.subscribe([topics.settings.data_topic])
        eventually(lambda: stranger.poll(timeout_ms=100) is not None and stranger.assignment())
        yield stranger
    finally:
        clients.close(stranger)


def test_whatever_is_written_to_the_data_topic_each_other_record_is_predicted_and_trained_on(
    topics: Topics, start: Services
) -> None:
    place = TopicPartition(topics.settings.data_topic, 0)
    trainer, predictor = start("modelgenerator", RETRAIN_EVERY="200"), start("predictor")
    topics.write(400)
    await_answered(topics)
    tiny = batch([None] * 50_000)
    bomb = with_payload(tiny, gzip.compress(tiny[HEADER_BYTES:]))
    produce(topics.admin, place, with_attributes(bomb, GZIP))
    garbage = 50_000
    for value in (b"", b"{", b"null", b'{"id":"\\u001b[2J\\n","features":[]}', bytes(900_000)):
        topics.write_values([value], key=b"\xff" * 20_000)
        garbage += 1
    record = b'{"id":%d,"features":[1.0,2.0],"label":1}'
    for timestamp in (0, LONG_AGO):
        headers = [("signature", b"x"), ("seal", b""), ("group", b"\xff")]
        topics.producer.send(
            place.topic, record % 2**63, headers=headers, partition=0, timestamp_ms=timestamp
        ).get(30)
    end = reading.bounds(topics.consumer, place)[1]

    def trained_on_later_records() -> bool:
        topics.write(100)
        return topics.assembled()[-1][0].trained_to["0"] >= end

    eventually(trained_on_later_records)
    assert trainer.stop() == 0
    topics.write(100)  # no model was trained on these, so they are counted
    await_answered(topics, topics.written() + garbage + 2, 120)
    assert len(topics.rejected()) == garbage
    eventually(topics.logged)
    assert predictor.stop() == 0
    topics.check(topics.log)


def test_a_broker_takes_no_end_of_a_transaction_from_a_client(topics: Topics) -> None:
    for name in topics.settings.topics:
        for commit in (True, False):
            with pytest.raises(KafkaError):
                produce(topics.admin, TopicPartition(name, 0), marker(0, 7, commit))


def test_a_flood_of_statuses_hides_which_model_was_barred_until_it_raises_again(
    topics: Topics, start: Services
) -> None:
    def served_and_barred() -> None:
        predictor = start("predictor")
        await_line(predictor, "model 2 (test) serves from the next unit")
        barred = "barred model 2: model error: ArithmeticError"

        def fails() -> bool:
            topics.write(20)
            return barred in predictor.log()

        eventually(fails)
        await_answered(topics)
        assert predictor.stop() == 0

    topics.publish(1)
    topics.publish(2, Once())
    served_and_barred()
    for _ in range(LATEST):
        topics.producer.send(topics.settings.status_topic, b"{}", partition=0)
    topics.producer.flush(60)
    served_and_barred()
    assert_exactly_once(topics)
    topics.check(topics.log)


def test_labels_of_no_record_hold_others_back_and_lose_none(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(100, label=False)
    predictor = start("predictor", LABEL_EARLY_SECONDS="0.5")
    await_answered(topics)
    topics.label_nothing(1_000)
    topics.label_ids(*range(100))
    eventually(lambda: len(topics.outcomes()) == 100)
    assert topics.outcomes()[-1]["n"] == 100
    eventually(lambda: len(topics.rejected_labels()) == 1_000)
    assert predictor.stop() == 0


def test_a_schema_of_another_width_stops_new_models_and_never_the_one_that_serves(
    topics: Topics, start: Services
) -> None:
    topics.publish_next()
    predictor = start("predictor")
    await_line(predictor, "model 1 (test) serves from the next unit")
    topics.describe(Schema([f"f{n}" for n in range(5)]))
    topics.publish(2, stream=topics.stream, after=0)
    await_line(predictor, "refused model 2: features: the stream has 5, the model 2")
    topics.write(10)
    await_answered(topics)
    topics.describe(Schema(["a", "b"]))
    assert topics.publish_next() == 3
    await_line(predictor, "model 3 (test) serves from the next unit")


@pytest.mark.parametrize("value", [None, b"garbage"])
def test_a_null_or_garbage_on_the_schema_topic_changes_no_schema(
    topics: Topics, start: Services, value: bytes | None
) -> None:
    topics.describe(Schema(["a", "b", "c"]))
    for _ in range(1_000):
        topics.producer.send(topics.settings.schema_topic, value, key=b"schema", partition=0)
    topics.producer.flush(30)
    topics.publish(1, stream=topics.stream, after=0)
    predictor = start("predictor")
    await_line(predictor, "refused model 1: features: the stream has 3, the model 2")


@pytest.mark.parametrize("topic", ["prediction", "rejected"])
def test_outputs_in_the_name_of_a_group_that_has_committed_nothing_end_its_start_with_a_question(
    topics: Topics, start: Services, topic: str
) -> None:
    topics.publish(1)
    topics.write(100)
    name = getattr(topics.settings, f"{topic}_topic")
    forged = {
        "prediction": b'{"id":1,"prediction":1,"probability":null,"label":1,"n":51,"correct":51,'
        b'"model":1,"source":[0,50]}',
        "rejected": b'{"source":[0,50],"reason":"forged","size":0,"value":""}',
    }
    topic_id = topics.admin.describe_topics([topics.settings.data_topic])[0]["topic_id"]
    headers = [("group", topics.group.encode()), ("incarnation", topic_id.encode())]
    topics.producer.send(name, forged[topic], headers=headers, partition=0).get(30)
    line = last_error(start("predictor"))
    assert line.startswith(
        f"partition 0: group {topics.group} has committed no tally, and outputs in its name up to"
        " offset 50 have no seal that holds. If it wrote them: bring back its PREDICTOR_SECRET, or"
    )
    assert line.endswith("choose another GROUP_ID, or begin anew: python -m predictor.reset")
    await_no_members(topics)
    done = start.python("-m", "predictor.reset", "--yes")
    assert done.returncode == 0, done.stderr
    predictor = start("predictor")
    await_answered(topics)
    await_line(predictor, "partitions 0@0 n=0")


def test_a_forged_prediction_of_any_time_keeps_no_line_out_of_the_log(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    answer(topics, start)
    forge_prediction(topics, n=2**62, correct=1)
    forge_prediction(topics, timestamp_ms=LONG_AGO)
    answer(topics, start)
    topics.log.unlink()
    topics.write(100)
    predictor = start("predictor")
    await_answered(topics)
    genuine = [f" n={n} " for n in range(10, 301, 10)]
    eventually(lambda: topics.log.is_file() and all(n in topics.log.read_text() for n in genuine))
    assert predictor.stop() == 0


@pytest.mark.parametrize("kind", ["without a seal", "with the seal of another", "an earlier one"])
def test_a_tally_that_a_stranger_commits_skips_no_record_and_changes_no_count(
    topics: Topics, start: Services, kind: str
) -> None:
    topics.publish(1)
    place = TopicPartition(topics.settings.data_topic, 0)
    with clients.closing(clients.consumer(topics.settings, group_id=topics.group)) as stranger:
        answer(topics, start)
        genuine = stranger.committed(place, metadata=True, timeout_ms=10_000)
        forged = orjson.loads(genuine.metadata) | {"tp": 900}
        if kind == "without a seal":
            forged = orjson.loads(Tally.from_metadata(genuine.metadata).to_metadata())
        if kind == "an earlier one":
            answer(topics, start)
            forged = genuine.metadata
        answered = topics.written()
        topics.write(600)
        offset = genuine.offset if kind == "an earlier one" else 600
        metadata = forged if isinstance(forged, str) else orjson.dumps(forged).decode()
        stranger.commit({place: OffsetAndMetadata(offset, metadata, -1)})
    predictor = start("predictor")
    await_line(predictor, f"partitions 0@{answered} n={answered}")
    await_answered(topics)
    assert predictor.stop() == 0
    assert_exactly_once(topics)
    topics.check()


def test_replicas_with_different_secrets_lose_and_repeat_no_record(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.publish(1)
    for secret in ("one", "another", "one", "another"):
        topics.write(100)
        predictor = start("predictor", PREDICTOR_SECRET=str(tmp_path / secret))
        await_answered(topics)
        assert predictor.stop() == 0
        await_no_members(topics)
    assert_exactly_once(topics)
    topics.check(topics.log)


def test_a_tally_of_older_software_counts_as_long_as_no_output_is_sealed(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(100)
    place = TopicPartition(topics.settings.data_topic, 0)
    with clients.closing(clients.consumer(topics.settings, group_id=topics.group)) as group:
        group.commit({place: OffsetAndMetadata(40, Tally(tp=40).to_metadata(), -1)})
    predictor = start("predictor")
    await_line(predictor, "partitions 0@40 n=40")
    await_answered(topics, 60)
    assert predictor.stop() == 0


def test_a_stranger_in_the_group_stops_it_only_while_it_is_there_and_skips_nothing(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    three.write(90)
    predictor = start("predictor")
    await_answered(three)
    with member(three) as stranger:

        def taken() -> set[int]:
            stranger.poll(timeout_ms=100)  # it rejoins, if it has to
            return {place.partition for place in stranger.assignment()}

        def only_others_are_predicted() -> bool:
            held = taken()  # it may change: a member that is suspended loses what it has
            three.write(30)
            end = three.written() // 3
            places = {TopicPartition(three.settings.data_topic, p) for p in held}
            try:
                stranger.commit(dict.fromkeys(places, OffsetAndMetadata(end, "", -1)))
            except KafkaError:
                return False
            others = {0, 1, 2} - held

            def predicted() -> set[int]:
                return {p for p in range(3) if len(three.predictions(p)) == end}

            eventually(lambda: taken() != held or predicted() >= others)
            return taken() == held and 0 < len(held) < 3 and predicted() == others

        eventually(only_others_are_predicted)
    await_answered(three, seconds=120.0)
    assert predictor.stop() == 0
    assert_exactly_once(three)
    three.check(three.log)


def test_whoever_may_use_the_transactional_id_of_publishers_delays_models_and_repeats_no_version(
    topics: Topics,
) -> None:
    assert topics.publish_next() == 1
    ending = threading.Event()
    name = f"{topics.settings.model_topic}-publisher"
    make = partial(clients.producer, topics.settings, transactional_id=name)

    def fence() -> None:
        while not ending.wait(0.05):
            with suppress(KafkaError), clients.closing(make()) as producer:  # the broker is slow
                producer.init_transactions()

    thread = threading.Thread(target=fence)
    thread.start()
    versions: list[int] = []
    publisher = threading.Thread(target=lambda: versions.append(topics.publish_next()))
    publisher.start()
    publisher.join(5)
    ending.set()
    thread.join()
    publisher.join(PATIENCE_SECONDS)
    assert versions == [2]
    assert topics.versions() == [1, 2]


def test_whoever_may_use_the_transactional_id_of_a_predictor_ends_it_and_costs_no_record(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    predictor = start("predictor", REPLICA="p1")
    await_line(predictor, "partitions 0@0")

    def fenced() -> bool:
        with topics.transactional(f"{topics.group}-p1"):
            topics.write(50)
        return predictor.status is not None

    eventually(fenced)
    assert f"something else uses the transactional id {topics.group}-p1" in last_error(predictor)
    again = start("predictor", REPLICA="p1")
    await_answered(topics)
    assert again.stop() == 0
    assert_exactly_once(topics)
