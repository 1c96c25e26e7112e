from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from stream.records import decode_label, decode_record
from tests.late_stream import MISSING, LateStream

RECORDS = 3_000


def written(chunk: int) -> list[tuple[str, int]]:
    """Return the ids of records and labels in the order in which they are written."""
    found: list[tuple[str, int]] = []

    def send(topic: str, value: bytes, partition: int) -> None:
        read: Any = decode_record(value) if topic == "data" else decode_label(value)
        assert partition == read.id % MISSING % 3
        found.append((topic, read.id))

    topics: Any = SimpleNamespace(
        partitions=3,
        settings=SimpleNamespace(data_topic="data", label_topic="label"),
        producer=SimpleNamespace(send=send, flush=lambda _: None),
    )
    stream = LateStream(topics, longest=200)
    for start in range(0, RECORDS, chunk):
        stream.write(start, min(start + chunk, RECORDS))
    stream.finish(RECORDS)
    labels = Counter(id for topic, id in found if topic == "label")
    doubles, orphans = stream.counts(RECORDS)
    assert set(range(RECORDS)) == {id for id in labels if id < MISSING}
    assert sum(count == 2 for count in labels.values()) == doubles
    assert sum(id >= MISSING for id in labels) == orphans
    return found


@pytest.mark.parametrize("chunk", [100, 1_000])
def test_each_record_gets_its_label_after_it_and_few_get_two(chunk: int) -> None:
    seen: set[int] = set()
    for topic, id in written(chunk):
        if topic == "data":
            seen.add(id)
        else:
            assert id % MISSING in seen


def test_what_is_written_does_not_depend_on_where_writing_stops_and_goes_on() -> None:
    assert sorted(written(100)) == sorted(written(1_000))


def test_labels_come_out_of_order() -> None:
    labels = [id for topic, id in written(100) if topic == "label" and id < MISSING]
    assert labels != sorted(labels)
