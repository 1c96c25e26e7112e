from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from modelgenerator.data_feed import LOOK_SECONDS
from modelgenerator.publication import describe, pickled, publish
from modelgenerator.settings import Settings
from modelgenerator.trainer import recipes
from stream import clients, reading
from stream.keys import SigningKey, TrustedKeys, signing_key
from stream.models import Assembler, Envelope, pack, unpack, verify
from stream.records import (
    Record,
    Schema,
    Status,
    encode_record,
    encode_schema,
    encode_status,
)
from stream.service import Stop
from stream.topics import ensure_topics
from tests.services import ROOT, Services, eventually
from tests.topics import await_decided, delete

LOG = logging.getLogger("test")


class Topics:
    """The topics of a test, from outside."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.settings = Settings(**{name.lower(): value for name, value in env.items()})  # type: ignore[arg-type] # checked by pydantic
        self.key = signing_key(self.settings.signing_key)
        self.key.share(self.settings.trusted_keys)
        self.trusted = TrustedKeys(self.settings.trusted_keys)
        self.producer = clients.producer(self.settings)
        self.admin: KafkaAdminClient = clients.admin(self.settings)
        ensure_topics(self.admin, self.settings, LOG)
        self._id = 0

    def close(self) -> None:
        clients.close(self.producer, self.admin)

    def reconnect(self) -> None:
        """Forget what the producer knows of topics and partitions."""
        clients.close(self.producer)
        self.producer = clients.producer(self.settings)

    def write(self, count: int, rule: Callable[[list[float]], bool], partitions: int = 1) -> None:
        rng = random.Random(self._id)
        for _ in range(count):
            features = [rng.random() for _ in range(3)]
            record = Record(self._id, [*features], int(rule(features)))
            self.write_value(encode_record(record), self._id % partitions)
            self._id += 1
        self.producer.flush(30)

    def write_value(self, value: bytes | None, partition: int = 0) -> None:
        self.producer.send(self.settings.data_topic, value, key=b"k", partition=partition)

    def write_model_topic(self, value: bytes, headers: Any = ()) -> None:
        self.producer.send(self.settings.model_topic, value, headers=list(headers), partition=0)
        self.producer.flush(30)

    def models(self) -> list[tuple[Envelope, bytes]]:
        """Every whole model that a committed reader sees, each part's signature checked."""
        consumer = clients.consumer(self.settings)
        try:
            await_decided(self.settings, self.admin, consumer)
            place = TopicPartition(self.settings.model_topic, 0)
            start, end = reading.bounds(consumer, place)
            assembler, found = Assembler(2**30), []
            for record in reading.read_range(consumer, place, start, end, Stop()):
                verify(record.value, record.headers, self.trusted)
                model = assembler.add(unpack(record.value))
                if model:
                    found.append(model)
            return found
        finally:
            clients.close(consumer)

    def versions(self) -> list[int]:
        return [envelope.version for envelope, _ in self.models()]

    def publish(self, pickle: bytes | None = None, recipe: str = "test") -> int:
        return publish(self.settings, described(recipe), pickle or pickled(MODEL), self.key, Stop())


def linear(features: list[float]) -> bool:
    return features[0] + features[1] > 1


MODEL = recipes(2000)[0].make().fit(np.eye(3).repeat(3, axis=0), [0, 1, 0] * 3)


def described(recipe: str = "test") -> Envelope:
    return describe(MODEL, recipe=recipe, reason="cadence", trained_on=9, trained_to={"0": 8})


@pytest.fixture
def topics(settings_env: dict[str, str]) -> Iterator[Topics]:
    topics = Topics(settings_env)
    yield topics
    topics.close()


def published(log: str) -> list[dict[str, str]]:
    """The fields of each publication's line."""
    lines = [line for line in log.splitlines() if " model=" in line]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


def test_the_first_model_comes_with_the_200th_record(topics: Topics, start: Services) -> None:
    process = start("modelgenerator")
    eventually(lambda: "partition=0 from offset=0" in process.log())
    topics.write(199, linear)
    time.sleep(1)  # a model now would be one too early
    assert topics.models() == []
    topics.write(1, linear)
    ((envelope, pickle),) = eventually(topics.models)
    assert (envelope.version, envelope.reason, envelope.trained_on) == (1, "first", 200)
    assert (envelope.trained_to, envelope.features, envelope.classes) == ({"0": 199}, 3, [0, 1])
    assert envelope.accepts_missing
    model = joblib.load(io.BytesIO(pickle))
    assert model.predict([[0.9, 0.9, 0.5], [0.1, 0.1, np.nan]]).tolist() == [1, 0]


def test_versions_rise_one_by_one_and_go_on_after_a_restart(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    topics.write(569, linear)
    eventually(lambda: topics.versions() == [1, 2, 3])
    assert [e.trained_to for e, _ in topics.models()] == [{"0": 199}, {"0": 299}, {"0": 449}]
    eventually(lambda: len(published(process.log())) == 3)
    lines = published(process.log())
    assert [line["model"] for line in lines] == ["1", "2", "3"]
    assert lines[0].keys() >= {
        "recipe", "reason", "trained_on", "linear_2000", "hgb_2000", "bytes", "milliseconds",
    }  # fmt: skip
    ends_cleanly(process)

    again = start("modelgenerator")
    eventually(lambda: "partition=0 from offset=0" in again.log())
    topics.write(200, linear)
    eventually(lambda: len(topics.versions()) >= 4)
    envelope, _ = topics.models()[3]
    # What it learnt before it ended was not published once more.
    assert (envelope.version, envelope.trained_to["0"]) == (4, 674)
    ends_cleanly(again)


def ends_cleanly(process: Any, number: int = signal.SIGTERM) -> None:
    process.send(number)
    assert process.wait(2 * 5.0) == 0, process.log()
    assert "Traceback" not in process.log()


def test_records_without_a_label_or_out_of_contract_are_not_trained_on(
    topics: Topics, start: Services
) -> None:
    for value in (
        None,
        b"garbage",
        b'{"id":1,"features":[NaN],"label":1}',
        b'{"id":1,"features":[1,2,3,4],"label":1}',
        b'{"id":1,"features":[1,2,3],"label":2}',
        b'{"id":1,"features":[1,2,3]}',
    ):
        topics.write_value(value)
    topics.write(200, linear)
    process = start("modelgenerator")
    ((envelope, _),) = eventually(topics.models)
    # The stray width counts among the first 200, so that one more record is waited for.
    assert envelope.trained_on == 200
    assert envelope.trained_to == {"0": 205}
    ends_cleanly(process, signal.SIGINT)


def test_the_schema_gives_the_names_and_the_width(topics: Topics, start: Services) -> None:
    names = ["a", "b", "c"]
    schema = encode_schema(Schema(names, "label", "1"))
    topics.producer.send(topics.settings.schema_topic, schema, key=b"schema", partition=0)
    topics.write(250, linear)
    start("modelgenerator")
    ((envelope, _),) = eventually(topics.models)
    assert envelope.feature_names == names


def test_a_schema_that_does_not_fit_the_records_ends_the_start_with_one_line(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    eventually(lambda: "partition=0 from" in process.log())
    schema = encode_schema(Schema(["a", "b"], "label", "1"))
    topics.producer.send(topics.settings.schema_topic, schema, key=b"schema", partition=0)
    topics.write(200, linear)
    assert process.wait(60) == 1
    assert "names 2 features, the records of" in process.log()
    assert "Traceback" not in process.log()
    assert topics.models() == []


def test_new_partitions_are_read_too(topics: Topics, start: Services) -> None:
    start("modelgenerator")
    topics.write(200, linear)
    eventually(topics.models)
    grown = topics.settings.model_copy(update={"data_partitions": 3})
    ensure_topics(topics.admin, grown, LOG)
    topics.reconnect()
    topics.write(300, linear, partitions=3)
    eventually(lambda: set(topics.models()[-1][0].trained_to) == {"0", "1", "2"}, 40)


def test_two_publishers_at_once_publish_every_version_once_and_whole(topics: Topics) -> None:
    pickles = {name: os.urandom(1_500_000) for name in ("a", "b")}  # three parts each
    versions: dict[str, list[int]] = {"a": [], "b": []}

    def publisher(name: str) -> None:
        for _ in range(10):
            versions[name].append(topics.publish(pickles[name], recipe=name))

    threads = [threading.Thread(target=publisher, args=(name,)) for name in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    models = topics.models()
    assert [envelope.version for envelope, _ in models] == list(range(1, 21))
    assert all(pickle == pickles[envelope.recipe] for envelope, pickle in models)
    for name, told in versions.items():
        assert told == [e.version for e, _ in models if e.recipe == name]


def test_a_fenced_publisher_is_told_so_and_does_not_fence_its_successor(topics: Topics) -> None:
    topic = topics.settings.model_topic

    def publisher() -> Any:
        made = clients.producer(topics.settings, transactional_id=f"{topic}-publisher", linger_ms=0)
        made.init_transactions()
        made.begin_transaction()
        made.send(topic, b"first", partition=0).get(10)
        return made

    elder = publisher()
    younger = publisher()
    lost = elder.send(topic, b"second", partition=0)
    with pytest.raises(KafkaError):
        Stop().deadline(20, elder.commit_transaction)
    with pytest.raises(KafkaError):
        lost.get(10)
    younger.commit_transaction()
    consumer = clients.consumer(topics.settings)
    await_decided(topics.settings, topics.admin, consumer)
    place = TopicPartition(topic, 0)
    start, end = reading.bounds(consumer, place)
    values = [r.value for r in reading.read_range(consumer, place, start, end, Stop())]
    clients.close(elder, younger, consumer)
    assert values == [b"first"]


KILLED = """
import os, signal, sys
from kafka import KafkaProducer
from modelgenerator import publication
from modelgenerator.settings import Settings
from stream.keys import signing_key
from stream.service import Stop
from tests.integration.test_modelgenerator import described

send, sent = KafkaProducer.send, []
def send_and_die(self, *args, **options):
    sent.append(send(self, *args, **options))
    if len(sent) == 4:
        sent[2].get()  # three of five parts are on the topic
        os.kill(os.getpid(), signal.SIGKILL)
    return sent[-1]
KafkaProducer.send = send_and_die
settings = Settings()
publication.publish(
    settings, described(), os.urandom(3_000_000), signing_key(settings.signing_key), Stop()
)
"""


def test_a_publisher_killed_in_the_middle_leaves_nothing_and_the_next_one_goes_on(
    topics: Topics,
) -> None:
    assert topics.publish() == 1
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], env=os.environ | topics.env, cwd=ROOT, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    consumer = clients.consumer(topics.settings, isolation_level="read_uncommitted")
    place = TopicPartition(topics.settings.model_topic, 0)
    _, end = reading.bounds(consumer, place)
    clients.close(consumer)
    assert end in (5, 6)  # a model, the marker of its transaction, three or four parts of five
    assert topics.versions() == [1]
    assert topics.publish() == 2
    assert topics.versions() == [1, 2]


def test_a_model_of_30_megabytes_goes_over_in_parts(topics: Topics) -> None:
    pickle = os.urandom(30_000_000)
    assert topics.publish(pickle) == 1
    assert topics.publish() == 2
    (large, _) = topics.models()
    assert large[1] == pickle


def test_garbage_at_the_end_of_the_model_topic_does_not_matter(topics: Topics) -> None:
    assert topics.publish() == 1
    (unsigned,) = pack(described_as(99), b"x", None)
    (strange,) = pack(described_as(98), b"x", new_key())
    topics.write_model_topic(unsigned.value)
    topics.write_model_topic(strange.value, strange.headers)
    for _ in range(100):
        topics.write_model_topic(b"garbage", [("signature", b"garbage")])
    assert topics.publish() == 2


def test_a_signed_old_model_sent_again_does_not_turn_versions_back(topics: Topics) -> None:
    for version in (1, 2, 3):
        assert topics.publish() == version
    (old,) = pack(described_as(1), b"x", topics.key)
    topics.write_model_topic(old.value, old.headers)
    assert topics.publish() == 4


def described_as(version: int) -> Envelope:
    return replace(described(), version=version)


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


def test_versions_go_on_where_the_status_topic_knows_more_than_the_model_topic(
    topics: Topics,
) -> None:
    assert topics.publish() == 1
    for value in (
        encode_status(Status(7, "serving", {}, None, "r")),
        b"garbage",
        b'{"version":1e99}',
    ):
        topics.producer.send(topics.settings.status_topic, value, partition=0)
    topics.producer.flush(30)
    model_topic = topics.settings.model_topic
    delete(topics.admin, model_topic)

    def made_again() -> bool:
        with contextlib.suppress(Exception):
            ensure_topics(topics.admin, topics.settings, LOG)
            return topics.models() == []
        return False

    eventually(made_again)
    assert topics.publish() == 8
    assert topics.versions() == [8]


def test_a_data_topic_made_again_starts_the_training_afresh(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    topics.write(500, linear)
    eventually(lambda: topics.versions() == [1, 2, 3])
    delete(topics.admin, topics.settings.data_topic)

    def made_again() -> bool:
        with contextlib.suppress(Exception):
            ensure_topics(topics.admin, topics.settings, LOG)
            return True
        return False

    eventually(made_again)
    topics.reconnect()
    topics.write(200, lambda f: not linear(f))
    eventually(lambda: len(topics.versions()) == 4, 40)
    fresh, pickle = topics.models()[-1]
    assert (fresh.version, fresh.reason, fresh.trained_to) == (4, "first", {"0": 199})
    assert joblib.load(io.BytesIO(pickle)).predict([[0.9, 0.9, 0.5]]).tolist() == [0]
    assert "was made again" in process.log()
    ends_cleanly(process)


def test_a_trainer_that_fell_behind_goes_on_near_the_end_and_says_so(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", WINDOW="300", RETRAIN_EVERY="100")
    topics.write(200, linear)
    eventually(topics.models)
    process.pause()
    topics.write(5_000, linear)
    time.sleep(LOOK_SECONDS)  # it looks how far behind it is before it reads on
    process.wake()
    eventually(lambda: (topics.models()[-1][0].trained_to["0"]) > 5_000, 120)
    (line,) = re.findall(r"WARNING.*more than WINDOW=300.* (\d+) records were not", process.log())
    assert int(line) > 3_000


def test_a_broker_that_is_away_is_waited_for_with_one_line(
    settings_env: dict[str, str], start: Services
) -> None:
    process = start("modelgenerator", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    eventually(lambda: "no broker answers at 127.0.0.1:9" in process.log())
    time.sleep(4)  # long enough for several tries
    assert process.log().count("no broker answers") == 1
    ends_cleanly(process)


def test_it_ends_in_the_middle_of_a_long_fit(topics: Topics, start: Services) -> None:
    width = 1_500
    rng = np.random.default_rng(0)
    for id, features in enumerate(rng.random((1_200, width)).round(3).tolist()):
        topics.write_value(encode_record(Record(id, features, id % 2)))
    topics.producer.flush(60)
    process = start("modelgenerator")
    eventually(lambda: "partition=0 from" in process.log())
    eventually(lambda: published(process.log()), 60)
    ends_cleanly(process)


def test_a_wrong_setting_ends_the_start_with_one_line(start: Services) -> None:
    process = start("modelgenerator", WINDOW="10")
    assert process.wait(60) == 2
    assert "WINDOW=10" in process.log()


def test_a_private_key_that_others_may_read_ends_the_start_with_one_line(
    topics: Topics, start: Services
) -> None:
    topics.settings.signing_key.chmod(0o644)
    process = start("modelgenerator")
    assert process.wait(60) == 1
    assert "others may read this private key" in process.log()
    assert "Traceback" not in process.log()
