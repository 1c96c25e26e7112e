"""Retention that takes records before they were predicted: real segments that really expire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from kafka import TopicPartition

from local.kafka import LocalKafka
from stream import reading
from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.topics import Topics, await_no_members

PADDING = "x" * 5_000


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    """A broker that looks for expired segments all the time."""
    properties = {
        "log.retention.check.interval.ms": "200",
        "log.initial.task.delay.ms": "200",
        "log.segment.delete.delay.ms": "0",
    }
    broker = LocalKafka(tmp_path / "kafka", properties=properties)
    with broker:
        yield broker.bootstrap_servers
        broker.kill()


@pytest.fixture
def settings_env(settings_env: dict[str, str]) -> dict[str, str]:
    return settings_env | {"DATA_RETENTION_BYTES": "1000000"}


def write_until_expired(topics: Topics, offset: int) -> None:
    """Write records until retention has taken the one at `offset` and some after it."""
    place = TopicPartition(topics.settings.data_topic, 0)
    record = {"id": "padded", "features": [1.0, 2.0], "label": 1, "note": PADDING}
    values = [orjson.dumps(record)] * 1_000

    def expired() -> bool:
        topics.write_values(values)
        return reading.bounds(topics.consumer, place)[0] > offset

    eventually(expired, PATIENCE_SECONDS)
    # More segments have expired by now; the broker deletes them at its next check.
    topics.write(10)


@pytest.mark.parametrize(
    "state", ["it is down", "it is down and its group is deleted", "it is paused"]
)
def test_records_deleted_by_retention_before_they_were_predicted_are_named_and_counts_go_on(
    topics: Topics,
    start: Services,
    state: str,
) -> None:
    topics.publish(1)
    predictor = start("predictor")
    topics.write(500)
    eventually(lambda: topics.answered() == 500, PATIENCE_SECONDS)
    if state == "it is paused":
        predictor.pause()
    else:
        assert predictor.stop() == 0
    if state == "it is down and its group is deleted":
        await_no_members(topics)
        assert topics.admin.delete_groups([topics.group]) == {topics.group: "OK"}
    write_until_expired(topics, 500)
    if state == "it is paused":
        predictor.wake()
    else:
        predictor = start("predictor")
    place = TopicPartition(topics.settings.data_topic, 0)
    end = reading.bounds(topics.consumer, place)[1]
    eventually(lambda: topics.predictions()[-1]["source"][1] == end - 1, PATIENCE_SECONDS)
    found = re.findall(r"resuming at offset (\d+), (\d+) records lost unpredicted", predictor.log())
    sources = [prediction["source"][1] for prediction in topics.predictions()]
    gaps = [(to, to - last - 1) for last, to in pairwise(sources) if to != last + 1]
    named = [(int(offset), int(never_seen)) for offset, never_seen in found]
    assert gaps
    assert set(gaps) <= set(named)  # retention may delete more after the predictor has looked
    assert gaps[-1] == named[-1]
    assert topics.predictions()[-1]["n"] == topics.answered()
    assert ("no tally is committed" in predictor.log()) == ("group" in state)
    topics.check(topics.log)


def test_a_flood_of_the_schema_topic_under_many_keys_is_bounded_like_that_of_any_other(
    settings_env: dict[str, str],
) -> None:
    with Topics(settings_env | {"MODEL_RETENTION_BYTES": "1000000"}) as topics:
        place = TopicPartition(topics.settings.schema_topic, 0)
        for n in range(4_000):
            topics.producer.send(place.topic, PADDING.encode(), key=b"%d" % n, partition=0)
        topics.producer.flush(30)
        # What is compacted, too, is looked at every 15 seconds.
        eventually(lambda: reading.bounds(topics.consumer, place)[0] > 0, PATIENCE_SECONDS)
