"""Random records and labels, in random units, with failed commits and restarts, beside a dict."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

import predictor.state
from predictor.consumed import Consumed, ConsumedLabel
from predictor.early import EarlyLabels
from predictor.predictor import predict_unit
from predictor.state import State
from predictor.tally import Tally
from stream.records import Prediction, Record, decode_prediction, encode_prediction, encode_record
from tests.unit.classifiers import model
from tests.unit.states import states

TRAINED_TO = 30
"""Offset to which the model of these tests was trained."""

Row = dict[str, Any]


@dataclass
class Simple:
    """What is promised, said again with dicts and in no hurry."""

    wait: int
    assume: bool
    most_early: int
    most_ahead: int
    rows: dict[int, Row] = field(default_factory=dict)
    early: dict[int, Row] = field(default_factory=dict)
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    offset: int = 0
    expired: int = 0
    assumed: int = 0

    def record(self, offset: int, id: Any, label: int | None) -> None:
        """Predict 1."""
        self.offset = offset + 1
        self.rows[offset] = {"id": id, "label": label, "at": None, "gone": False}
        self.outputs.append((None, offset, label, None))
        for at in sorted(self.early):
            means = self.early[at]
            if at in self.early and (means.get("id") == id or means.get("source") == offset):
                self.answer(at, self.early.pop(at))

    def label(self, at: int, means: Row, last: bool) -> bool:
        """Take a label; return False if it has to wait because too many are held."""
        if not self.answer(at, means):
            if len(self.early) >= self.most_early:
                if not last and len(self.known) < self.wait + self.most_ahead:
                    return False
                oldest = min(self.early)
                del self.early[oldest]
                self.rejected.append(oldest)
            self.early[at] = means
        return True

    def answer(self, at: int, means: Row) -> bool:
        """Find the record that is meant, and label it; return False if it may still come."""
        if "source" in means:
            offset = means["source"]
            if offset >= self.offset:
                return False
            known = offset in self.rows and not self.rows[offset]["gone"]
        else:
            same = [
                (row["label"] is None, o)
                for o, row in self.rows.items()
                if row["id"] == means["id"] and not row["gone"]
            ]
            if not same:
                return False
            known, offset = True, max(same)[1]
        if not known or (self.rows[offset]["label"] is not None and not means["revises"]):
            self.rejected.append(at)
            return True
        row = self.rows[offset]
        kind = "labelled" if row["label"] is None else "revised"
        row |= {"label": means["label"], "at": at}
        self.outputs.append((kind, offset, means["label"], at))
        return True

    @property
    def known(self) -> list[int]:
        """The offsets that are not expired."""
        return [o for o, row in sorted(self.rows.items()) if not row["gone"]]

    def end(self, paused: bool) -> None:
        """End a unit: the oldest predictions expire, unless labels are to be read again."""
        for at in sorted(self.early):
            if self.answer(at, self.early[at]):
                del self.early[at]
        for offset in self.known[: 0 if paused else max(0, len(self.known) - self.wait)]:
            row = self.rows[offset]
            row["gone"] = True
            if row["label"] is None and self.assume:
                self.assumed += 1
                self.outputs.append(("assumed", offset, 0, None))
            elif row["label"] is None:
                self.expired += 1

    def tally(self) -> dict[str, int]:
        """Count everything from what was put out."""
        real = [row for row in self.rows.values() if row["label"] is not None]
        counted = [r for o, r in self.rows.items() if r["label"] is not None and o > TRAINED_TO]
        kinds = [kind for kind, *_ in self.outputs]
        return {
            "tp": sum(row["label"] for row in counted),
            "fp": sum(1 - row["label"] for row in counted),
            "seen": len(real) - len(counted),
            "late": kinds.count("labelled"),
            "revised": kinds.count("revised"),
            "assumed": self.assumed,
            "expired": self.expired,
            "orphans": len(self.rejected),
            "waiting": sum(r["label"] is None and not r["gone"] for r in self.rows.values()),
            "expired_to": max((o + 1 for o, row in self.rows.items() if row["gone"]), default=0),
        }


def restarted(state: State, written: list[Prediction]) -> State:
    """Make the state again from what was committed: tally, offset, held labels, and the topic."""
    tally = Tally.from_metadata(state.tally.to_metadata())
    again = State(state.settings, 0, tally, state.offset)
    for held in state.early:
        again.early.hold(held)
    for prediction in written:
        again.restore(decode_prediction(encode_prediction(prediction)))
    assert again.rebuilt() == 0
    return again


@pytest.mark.parametrize("assume", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_in_whatever_units_it_is_answered_as_promised(
    seed: int, assume: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(EarlyLabels, "MOST", most_early := chance.choice([2, 5, 256]))
    monkeypatch.setattr(predictor.state, "AHEAD_OF_LABELS", most_ahead := chance.choice([0, 30]))
    wait = chance.choice([5, 40, 10_000])
    partition = states(label_wait=str(wait), label_assume="0" if assume else None)
    simple = Simple(wait, assume, most_early, most_ahead)
    written: list[Prediction] = []
    rejected: list[int] = []
    new, ids = model(7, trained_to={"0": TRAINED_TO}), chance.choice([5, 1_000])
    offset = at = 0
    waiting: list[Consumed] = []
    for _ in range(120):
        events: list[Consumed] = waiting
        for _ in range(chance.randint(0, 12)):
            if chance.random() < 0.5:
                offset += chance.choice([1, 1, 1, 2])
                content = Record(chance.randrange(ids), [1.0, 0.0], chance.choice([None, None, 1]))
                events.append(Consumed(0, offset, None, encode_record(content), None, offset))
            else:
                at += chance.choice([1, 1, 3])
                means: Row = {"label": chance.randint(0, 1), "revises": chance.random() < 0.2}
                if chance.random() < 0.5:
                    means["id"] = chance.randrange(ids)
                else:
                    means["source"] = [0, max(0, offset + chance.randint(-30, 4))]
                value = json.dumps(means).encode()
                events.append(ConsumedLabel(0, at, None, value, None, at))
        ended = chance.random() < 0.7
        before = (asdict(partition[0].tally), partition[0].offset, partition[0].early.offsets)
        while chance.random() < 0.2:
            predict_unit(events, new, None, partition, {0} if ended else ()).rollback()
            state = partition[0]
            assert (asdict(state.tally), state.offset, state.early.offsets) == before
        result = predict_unit(events, new, None, partition, {0} if ended else (), clock=float)
        result.commit()
        written += [prediction for prediction, _ in result.predictions]
        rejected += [each.source[1] for each in result.rejected_labels]

        last = max((e.offset for e in events if not isinstance(e, ConsumedLabel)), default=0)
        waiting = []
        for event in events:
            assert event.value is not None
            content = json.loads(event.value)
            if not isinstance(event, ConsumedLabel):
                simple.record(event.offset, content["id"], content.get("label"))
            else:
                content |= {"source": content["source"][1]} if "source" in content else {}
                enough = ended and simple.offset > last
                if waiting or not simple.label(event.offset, content, enough):
                    waiting.append(event)
        simple.end(paused=bool(waiting))

        found = [(p.outcome, p.source[1], p.label, p.labelled and p.labelled[1]) for p in written]
        assert found == simple.outputs
        assert rejected == simple.rejected
        assert partition[0].early.offsets == sorted(simple.early)
        tally = asdict(partition[0].tally)
        expected = simple.tally()
        assert {name: tally[name] for name in expected} == expected
        assert partition[0].known.waiting == expected["waiting"]
        if chance.random() < 0.1:
            partition = {0: restarted(partition[0], written)}
    n = correct = 0
    labels: dict[int, int] = {}
    for prediction in written:
        source, label = prediction.source[1], prediction.label
        if label is not None and prediction.outcome != "assumed" and not prediction.seen:
            n, correct = n + (source not in labels), correct + label - labels.get(source, 0)
            labels[source] = label
        assert (prediction.n, prediction.correct) == (n, correct)
