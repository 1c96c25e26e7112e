from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from predictor import group as module
from predictor.group import JOIN_SECONDS, LOOK_SECONDS, Group
from predictor.settings import PredictorSettings
from stream import clients
from stream.service import Fatal, Stop

SETTINGS = PredictorSettings.model_validate({"group_id": "ours", "data_topic": "d"})
PLACES = {TopicPartition("d", 0), TopicPartition("d", 1)}


class Member:
    """Stands for a consumer: each poll does the next thing that a test has planned."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.listener: Any = None
        self.assigned: set[TopicPartition] = set()
        self.paused: list[TopicPartition] = []

    def subscribe(self, topics: list[str], listener: Any) -> None:
        assert topics == ["d"]
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def pause(self, *places: TopicPartition) -> None:
        self.paused = sorted(places)

    def poll(self, timeout_ms: int) -> dict[str, Any]:
        self.world.now += timeout_ms / 1000
        if self.world.planned:
            self.world.planned.pop(0)(self)
        return {}

    def close(self, **_: object) -> None:
        pass


class World:
    """A cluster, a clock, and the members that were made."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.planned: list[Callable[[Member], None]] = []
        self.members: list[Member] = []
        self.id, self.label_id, self.partitions = UUID(int=1), UUID(int=11), 2
        self.described = 0
        self.error: Exception | None = None

    def member(self, *_: object, **__: object) -> Member:
        self.members.append(Member(self))
        return self.members[-1]

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        self.described += 1
        if self.error:
            raise self.error
        return [
            {"name": name, "topic_id": str(id), "partitions": [{}] * self.partitions}
            for name, id in zip(topics, (self.id, self.label_id), strict=True)
        ]


def assign(member: Member) -> None:
    member.assigned = PLACES
    member.listener.on_partitions_assigned(PLACES)


def revoke(member: Member) -> None:
    member.assigned = set()
    member.listener.on_partitions_revoked(PLACES)


def nothing(member: Member) -> None:
    pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    monkeypatch.setattr(clients, "consumer", found.member)
    monkeypatch.setattr(module, "ensure_topics", lambda *_: None)
    return found


@pytest.fixture
def group(world: World) -> Group:
    return Group(SETTINGS, world, Stop())


@pytest.fixture
def joined(group: Group, world: World) -> Group:
    world.planned = [assign]
    group.join()
    assert not group.changed
    return group


def test_before_it_has_joined_the_assignment_counts_as_changed(group: Group) -> None:
    assert group.changed


def test_it_polls_until_an_assignment_stays_for_a_poll(group: Group, world: World) -> None:
    world.planned = [nothing, assign, nothing, revoke]
    assert group.join() == PLACES
    assert not group.changed
    assert world.planned == [revoke]


def test_an_assignment_that_is_revoked_meanwhile_is_not_the_one_that_it_joins_with(
    group: Group, world: World
) -> None:
    def assign_and_revoke(member: Member) -> None:
        assign(member)
        revoke(member)

    world.planned = [assign_and_revoke, nothing, assign]
    assert group.join() == PLACES


def test_what_it_joins_with_is_paused(joined: Group, world: World) -> None:
    assert world.members[0].paused == sorted(PLACES)


def test_a_rebalance_after_the_join_is_noticed(joined: Group, world: World) -> None:
    revoke(world.members[0])
    assert joined.changed


def test_one_that_is_assigned_nothing_for_too_long_rejoins_with_a_new_member(
    group: Group, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.planned = [*[nothing] * int(10 * JOIN_SECONDS + 2), assign]
    assert group.join() == PLACES
    assert len(world.members) == 2
    assert group.consumer is world.members[1]
    assert [record.getMessage() for record in caplog.records] == [
        "not a member of group ours after 20 s; rejoining"
    ]


def test_a_join_that_fails_is_retried(group: Group, world: World) -> None:
    def fail(member: Member) -> None:
        raise KafkaConnectionError

    world.planned = [fail, assign]
    assert group.join() == PLACES


def test_a_topic_that_stays_as_it_is_changes_nothing(joined: Group) -> None:
    joined.look()
    assert not joined.changed


def test_a_grown_topic_is_noticed_and_the_group_rejoined(joined: Group, world: World) -> None:
    world.partitions = 3
    joined.look()
    assert joined.changed
    assert len(world.members) == 2


@pytest.mark.parametrize("topic", ["id", "label_id"])
def test_a_recreated_topic_is_noticed_until_the_next_join(
    joined: Group, world: World, topic: str
) -> None:
    setattr(world, topic, UUID(int=2))
    joined.look()
    assert joined.changed
    joined.ensure_topics()
    joined.join()
    assert not joined.changed
    assert getattr(joined.topics, topic) == str(UUID(int=2))
    assert len(world.members) == 1


def test_brokers_that_give_no_id_say_nothing_of_a_recreated_topic(
    world: World, group: Group
) -> None:
    world.id = world.label_id = UUID(int=0)
    group.ensure_topics()
    assert group.topics == (None, None, 2)


def test_the_topic_is_looked_at_every_few_seconds_only(joined: Group, world: World) -> None:
    before = world.described
    for _ in range(100):
        joined.look()
        world.now += LOOK_SECONDS / 50
    assert world.described - before == 2


def test_a_broker_that_is_away_while_it_looks_changes_nothing(joined: Group, world: World) -> None:
    world.error = KafkaConnectionError()
    joined.look()
    assert not joined.changed


def test_a_broker_that_refuses_while_it_looks_ends_the_service(joined: Group, world: World) -> None:
    world.error = TopicAuthorizationFailedError("d")
    with pytest.raises(Fatal, match="lacks the right to Read the topic d"):
        joined.look()
