from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from predictor.known import Given, Known
from stream.records import Prediction
from tests.services import ROOT

IDS: list[int | str] = [17, "17", "", "ü", "x" * 256, -(2**63), 2**64 - 1, "\x00"]


def prediction(offset: int, id: int | str = 0, **fields: Any) -> Prediction:
    given = {"label": None, "time": 1_000 + offset, "probability": 0.75, "prediction": 1} | fields
    return Prediction(id, n=0, correct=0, model=3, source=(0, offset), **given)


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("probability", [None, 0.0, 0.1 + 0.2])
@pytest.mark.parametrize("time", [None, 0, 2**62])
def test_a_prediction_comes_back_as_it_was_made(
    id: int | str, probability: float | None, time: int | None
) -> None:
    known = Known()
    for offset, seen in ((5, True), (6, False)):
        made = prediction(offset, id, probability=probability, time=time, seen=seen)
        known.add(made)
        row = known.at(offset)
        assert row is not None
        assert known.prediction(row, 0) == made


def test_an_id_that_is_a_number_and_one_that_is_a_text_of_it_are_two() -> None:
    known = Known()
    for offset, id in enumerate(IDS):
        known.add(prediction(offset, id))
    assert [known.named(id) for id in IDS] == list(range(len(IDS)))
    assert known.named(18) is None


class Simple:
    """Known predictions in a dict: what `Known` does, without its arrays."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int | str, Given | None]] = {}

    def named(self, id: int | str) -> int | None:
        """Return the newest offset of an id that waits, or else the newest."""
        offsets = [offset for offset, row in self.rows.items() if row[0] == id]
        waiting = [offset for offset in offsets if self.rows[offset][1] is None]
        return max(waiting or offsets, default=None)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_done_a_prediction_is_found_as_in_a_dict(seed: int) -> None:
    chance = random.Random(seed)
    known, simple, offset = Known(), Simple(), 0
    committed: dict[int, tuple[int | str, Given | None]] = {}
    ids: list[int | str] = [*range(40), *map(str, range(40))] * (seed % 2) or [7, "7", 8]
    for step in range(6_000):
        kind = chance.random()
        if kind < 0.5:
            offset += chance.randint(1, 3)
            id, label = chance.choice(ids), chance.choice([None, None, 0, 1])
            known.add(prediction(offset, id, label=label))
            simple.rows[offset] = (id, None if label is None else Given(label, None))
        elif kind < 0.9:
            at = chance.randint(0, offset + 2)
            row = known.at(at)
            assert (row is not None) == (at in simple.rows)
            id = chance.choice(ids)
            if chance.random() < 0.5:
                row, newest = known.named(id), simple.named(id)
                assert (row is None) == (newest is None)
                at = -1 if newest is None else newest
            if row is None:
                continue
            found = known.prediction(row, 0)
            assert (found.source[1], found.id) == (at, simple.rows[at][0])
            assert known.given(row) == simple.rows[at][1]
            label = chance.randint(0, 1)
            known.give(row, label, step)
            simple.rows[at] = (found.id, Given(label, step))
        elif kind < 0.95:
            keep = chance.randint(0, 3_000)
            gone = sorted(simple.rows)[: max(0, len(simple.rows) - keep)]
            expected = [at for at in gone if simple.rows[at][1] is None]
            rows = known.expire(keep, -1, 1e9)
            assert [known.prediction(row, 0).source[1] for row in rows] == expected
            for at in gone:
                del simple.rows[at]
        elif kind < 0.98:
            known.commit()
            committed = dict(simple.rows)
        else:
            known.rollback()
            simple.rows = dict(committed)
            offset = max([offset, *simple.rows])
        assert len(known) == len(simple.rows)
    assert known.waiting == sum(given is None for _, given in simple.rows.values())


def test_only_the_leading_rows_expire_by_age_and_one_without_a_timestamp_has_none() -> None:
    known = Known()
    for offset, time in enumerate([10, 90, 20, None, 30, 95]):
        known.add(prediction(offset, time=time))
    assert known.expire(100, 50, 1e9) == [0]
    assert known.expire(100, 91, 1e9) == [1, 2]
    assert known.expired_to == 3
    assert known.expire(100, 10**15, 1e9) == []
    assert known.expire(2, 25, 1e9) == [3]
    assert known.expire(100, 50, 1e9) == [4]


def test_no_more_predictions_expire_at_a_time_than_are_asked_for() -> None:
    known = Known()
    for offset in range(10):
        known.add(prediction(offset, label=None if offset % 2 else 1))
    assert known.expire(0, -1, 2) == [1, 3]
    assert known.oldest == (4, 1_004)


def test_what_is_read_back_twice_changes_nothing_and_a_label_stays_until_it_is_revised() -> None:
    def outcome(kind: str, label: int, at: int) -> Prediction:
        return prediction(4, outcome=kind, label=label, labelled=(0, at))

    known = Known()
    for read in (prediction(4), prediction(5, label=0), prediction(4), prediction(5, label=0)):
        known.restore(read)
    assert (len(known), known.waiting, known.newest) == (2, 1, 5)
    steps = [
        (outcome("labelled", 1, 7), Given(1, 7)),
        (outcome("labelled", 0, 8), Given(1, 7)),
        (outcome("revised", 0, 9), Given(0, 9)),
        (outcome("revised", 1, 9), Given(0, 9)),
        (outcome("labelled", 1, 7), Given(0, 9)),
        (outcome("revised", 1, 12), Given(1, 12)),
    ]
    for read, expected in steps:
        known.restore(read)
        assert known.given(0) == expected
    known.restore(prediction(3, outcome="assumed", label=0))
    known.rollback()
    assert (len(known), known.given(0), known.given(1)) == (2, Given(1, 12), Given(0, None))


def test_many_predictions_of_one_id_are_as_quickly_labelled_as_others() -> None:
    known, many = Known(), 50_000
    for offset in range(many):
        known.add(prediction(offset, "the same"))
    for offset in range(0, many, 2):  # by source, so that they stay in the way of those by id
        known.give(offset, 1, offset)
    for offset in range(many - 1, 0, -2):
        assert known.named("the same") == offset
        known.give(offset, 1, offset)
    for _ in range(1_000):
        assert known.named("the same") == many - 1


MEASURE = """
import resource
from predictor.known import Known
from stream.records import Prediction

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
known = Known()
for i in range(325_000):
    known.add(Prediction(f"{i:024d}", 1, 0.5, None, 0, 0, 3, (0, i), False, i))
    if i % 5_000 == 4_999:
        known.expire(250_000, -1, 1e9)
        known.commit()
assert len(known) == known.waiting == 250_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_waiting_predictions_with_ids_of_24_bytes_take_less_than_150_bytes_each() -> None:
    found = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1_024
    assert int(found.stdout) * unit < 250_000 * 150
