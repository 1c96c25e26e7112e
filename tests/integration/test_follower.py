"""Topics are followed from a moment on, on a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from unittest.mock import patch

import pytest
from kafka import TopicPartition
from kafka.errors import OffsetOutOfRangeError

from stream import clients
from stream.follower import Follower
from stream.records import Prediction, decode_prediction, encode_prediction
from stream.topics import partition_counts
from tests.services import eventually
from tests.topics import Topics


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    with patch("stream.follower.LOOK_SECONDS", 0.1):
        yield


def write(topics: Topics, *offsets: int, partition: int = 0, time_ms: int | None = None) -> None:
    """Write predictions, with a producer that knows the topic as it is now."""
    topic = topics.settings.prediction_topic
    # First: what a producer has heard of a topic it does not ask again.
    eventually(lambda: partition_counts(topics.admin, [topic]).get(topic, 0) > partition)
    with clients.closing(clients.producer(topics.settings)) as producer:
        for offset in offsets:
            made = Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (partition, offset))
            value = encode_prediction(made)
            producer.send(topic, value, partition=partition, timestamp_ms=time_ms)
        producer.flush(30)


class Read:
    """The ids that a follower has read so far."""

    def __init__(self, topics: Topics, start_ms: float, most: Mapping[str, int] | None = None):
        self.topic = topics.settings.prediction_topic
        consumer = clients.consumer(topics.settings, metadata_max_age_ms=500)
        self.follower = Follower(consumer, {self.topic: decode_prediction}, start_ms, most)
        self._ids: set[int | str] = set()

    def ids(self) -> set[int | str]:
        self._ids |= {said.record.id for said in self.follower.poll()}
        return self._ids


def test_it_begins_at_the_moment_goes_on_and_passes_over_what_it_cannot_decode(
    topics: Topics,
) -> None:
    now = int(1_000 * time.time())
    write(topics, *range(20), time_ms=now - 60_000)
    write(topics, *range(20, 40), time_ms=now)
    read = Read(topics, now - 1_000)
    eventually(lambda: read.ids() == set(range(20, 40)))
    assert not read.follower.limited
    topics.producer.send(read.topic, b"not json", partition=0).get(30)
    write(topics, 40)
    eventually(lambda: read.ids() == set(range(20, 41)))
    ends = read.follower.ends()
    assert ends == {TopicPartition(read.topic, 0): 42}
    assert read.follower.left(ends) == 0


def test_it_reads_the_newest_records_only_and_says_so_and_the_last_ones_of_any_age(
    topics: Topics,
) -> None:
    write(topics, *range(40))
    read = Read(topics, 0.0, {topics.settings.prediction_topic: 15})
    eventually(lambda: read.ids() == set(range(25, 40)))
    assert read.follower.limited == {read.topic}
    later = Read(topics, 1_000 * time.time() + 60_000)
    eventually(lambda: later.ids() == set(range(30, 40)))
    assert not later.follower.limited


def test_a_partition_that_is_added_is_read_from_its_beginning(topics: Topics) -> None:
    read = Read(topics, 0.0)
    write(topics, 1)
    eventually(lambda: read.ids() == {1})
    topics.admin.create_partitions({read.topic: 2})
    write(topics, 2, partition=1)
    write(topics, 3)
    eventually(lambda: read.ids() == {1, 2, 3})


def test_a_topic_that_comes_later_is_read_and_a_paused_one_only_has_ends(topics: Topics) -> None:
    name = topics.settings.prediction_topic
    topics.delete(name)
    read = Read(topics, 0.0)
    assert read.ids() == set()
    topics.admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    write(topics, 1)
    eventually(lambda: read.ids() == {1})
    read.follower.pause(name)
    write(topics, 2)
    eventually(lambda: read.follower.ends() == {TopicPartition(name, 0): 2})
    assert read.ids() == {1}
    assert read.follower.left(read.follower.ends()) == 0


def test_a_topic_that_was_recreated_has_to_be_read_again(topics: Topics) -> None:
    read = Read(topics, 0.0)
    write(topics, *range(20))
    eventually(lambda: len(read.ids()) == 20)
    topics.delete(read.topic)
    topics.admin.create_topics({read.topic: {"num_partitions": 1, "replication_factor": 1}})

    def noticed() -> bool:
        try:
            read.follower.ends()
        except OffsetOutOfRangeError as error:
            return "has fewer records than before" in str(error)
        return False  # the broker still tells the end of the topic before

    eventually(noticed)
