from __future__ import annotations

import random

import pytest

from predictor.consumed import Consumed, ConsumedLabel
from predictor.order import merge


def records(*times: int | None) -> list[Consumed]:
    return [Consumed(0, offset, None, b"", None, time) for offset, time in enumerate(times)]


def labels(*times: int | None) -> list[ConsumedLabel]:
    return [ConsumedLabel(0, offset, None, b"", None, time) for offset, time in enumerate(times)]


def merged(data: list[Consumed], late: list[ConsumedLabel], ended: bool) -> list[str]:
    return [
        f"{'label' if isinstance(event, ConsumedLabel) else 'record'} {event.offset}"
        for event in merge(data, late, ended)
    ]


def test_the_older_timestamp_goes_first_and_the_record_at_a_tie() -> None:
    found = merged(records(10, 20, 30), labels(5, 20, 25), ended=False)
    assert found == ["label 0", "record 0", "record 1", "label 1", "label 2", "record 2"]


def test_a_label_that_no_record_of_the_unit_is_younger_than_waits_for_the_end_of_the_data() -> None:
    assert merged(records(10), labels(10, 11), ended=False) == ["record 0"]
    assert merged(records(10), labels(10, 11), ended=True) == ["record 0", "label 0", "label 1"]
    assert merged([], labels(10), ended=False) == []


def test_labels_are_taken_in_the_order_of_their_offsets_even_if_a_later_one_is_older() -> None:
    assert merged(records(10), labels(20, 5), ended=False) == ["record 0"]


def test_a_record_without_a_timestamp_waits_for_no_label_and_a_label_without_one_for_all_data() -> (
    None
):
    assert merged(records(None, 10), labels(1), ended=False) == ["record 0", "label 0", "record 1"]
    assert merged(records(10), labels(None, 1), ended=False) == ["record 0"]
    assert merged(records(10), labels(None, 1), ended=True) == ["record 0", "label 0", "label 1"]


@pytest.mark.parametrize("seed", range(5))
def test_in_whatever_pieces_a_stream_is_read_no_label_comes_before_an_older_record(
    seed: int,
) -> None:
    chance = random.Random(seed)
    data = records(*sorted(chance.choices(range(100), k=50)))
    late = labels(*sorted(chance.choices(range(120), k=50)))
    events: list[Consumed] = []
    first = taken = 0
    while first < len(data) or taken < len(late):
        after = min(len(data), first + chance.randint(0, 9))
        read = late[taken : taken + chance.randint(0, 9)]
        new = list(merge(data[first:after], read, after == len(data)))
        first, taken = after, taken + sum(isinstance(event, ConsumedLabel) for event in new)
        events += new
    assert [e for e in events if not isinstance(e, ConsumedLabel)] == data
    assert [e for e in events if isinstance(e, ConsumedLabel)] == late
    for i, event in enumerate(events):
        later = [e for e in events[i:] if not isinstance(e, ConsumedLabel)]
        if isinstance(event, ConsumedLabel):
            assert all((record.time or 0) > (event.time or 0) for record in later)
