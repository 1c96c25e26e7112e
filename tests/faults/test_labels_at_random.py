"""Labels of every kind, at random, while predictors are killed: every promise holds at the end."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from functools import partial

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError

from local.process import stop
from predictor.committed import Commit
from predictor.tally import Tally
from stream import reading
from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.topics import Topics

ROUNDS = 12
RECORDS_A_ROUND = 1_000


class RandomLabels:
    """Writes records without labels, and labels that come later, double, early, wrong or never.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, topics: Topics, seed: int) -> None:
        self._topics = topics
        self._random = random.Random(seed)
        self._due: list[deque[dict[str, object]]] = [deque() for _ in range(topics.partitions)]
        self._next = 0

    def write(self, count: int) -> None:
        """Write so many records, and the labels that come meanwhile."""
        for _ in range(count):
            self._record()
            for partition, due in enumerate(self._due):
                if due and self._random.random() < 0.33:
                    place = min(int(self._random.expovariate(0.01)), len(due) - 1)
                    self._label(partition, due[place])
                    if self._random.random() > 0.05:  # else it comes again
                        del due[place]
        self._topics.producer.flush(30)

    def _record(self) -> None:
        topics, chance, partition = self._topics, self._random, self._next % self._topics.partitions
        self._next += 1
        id: object = f"same-{self._next % 7}" if chance.random() < 0.05 else self._next
        fields: dict[str, object] = {"id": id, "features": [chance.gauss(0, 1), 1.0]}
        kind = chance.random()
        if kind < 0.2:
            fields["label"] = chance.randrange(2)
        elif kind < 0.21:
            fields["features"] = "none"
        label: dict[str, object] = {"id": id, "label": chance.randrange(2)}
        early = chance.random() < 0.03
        if early:
            self._label(partition, label)
        sent = topics.producer.send(
            topics.settings.data_topic, json.dumps(fields).encode(), partition=partition
        )
        if chance.random() < 0.02:
            label = {"source": [partition, sent.get(30).offset], "label": 1}
        if not early and chance.random() < 0.9:
            self._due[partition].append(label)
        if chance.random() < 0.03:
            self._due[partition].append(label | {"label": chance.randrange(2), "revises": True})

    def _label(self, partition: int, label: dict[str, object]) -> None:
        kind = self._random.random()
        value, time_ms = json.dumps(label).encode(), None
        if kind < 0.01:
            value = json.dumps({"id": f"nobody-{self._next}", "label": 1}).encode()
        elif kind < 0.02:
            partition = (partition + 1) % self._topics.partitions
        elif kind < 0.03:
            value = b"{"
        elif kind < 0.04:
            time_ms = self._random.choice([1, int(1_000 * time.time()) + 600_000])
        topic = self._topics.settings.label_topic
        self._topics.producer.send(topic, value, partition=partition, timestamp_ms=time_ms)


def has_gone_on(topics: Topics, since: int) -> bool:
    """Tell whether more is answered by now, or nothing was left to answer."""
    return topics.answered() > since or all_is_answered(topics)


def all_is_answered(topics: Topics) -> bool:
    """Tell whether all records are predicted, and all labels answered."""
    for partition in range(topics.partitions):
        ends = {}
        for topic in (topics.settings.data_topic, topics.settings.label_topic):
            place = TopicPartition(topic, partition)
            try:
                offsets = topics.admin.list_group_offsets(topics.group)
            except KafkaError:
                return False
            found = offsets[topics.group].get(place)
            if not found or found.offset < reading.bounds(topics.consumer, place)[1]:
                return False
            ends[topic] = found
        labels = ends[topics.settings.label_topic]
        if Commit(0, Tally(), None).with_labels(labels.offset, labels.metadata).early:
            return False
    return True


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (1, {"LABEL_WAIT": "700", "LABEL_ASSUME": "0"}),
        (2, {"LABEL_WAIT": "seconds:3"}),
    ],
    ids=["by count, then assumed", "by age"],
)
def test_labels_at_random_are_each_answered_once_while_predictors_are_killed(
    three: Topics, start: Services, seed: int, settings: dict[str, str]
) -> None:
    settings = settings | {"LABEL_EARLY_SECONDS": "2"}
    traffic, chance = RandomLabels(three, seed), random.Random(seed)
    three.publish(1)
    replicas = {"one": start.replica("one", **settings)}
    for number in range(ROUNDS):
        traffic.write(RECORDS_A_ROUND)
        name = chance.choice(["one", "two", "three"])
        if name in replicas:
            replicas[name].kill()
        replicas[name] = start.replica(name, **settings)
        if number == ROUNDS // 2:
            three.publish(2)
        answered = three.answered()
        eventually(partial(has_gone_on, three, answered), PATIENCE_SECONDS)
    eventually(lambda: all_is_answered(three), 120)
    # Else predictions without a label would still expire.
    assert stop([*replicas.values()]) == [0] * len(replicas)
    three.check(*start.written)
    run = start.python("-m", "predictor.verify", "--json")
    assert run.returncode == 0, run.stdout + run.stderr


def test_beside_predictors_that_go_on_answering_labels_verify_finds_nothing_wrong(
    three: Topics, start: Services
) -> None:
    traffic = RandomLabels(three, seed=3)
    three.publish(1)
    for name in ("one", "two"):
        start.replica(name, LABEL_WAIT="700", LABEL_ASSUME="0", LABEL_EARLY_SECONDS="1")
    traffic.write(RECORDS_A_ROUND)
    eventually(lambda: three.answered() > RECORDS_A_ROUND)
    for _ in range(3):
        verify = start.run("verify", "predictor.verify")
        while verify.status is None:
            traffic.write(RECORDS_A_ROUND // 10)
        assert verify.status == 0, verify.log()
