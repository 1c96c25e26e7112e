from __future__ import annotations

import tracemalloc
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition

from stream.reading import last_readable, newest
from stream.records import Numbers, Record, decode_record
from stream.service import Stop

PLACE = TopicPartition("data", 0)
RECORD = b'{"id":1,"features":[2]}'


class Partition:
    """A consumer of a partition that holds one record and garbage behind it."""

    def __init__(self, at: int, end: int) -> None:
        self.at = at
        self.end = end
        self.read = 0

    def beginning_offsets(self, places: list[TopicPartition], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: list[TopicPartition], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(places, self.end)

    def assign(self, places: list[TopicPartition]) -> None:
        assert places == [PLACE]

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.offset = offset

    def position(self, _: TopicPartition) -> int:
        return self.offset

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        offsets = range(self.offset, min(self.end, self.offset + 500))
        self.offset = offsets.stop
        self.read += len(offsets)
        values = {offset: RECORD if offset == self.at else bytes(100) for offset in offsets}
        return {PLACE: [SimpleNamespace(offset=o, value=value) for o, value in values.items()]}


def find(partition_: Partition, most: int | None = None) -> Record | None:
    return newest(partition_, PLACE, partial(last_readable, decode_record), Stop(), most)


@pytest.mark.parametrize("behind", [0, 1, 7, 8, 500, 5_000])
def test_the_newest_readable_record_is_found_whatever_stands_behind_it(behind: int) -> None:
    topic = Partition(20_000 - behind - 1, 20_000)
    assert find(topic) == Numbers(1, [2])
    assert topic.read <= max(8, 10 * behind)


def test_a_search_goes_no_further_back_than_it_is_told() -> None:
    assert find(Partition(99, 1_000), most=900) is None
    assert find(Partition(100, 1_000), most=900) == Numbers(1, [2])


def test_a_search_through_garbage_takes_the_memory_of_one_poll() -> None:
    topic = Partition(0, 20_000)
    tracemalloc.start()
    try:
        assert find(topic) == Numbers(1, [2])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
