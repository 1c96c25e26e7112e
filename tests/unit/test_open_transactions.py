from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from stream.kafka_workarounds import Progress
from stream.open_transactions import HELD_SECONDS, Watch

PLACE = TopicPartition("d", 0)


class World:
    """A clock, and brokers that do not answer."""

    def __init__(self) -> None:
        self.now = 1_000.0

    @contextmanager
    def connect(self) -> Iterator[Any]:
        raise KafkaTimeoutError
        yield

    def clock(self) -> float:
        return self.now


Look = Callable[..., list[str]]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def look(world: World, caplog: pytest.LogCaptureFixture) -> Look:
    watch = Watch(world.connect, world.clock)

    def passing(seconds: float, **found: Progress) -> list[str]:
        """Let time pass with partitions as they are, and return what was said."""
        caplog.clear()
        for _ in range(int(seconds)):
            watch.look({TopicPartition("d", int(p[1:])): at for p, at in found.items()})
            world.now += 1
        for thread in threading.enumerate():
            if thread.name == "watch":
                thread.join()
        return caplog.messages

    return passing


def test_a_partition_that_is_held_for_a_while_is_named_once_a_minute(look: Look) -> None:
    held = Progress(position=5, readable=5, end=9)
    assert look(HELD_SECONDS, p0=held) == []
    (line,) = look(1, p0=held)
    assert re.fullmatch(
        r"d partition 0: a transaction of an unknown producer is open from offset 5 on since"
        r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ at least; records from there on wait for its end",
        line,
    )
    assert len(look(121, p0=held)) == 2


def test_short_transactions_one_after_the_other_are_not_named(look: Look) -> None:
    for offset in range(100):
        assert look(HELD_SECONDS - 1, p0=Progress(offset, offset, offset + 1)) == []


@pytest.mark.parametrize(
    "progress",
    [Progress(9, 9, 9), Progress(3, 5, 9), Progress(3, 9, 9)],
    ids=["read to the end", "not yet read so far", "not yet read"],
)
def test_a_partition_that_is_not_held_is_not_named(look: Look, progress: Progress) -> None:
    assert look(100, p0=progress) == []


def test_many_partitions_are_one_line(look: Look) -> None:
    look(HELD_SECONDS, **{f"p{n}": Progress(n, n, 99) for n in range(8)})
    (line,) = look(1, **{f"p{n}": Progress(n, n, 99) for n in range(8)})
    assert line.count(" is open from offset ") == 3
    assert line.endswith("; 5 more partitions are held")
