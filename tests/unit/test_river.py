"""Labels that come later are counted as river counts them, which has them all in its memory."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import Counter
from typing import Any, NamedTuple

import pytest
from river import base, metrics
from river.evaluate import iter_progressive_val_score

from predictor.consumed import Consumed, ConsumedLabel
from predictor.order import merge
from predictor.predictor import predict_unit
from stream.records import Record, encode_record
from tests.unit.classifiers import model
from tests.unit.states import states

CELLS = (1, 1), (0, 1), (0, 0), (1, 0)
"""Label and prediction of tp, fp, tn and fn."""


class Row(NamedTuple):
    """A record and its label; times are in ms."""

    value: float
    label: int
    time: int
    delay: int


class Fixed(base.Classifier):
    """Predicts 1 where the value is positive, and learns nothing."""

    def learn_one(self, x: Any, y: Any) -> None:
        """Learn nothing."""

    def predict_one(self, x: Any, **kwargs: Any) -> Any:
        """Predict."""
        return int(x["value"] > 0)


def of_river(rows: list[Row]) -> list[tuple[int, ...]]:
    """Return tp, fp, tn, fn after each label, as river counts."""
    dataset: list[Any] = [
        (
            {
                "value": row.value,
                "moment": dt.datetime(2026, 1, 1) + dt.timedelta(milliseconds=row.time),
                "delay": dt.timedelta(milliseconds=row.delay),
            },
            row.label,
        )
        for row in rows
    ]
    counts: Any = metrics.ConfusionMatrix()  # type: ignore[no-untyped-call] # of river
    steps = iter_progressive_val_score(
        dataset, Fixed(), counts, step=1, moment="moment", delay="delay"
    )
    return [tuple(int(counts[label][predicted]) for label, predicted in CELLS) for _ in steps]


def of_predictor(rows: list[Row], chance: random.Random) -> list[tuple[int, ...]]:
    """Return the same counts, from units of any size and labels by id or by source."""
    records = [
        Consumed(0, i, None, encode_record(Record(i, [row.value, 0.0])), None, 1 + row.time)
        for i, row in enumerate(rows)
    ]
    due = sorted((row.time + row.delay, i) for i, row in enumerate(rows))
    labels = []
    for offset, (time, i) in enumerate(due):
        means = {"id": i} if chance.random() < 0.5 else {"source": [0, i]}
        value = json.dumps({"label": rows[i].label} | means).encode()
        labels.append(ConsumedLabel(0, offset, None, value, None, 1 + time))
    partition, new = states(), model(7)
    counts, found = Counter[tuple[int | None, int]](), []
    first = 0
    while partition[0].tally.labels < len(labels):
        after = first + chance.randint(0, 50)
        ended = after >= len(records)
        read = labels[partition[0].tally.labels :][: chance.randint(1, 50)]
        events = list(merge(records[first:after], read, ended))
        result = predict_unit(events, new, None, partition, {0} if ended else ())
        result.commit()
        for outcome in result.counted:
            counts[outcome.label, outcome.prediction] += 1
            found.append(tuple(counts[cell] for cell in CELLS))
            assert (outcome.n, outcome.correct) == (counts.total(), counts[1, 1] + counts[0, 0])
        first = after
    tally = partition[0].tally
    assert (tally.tp, tally.fp, tally.tn, tally.fn) == found[-1]
    return found


@pytest.mark.parametrize("longest", [0, 40, 5_000])
@pytest.mark.parametrize("seed", range(3))
def test_the_counts_after_each_label_are_those_of_rivers_progressive_validation(
    seed: int, longest: int
) -> None:
    chance = random.Random(seed)
    times = sorted(chance.choices(range(4_000), k=1_000))
    rows = [
        Row(chance.gauss(0, 1), chance.randint(0, 1), time, chance.randint(0, longest))
        for time in times
    ]
    expected = of_river(rows)
    assert len(expected) == len(rows)
    assert of_predictor(rows, chance) == expected
