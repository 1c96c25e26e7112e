"""What the predictor takes next of two topics, without Kafka."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from predictor import intake as module
from predictor.consumed import Consumed, ConsumedLabel
from predictor.intake import Intake
from predictor.tally import Tally
from stream.service import Stop
from tests.unit.states import states


class Feed:
    """Stands for the label topic."""

    def __init__(self, *_: object) -> None:
        self.missing: set[int] = set()
        self.behind: dict[int, int] = {}

    def assign(self, offsets: object) -> None:
        pass

    def is_behind(self, partition: int, offset: int) -> bool:
        return partition in self.behind and offset >= self.behind[partition]


class World:
    """An intake of two partitions, and what a test has put into it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LabelFeed", Feed)
        monkeypatch.setattr(module, "progress", lambda _: self.progress)
        self.progress: dict[Any, Any] = {}
        consumer = SimpleNamespace(seek=lambda *_: None, resume=lambda *_: None)
        group: Any = SimpleNamespace(consumer=consumer)
        self.states = states(Tally(), Tally())
        self.intake = Intake(self.states[0].settings, group, Stop())
        self.feed: Any = self.intake.labels
        self.intake.begin(self.states)

    def records(self, *times: int, partition: int = 0) -> None:
        pending = self.intake._pending[partition]
        for time in times:
            pending.records.append(
                Consumed(partition, len(pending.records), None, b"r", None, time)
            )
        place = self.intake._place(partition)
        self.progress[place] = SimpleNamespace(position=len(pending.records))

    def labels(self, *times: int, partition: int = 0) -> None:
        pending = self.intake._pending[partition]
        for time in times:
            label = ConsumedLabel(partition, len(pending.labels), None, b"l", None, time)
            pending.labels.append(label)

    def take(self, most: int = 100) -> str:
        """Return what is taken: r and l with their times."""
        events, _ = self.intake.take(most)
        return " ".join(f"{(event.value or b'').decode()}{event.time}" for event in events)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_label_that_is_younger_than_all_records_waits_until_the_end_of_the_data_was_reached(
    world: World,
) -> None:
    world.records(1, 3)
    world.labels(2, 4)
    assert world.take() == "r1 l2 r3"
    world.feed.behind = {0: 3}
    assert world.take() == "r1 l2 r3"
    assert (world.states[0].labels_left, world.states[0].labels_behind) == (True, False)
    world.feed.behind = {0: 2}
    assert world.take() == "r1 l2 r3 l4"
    assert not world.states[0].labels_left
    assert world.intake.take(100)[1] == {0}


def test_a_record_waits_for_older_labels_that_are_on_the_topic_and_were_not_read(
    world: World,
) -> None:
    world.records(1, 3, 5)
    world.feed.missing = {0}
    assert world.take() == ""
    assert world.states[0].labels_behind
    world.labels(2, 4)
    assert world.take() == "r1 l2 r3 l4"
    assert not world.states[0].labels_behind


def test_records_do_not_wait_for_labels_that_cannot_be_taken(world: World) -> None:
    world.records(1, 3)
    world.feed.missing = {0}
    world.states[0].labels_paused = True
    assert world.take() == "r1 r3"


def test_while_known_predictions_are_read_back_records_go_on_and_labels_wait(world: World) -> None:
    world.records(2, 3)
    world.labels(1)
    world.states[0].rebuilding = True
    assert world.take() == "r2 r3"
    assert world.states[0].labels_behind


def test_in_a_held_partition_no_label_is_taken(world: World) -> None:
    world.labels(1)
    world.feed.behind = {0: 0}
    world.records(2)
    world.intake.waiting.held = {0}
    assert world.take() == "r2"


def test_what_one_partition_has_no_use_for_in_a_unit_others_get(world: World) -> None:
    world.records(*range(10))
    world.records(7, partition=1)
    assert len(world.take(8).split()) == 8
    world.feed.missing = {0}
    assert world.take(8) == "r7"


def test_what_was_taken_stays_until_it_is_committed(world: World) -> None:
    world.records(1, 3, 5)
    world.labels(2, 4)
    assert world.take(3) == "r1 l2 r3" == world.take(3)
    world.states[0].offset, world.states[0].tally.labels = 1, 1
    world.intake.drop(world.states)
    assert world.take() == "r3 l4 r5"
