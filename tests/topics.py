"""The topics of a test: to write to them, and to read what the services wrote."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from sklearn.linear_model import LogisticRegression

from modelgenerator.publisher import Publisher
from modelgenerator.settings import Settings
from stream import clients, reading
from stream.keys import SigningKey, signing_key
from stream.model_topic import ModelTopic
from stream.models import Envelope, Message, pack
from stream.records import (
    Label,
    Record,
    Schema,
    Status,
    encode_label,
    encode_record,
    encode_schema,
    encode_status,
)
from stream.seal import read_seal
from stream.service import Stop
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from tests.checker import check
from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.snapshot import Report
from tests.unit.classifiers import envelope, pickled

Records = list[dict[str, Any]]
Rule = Callable[[Sequence[float]], bool]


def first_is_positive(features: Sequence[float]) -> bool:
    """Tell whether the first feature is positive."""
    return features[0] > 0


class Topics:
    """Writes and reads the topics that a test's settings name.

    Parameters
    ----------
    env : mapping of str to str
    partitions : int
    """

    def __init__(self, env: Mapping[str, str], partitions: int = 1) -> None:
        given = {name.lower(): value for name, value in env.items()}
        given["data_partitions"] = str(partitions)
        self.settings = Settings.model_validate(given)
        self.env = dict(env)
        self.group = env["GROUP_ID"]
        self.partitions = partitions
        self.key = signing_key(Path(env["SIGNING_KEY"]))
        self.key.share(Path(env["TRUSTED_KEYS"]))
        log = logging.getLogger("test")
        connect = partial(clients.connect, settings=self.settings, stop=Stop(), log=log)
        self.admin: KafkaAdminClient = connect(lambda: clients.admin(self.settings))
        wanted = StreamSettings.model_validate(given)  # all topics that there are
        connect(lambda: ensure_topics(self.admin, wanted, log))
        self.producer: KafkaProducer = connect(
            lambda: clients.producer(self.settings, max_block_ms=60_000)
        )
        self.consumer: KafkaConsumer = connect(lambda: clients.consumer(self.settings))
        self._next_id = 0
        self._read_so_far: dict[TopicPartition, tuple[int, Records]] = {}

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(self.producer, self.consumer, self.admin)

    def write(
        self,
        count: int,
        label: bool = True,
        mean: float = 0.0,
        rule: Rule = first_is_positive,
        width: int = 2,
    ) -> None:
        """Write records of `width` features, whose label `rule` tells."""
        rng = np.random.default_rng(self._next_id)
        for features in rng.normal(mean, size=(count, width)).tolist():
            record = Record(self._next_id, features, int(rule(features)) if label else None)
            self.producer.send(
                self.settings.data_topic,
                encode_record(record),
                partition=self._next_id % self.partitions,
            )
            self._next_id += 1
        self.producer.flush(PATIENCE_SECONDS)

    def write_values(self, values: Iterable[bytes | None], key: bytes = b"k") -> None:
        """Write records as they are."""
        for value in values:
            self.producer.send(self.settings.data_topic, value, key=key, partition=0)
        self.producer.flush(PATIENCE_SECONDS)

    def label(
        self,
        label: int | str,
        id: int | str | None = None,
        source: tuple[int, int] | None = None,
        revises: bool = False,
        partition: int = 0,
        time_ms: int | None = None,
    ) -> None:
        """Write a label that comes later; `flush` has to follow."""
        value = encode_label(Label(label, id, source, revises))
        topic = self.settings.label_topic
        self.producer.send(topic, value, partition=partition, timestamp_ms=time_ms)

    def label_ids(self, *ids: int) -> None:
        """Write labels by id, of each record in its partition: the last bit of the id."""
        for id in ids:
            self.label(id % 2, id, partition=id % self.partitions)
        self.producer.flush(PATIENCE_SECONDS)

    def label_nothing(self, count: int) -> None:
        """Write labels by ids that no record has; `flush` has to follow."""
        for n in range(count):
            self.label(1, f"no record {n}")

    def describe(self, schema: Schema) -> None:
        """Write the schema."""
        topic = self.settings.schema_topic
        self.producer.send(topic, encode_schema(schema), key=b"schema").get(30)

    def publish(self, version: int, classifier: Any = None, **changes: Any) -> None:
        """Publish a signed model of two features; a logistic regression, if no other is given.

        It names no stream, as models of older software, unless `changes` has one.
        """
        self.send(pack(envelope(version, **changes), pickled(classifier or regression()), self.key))

    @property
    def stream(self) -> str:
        """Id of the stream that models are signed for where ``STREAM_ID`` is not set."""
        return f"{self.admin.describe_cluster()['cluster_id']}/{self.settings.model_topic}"

    def publish_next(
        self,
        model: Envelope | None = None,
        pickle: bytes | None = None,
        key: SigningKey | None = None,
    ) -> int:
        """Publish a model of two features as the modelgenerator does, and return its version."""
        with publisher(self.settings, key or self.key) as found:
            return found.publish(model or envelope(), pickle or pickled(regression()))

    @contextmanager
    def transactional(self, name: str) -> Iterator[KafkaProducer]:
        """Return a producer of transactions that is as patient with a slow broker as `producer`."""
        options = {"transactional_id": name, "max_block_ms": 60_000}
        with clients.closing(clients.producer(self.settings, **options)) as producer:
            producer.init_transactions()
            yield producer

    def send(self, messages: Iterable[Message]) -> None:
        """Write messages to the model topic."""
        for message in messages:
            self.producer.send(
                self.settings.model_topic, message.value, headers=message.headers, partition=0
            )
        self.producer.flush(PATIENCE_SECONDS)

    def say(
        self,
        version: int,
        status: str,
        replica: str = "r",
        reason: str = "for a test",
        sealed: bool = True,
    ) -> None:
        """Write a status as a predictor does, or as somebody who has no secret."""
        topic = self.settings.status_topic
        value = encode_status(Status(version, status, {}, reason, replica))
        seal = read_seal(self.settings.predictor_secret, make=True) if sealed else None
        headers = seal.headers(topic, value) if seal else None
        self.producer.send(topic, value, headers=headers, partition=0).get(30)

    def delete(self, *topics: str) -> None:
        """Delete topics, and wait until they are gone; others may have their names by then."""

        def ids() -> set[Any]:
            found = self.admin.describe_topics(list(topics))
            return {topic["topic_id"] for topic in found if not topic["error_code"]}

        before = ids()
        self.admin.delete_topics(list(topics))
        eventually(lambda: not before & ids())

    def predictions(self, partition: int = 0) -> Records:
        """Read the predictions of a partition."""
        return self._read(self.settings.prediction_topic, partition)

    def rejected(self, partition: int = 0) -> Records:
        """Read the rejected records of a partition."""
        return self._read(self.settings.rejected_topic, partition)

    def outcomes(self, partition: int = 0) -> Records:
        """Read the predictions of a partition that met their labels."""
        return [p for p in self.predictions(partition) if "outcome" in p]

    def rejected_labels(self, partition: int = 0) -> Records:
        """Read the rejected labels of a partition."""
        return self._read(self.settings.label_rejected_topic, partition)

    def statuses(self) -> Records:
        """Read what predictors said about models."""
        return self._read(self.settings.status_topic, 0)

    def models(self) -> Records:
        """Read the model topic, once all that was written to it is committed or aborted."""
        self.await_decided()
        return self._read(self.settings.model_topic, 0)

    def assembled(self) -> list[tuple[Envelope, bytes]]:
        """Read the whole models of the model topic; each of their parts has to be signed."""

        def fail(_: object, why: str) -> None:
            raise AssertionError(why)

        self.await_decided()
        trusted = self.settings.trusted_keys
        topic = ModelTopic(self.settings, self.consumer, Stop(), trusted, fail)
        return [topic.get(found.version) for found in topic.read_all().models() if found.whole]

    def versions(self) -> list[int]:
        """Return the versions of the whole models."""
        return [model.version for model, _ in self.assembled()]

    def await_decided(self) -> None:
        """Wait until a reader of committed models sees all that is on their topic now.

        A publisher goes on once its commit is decided, which readers see a moment later.
        """
        place = TopicPartition(self.settings.model_topic, 0)
        end = self.admin.list_partition_offsets({place: OffsetSpec.LATEST})[place].offset
        eventually(lambda: reading.bounds(self.consumer, place)[1] >= end, 90)

    def records(self, topic: str, partition: int = 0) -> list[Any]:
        """Read a partition of a topic from its beginning, as consumer records."""
        place = TopicPartition(topic, partition)
        start, end = reading.bounds(self.consumer, place)
        return list(reading.read_range(self.consumer, place, start, end, Stop()))

    def ids(self) -> dict[int, list[Any]]:
        """Read the ids of the records on each data partition."""
        topic = self.settings.data_topic
        return {
            partition: [
                orjson.loads(record.value)["id"] for record in self.records(topic, partition)
            ]
            for partition in range(self.partitions)
        }

    def written(self) -> int:
        """Return how many records were written here."""
        return self._next_id

    def answered(self) -> int:
        """Return how many predictions and rejected records there are."""
        return sum(len(self.predictions(p)) + len(self.rejected(p)) for p in range(self.partitions))

    @property
    def log(self) -> Path:
        """Where a predictor with the settings of the test writes its lines."""
        return Path(self.env["LOG_FILE"])

    def check(self, *logs: Path, recreated: bool = False) -> Report:
        """Check every invariant on the topics and in log files."""
        return check(self.env, logs, recreated)

    def logged(self, log: Path | None = None) -> bool:
        """Tell whether a log file has a line for every tenth counted prediction."""
        log = log or self.log
        read = [self.predictions(partition) for partition in range(self.partitions)]
        counts: list[int] = [predictions[-1]["n"] for predictions in read if predictions]
        lines = log.read_text().count("\n") if log.is_file() else 0
        return lines == sum(n // 10 for n in counts)

    def _read(self, topic: str, partition: int) -> Records:
        place = TopicPartition(topic, partition)
        beginning, end = reading.bounds(self.consumer, place)
        start, rows = self._read_so_far.get(place, (beginning, []))
        found = reading.read_range(self.consumer, place, start, end, Stop())
        # What stands for a batch that nobody can decode has no value.
        rows = rows + [orjson.loads(r.value) for r in found if r.value is not None]
        self._read_so_far[place] = (end, rows)
        return rows


def await_answered(
    topics: Topics, count: int | None = None, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until so many records are answered: all that were written, if no number is given."""
    goal = topics.written() if count is None else count
    eventually(
        lambda: topics.answered() >= goal,
        seconds,
        lambda: f"{goal} answers; there are {topics.answered()}",
    )


def await_serving(topics: Topics, version: int) -> None:
    """Write records until a version is said to serve and all of them are answered."""

    def serves() -> bool:
        topics.write(10)
        return any(s["version"] == version and s["status"] == "serving" for s in topics.statuses())

    eventually(serves, message=f"model {version} serves")
    await_answered(topics)


def await_no_members(topics: Topics) -> None:
    """Wait until the group has no members: only then can an operator change its offsets."""
    eventually(lambda: not topics.admin.describe_groups([topics.group])[topics.group]["members"])


@contextmanager
def publisher(settings: Settings, key: SigningKey) -> Iterator[Publisher]:
    """Return a publisher as the modelgenerator and its commands use it."""
    with (
        clients.closing(
            clients.connected(clients.consumer, settings, Stop(), logging.getLogger("test"))
        ) as consumer,
        closing(Publisher(settings, key, Stop(), consumer)) as found,
    ):
        yield found


def regression(padding: int = 0) -> LogisticRegression:
    """Fit a logistic regression to what `Topics.write` writes.

    Parameters
    ----------
    padding : int
        Bytes by which its pickle is larger than it has to be.
    """
    matrix = np.random.default_rng(0).normal(size=(200, 2))
    found = LogisticRegression().fit(matrix, (matrix[:, 0] > 0).astype(int))
    found.padding = os.urandom(padding)
    return found


def assert_exactly_once(topics: Topics) -> None:
    """Assert that each record was answered once and that the counts run on without a gap."""
    for partition in range(topics.partitions):
        predictions = topics.predictions(partition)
        sources = [p["source"][1] for p in predictions + topics.rejected(partition)]
        place = TopicPartition(topics.settings.data_topic, partition)
        assert sorted(sources) == list(range(reading.bounds(topics.consumer, place)[1]))
        counts = [p["n"] for p in predictions if p["label"] is not None and not p.get("seen")]
        assert counts == list(range(1, len(counts) + 1))
        assert_correct_runs_on(predictions)


def assert_correct_runs_on(predictions: Sequence[dict[str, Any]]) -> None:
    """Assert that `correct` counts the right predictions, and accuracy follows from it."""
    correct = 0
    for p in predictions:
        if p["label"] is not None and not p.get("seen"):
            correct += p["label"] == p["prediction"]
        assert p["correct"] == correct
        assert p["accuracy"] == (correct / p["n"] if p["n"] else None)


def predict_with_a_swap_a_refusal_and_rejected_records(
    topics: Topics, start: Services, reason: str
) -> None:
    """Let model 2, published for this reason, replace model 1; three records are rejected."""
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    topics.publish(2, algorithm="LogisticRegression", reason=reason)
    await_serving(topics, 2)
    topics.publish(3, features=3)
    eventually(lambda: any(s["status"] == "refused" for s in topics.statuses()))
    topics.write_values([b"not json"] * 3)
    eventually(lambda: len(topics.rejected()) == 3)
    topics.write(30, label=False)
    await_answered(topics, topics.written() + 3)
