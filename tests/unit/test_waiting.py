from __future__ import annotations

import pytest

from predictor import waiting as module
from predictor.consumed import Consumed
from predictor.waiting import Waiting
from stream import layout
from stream.layout import Layout
from stream.records import Record, Rejected, Schema, encode_record

LAYOUT = Layout()


def valid(offset: int, partition: int = 0) -> Consumed:
    return Consumed(partition, offset, None, encode_record(Record(offset, [1.0], 1)))


def invalid(offset: int, partition: int = 0, value: bytes = b"not json") -> Consumed:
    return Consumed(partition, offset, None, value)


def holding(*partitions: int) -> Waiting:
    found = Waiting()
    assert found.hold(partitions, LAYOUT) == {}
    return found


def test_what_is_not_held_is_answered_whatever_it_is() -> None:
    records = [valid(0), invalid(1), valid(2)]
    assert holding(1).sort(records) == records
    assert Waiting().sort(records) == records


def test_of_a_held_partition_the_invalid_records_that_lead_are_answered_and_the_others_wait() -> (
    None
):
    batch = Consumed(0, 1, None, None, Rejected((0, 1), "batch: cannot be decoded", 9, "", until=4))
    waiting = holding(0)
    assert waiting.sort([invalid(0), batch]) == [invalid(0), batch]
    assert waiting.sort([invalid(5), valid(6), invalid(7)]) == [invalid(5)]
    assert waiting.sort([invalid(8), valid(9)]) == []
    assert waiting.queues[0].first == 6
    assert waiting.read == 4


def test_each_partition_waits_for_itself() -> None:
    waiting = holding(0, 1)
    records = [valid(0), invalid(0, partition=1), valid(1, partition=1), invalid(5, partition=2)]
    assert waiting.sort(records) == [records[1], records[3]]
    assert {p: queue.first for p, queue in waiting.queues.items()} == {0: 0, 1: 1}


def test_a_partition_that_waits_no_longer_is_read_from_its_first_waiting_record() -> None:
    waiting = holding(0, 1)
    waiting.sort([valid(4), valid(5), valid(7, partition=1)])
    assert waiting.hold([1], LAYOUT) == {0: 4}
    waiting.forget([0])
    assert waiting.hold([1], LAYOUT) == {}
    assert waiting.sort([valid(4), valid(5)]) == [valid(4), valid(5)]
    assert waiting.read == 1


def test_a_partition_that_is_read_again_is_counted_anew() -> None:
    waiting = holding(0)
    waiting.sort([valid(4), invalid(5)])
    waiting.forget([0])
    assert str(waiting) == "0 records wait"
    assert waiting.sort([invalid(3), valid(4), invalid(5)]) == [invalid(3)]
    assert waiting.queues[0].first == 4


def test_what_only_a_model_can_say_waits_and_counts_as_invalid_where_the_schema_is_against_it() -> (
    None
):
    waiting = holding(0)
    texts = Consumed(0, 0, None, encode_record(Record(1, ["pro"], 1)))
    label = Consumed(0, 1, None, encode_record(Record(2, [1.0], "1")))
    names = Consumed(0, 2, None, encode_record(Record(3, {"age": 1.0}, True)))
    assert waiting.sort([label, names, texts]) == []
    reason = "label: expected 0 or 1, true or false; a text needs positive and negative in the"
    assert str(waiting).startswith(f"3 records wait, invalid: 3, most often {reason} schema,")
    schema = Schema(["plan"], positive="1", negative="0", types=["category"])
    described = layout.of(schema)
    assert waiting.hold([0], described) == {0: 1}
    waiting.forget([0])
    assert waiting.hold([0], described) == {}
    assert waiting.sort([texts]) == []
    assert str(waiting) == "1 records wait"
    waiting.sort([label, names])
    reason = "features[0] 'plan': expected a text of at most 256 bytes, got 1 (1 of them, first at"
    assert str(waiting) == f"3 records wait, invalid: 2, most often {reason} partition 0 offset 1)"


def test_it_says_how_many_wait_and_the_commonest_reason_of_the_invalid_ones() -> None:
    waiting = holding(0, 1)
    waiting.sort([valid(0), valid(1, partition=1), invalid(2), invalid(3)])
    waiting.sort([invalid(5, 1, b'{"id": 1, "features": [1], "label": 7}'), invalid(6, 1)])
    assert str(waiting).startswith("6 records wait, invalid: 4, most often value: not JSON")
    assert str(waiting).endswith("(3 of them, first at partition 0 offset 2)")


def test_a_long_queue_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AHEAD", 3)
    waiting = holding(0)
    assert not waiting.skips(0, 1_000)
    waiting.sort([valid(0), valid(1)])
    assert not waiting.skips(0, 1_000)
    waiting.sort([valid(2)])
    assert not waiting.skips(0, 2)
    assert waiting.skips(0, 1_000)
    waiting.sort([invalid(1_003)])
    assert (waiting.read, waiting.skipped) == (4, 1_000)
    assert str(waiting).startswith("at most 1,004 records wait, 4 were read, invalid: 1, most")
