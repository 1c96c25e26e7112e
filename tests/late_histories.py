"""A small correct history with labels that come later, and ways to break it, one at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from tests.histories import (
    RECORDS,
    REJECTED,
    TRAINED_TO,
    Broken,
    Made,
    classifier,
    envelopes,
    version_at,
)

BEGAN_MS = 1_790_000_000_000
EXPIRED_TO = 20
ASSUMED_FROM = 10
"""Predictions that expire are assumed from this source on; those before were made without it."""

EARLY = 70
"""The label of this record comes ten records before it."""

REPEATED, REVISED, BY_SOURCE = 30, 40, 50
NEVER_LABELLED = 4
"""Each fifth record, from this one on, gets no label."""


def late_history() -> Made:
    """Make a history in which labels come five records late, and every invariant holds.

    Each eighth record has its label inside. There are a label that comes twice, one that is
    corrected, one that comes before its record, an orphan, a batch that cannot be decoded, and two
    labels that wait for their records at the end.
    """
    made = Made()
    made.models, made.statuses = envelopes(), [{"version": 3, "status": "barred"}]
    matrix = np.random.default_rng(1).normal(size=(RECORDS, 2))
    truth = (matrix.sum(axis=1) > 0.3).astype(int).tolist()
    for offset, features in enumerate(matrix.tolist()):
        record: dict[str, Any] = {"id": f"r{offset}", "features": features}
        if offset % 8 == 0:
            record["label"] = truth[offset]
        made.data[offset] = json.dumps(record).encode()
        made.times[offset] = BEGAN_MS + 1_000 * offset
        if offset == REJECTED:
            made.data[offset] = b"{"
            made.rejected.append({"source": [0, 7], "reason": "not JSON", "size": 1, "value": "{"})
        else:
            _predict(made, offset, record)
        if offset >= 25 and (expired := offset - 25) < EXPIRED_TO:
            _expire(made, expired)
        if offset == EARLY - 10:
            _give(made, offset, {"id": f"r{EARLY}", "label": truth[EARLY]}, answer=False)
        if offset == EARLY:
            at = next(at for at, label in made.labels.items() if b'"r70"' in (label or b""))
            _meet(made, EARLY, truth[EARLY], "labelled", at)
        late = offset - 5
        if late % 5 != NEVER_LABELLED and late % 8 and late not in (REJECTED, EARLY) and late > 0:
            place = {"source": [0, late]} if late == BY_SOURCE else {"id": f"r{late}"}
            _give(made, offset, place | {"label": truth[late]}, late)
        if offset == REPEATED:
            _reject(made, _give(made, offset, {"id": "r23", "label": 1}, answer=False), "duplicate")
            _reject(made, _give(made, offset, {"id": "nobody", "label": 1}, answer=False), "orphan")
            first = max(made.labels) + 1
            made.labels[first + 2], made.label_times[first + 2] = None, -1
            _reject(made, first, "batch: cannot be decoded", until=first + 2)
        if offset == REVISED:
            label = {"id": "r33", "label": 1 - truth[33], "revises": True}
            _give(made, offset, label, 33, kind="revised")
    held = [_give(made, RECORDS, {"source": [0, at], "label": 1}, answer=False) for at in (90, 91)]
    made.held, made.labels_committed = tuple(held), max(made.labels) + 1
    return recounted(made)


def late_history_without_a_batch(label_topic_id: str) -> Made:
    """Make the same history as it can be written to a broker, whose label topic has this id."""
    made = late_history()
    batch = made.rejected_labels.pop()
    first, last = batch["source"][1], batch["until"]
    length = last - first + 1

    def moved(at: int) -> int:
        return at - length if at > last else at

    made.labels = {moved(at): value for at, value in made.labels.items() if at != last}
    made.label_times = {moved(at): time for at, time in made.label_times.items() if at != last}
    for found in made.predictions:
        if "labelled" in found:
            found["labelled"] = [0, moved(found["labelled"][1])]
    made.held = tuple(map(moved, made.held))
    made.labels_committed = moved(made.labels_committed or 0)
    recounted(made).tally["label_incarnation"] = label_topic_id
    return made


def without_times(made: Made) -> Made:
    """Let the version before have made the predictions that expired: it named no time."""
    for source in (4, 9):
        del made.at(source)["time"]
    made.tally["expired"] = 0
    return made


def with_texts(made: Made) -> Made:
    """Let the labels be texts, inside the records and on their own topic."""
    for fields in made.models.values():
        fields.update(positive="yes", negative="no")
    for values in (made.data, made.labels):
        for at, value in values.items():
            with suppress(ValueError, TypeError):
                found = json.loads(value or b"")
                if found.get("label") is not None:
                    found["label"] = ("no", "yes")[found["label"]]
                    values[at] = json.dumps(found).encode()
    return made


def recounted(made: Made) -> Made:
    """Count all outputs again: the tally, the log, and the counts of each."""
    made.log = []
    cells = dict.fromkeys(
        ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected", "late", "assumed", "revised"), 0
    )
    labels: dict[int, int | None] = {}
    delays = [0] * 24
    n = correct = 0
    for found in made.predictions:
        source, label, kind = found["source"][1], found["label"], found.get("outcome")
        before, right = labels.get(source), found["prediction"] == label
        counts = kind in (None, "labelled") and label is not None and not found.get("seen")
        if kind != "assumed":
            labels[source] = label
        cells["unlabelled"] += label is None
        cells["late"] += kind == "labelled"
        cells["assumed"] += kind == "assumed"
        cells["revised"] += kind == "revised"
        cells["seen"] += kind in (None, "labelled") and label is not None and not counts
        if kind == "labelled" and found["delay"] is not None:
            delays[sum(found["delay"] >= 2**k for k in range(23))] += 1
        if kind == "revised" and before is not None and not found.get("seen"):
            cells[_cell(found["prediction"], before)] -= 1
            cells[_cell(found["prediction"], label)] += 1
            correct += right - (found["prediction"] == before)
        if counts:
            cells[_cell(found["prediction"], label)] += 1
            n, correct = n + 1, correct + right
        found |= {"n": n, "correct": correct, "accuracy": correct / n if n else None}
        if counts and n % 10 == 0:
            line = f"partition=0 n={n} accuracy={correct / n:.6f} model={found['model']}"
            made.log.append(f"2026-11-23T20:00:01.123Z {line}")
    waiting = {source for source, label in labels.items() if label is None}
    assumed = {p["source"][1] for p in made.predictions if p.get("outcome") == "assumed"}
    made.tally = cells | {
        "rejected": len(made.rejected),
        "orphans": len(made.rejected_labels),
        "model": [p["model"] for p in made.predictions if "outcome" not in p][-1],
        "waiting": sum(source >= EXPIRED_TO for source in waiting),
        "expired": sum(source < EXPIRED_TO for source in waiting - assumed),
        "expired_to": EXPIRED_TO,
        "known_from": made.offset(EXPIRED_TO),
        "labels": made.labels_committed,
        "label_incarnation": "the label topic",
        "delays": delays,
    }
    return made


def _cell(prediction: int, label: int) -> str:
    return ("t" if prediction == label else "f") + ("p" if prediction else "n")


def _predict(made: Made, offset: int, record: dict[str, Any]) -> None:
    version = version_at(offset)
    probability = float(classifier(version).predict_proba([record["features"]])[0, 1])
    made.predictions.append(
        {
            "id": record["id"],
            "prediction": int(probability > 0.5),
            "probability": probability,
            "label": record.get("label"),
            "model": version,
            "source": [0, offset],
            "time": made.times[offset],
        }
        | ({"seen": True} if version == 2 and offset <= TRAINED_TO else {})
    )


def _give(
    made: Made,
    now: int,
    label: dict[str, Any],
    source: int = -1,
    kind: str = "labelled",
    answer: bool = True,
) -> int:
    """Put a label on its topic half a second after record `now`; return its offset."""
    at = max(made.labels, default=-1) + 1
    made.labels[at] = json.dumps(label).encode()
    made.label_times[at] = BEGAN_MS + 1_000 * now + 500
    if answer:
        _meet(made, source, label["label"], kind, at)
    return at


def _meet(made: Made, source: int, label: int, kind: str, at: int) -> None:
    delay = (made.label_times[at] - made.times[source]) / 1000
    fields = {"label": label, "outcome": kind, "labelled": [0, at], "delay": delay}
    made.predictions.append(dict(made.at(source)) | fields)


def _expire(made: Made, source: int) -> None:
    labels = [p["label"] for p in made.predictions if p["source"][1] == source]
    if source >= ASSUMED_FROM and labels == [None]:
        made.predictions.append(dict(made.at(source)) | {"label": 0, "outcome": "assumed"})


def _reject(made: Made, at: int, reason: str, **more: int) -> None:
    made.rejected_labels.append(
        {"source": [0, at], "reason": reason, "size": 9, "value": ""} | more
    )


def outcome(made: Made, source: int, kind: str = "labelled") -> dict[str, Any]:
    """Return an outcome of a prediction."""
    return made.predictions[place(made, source, kind)]


def place(made: Made, source: int, kind: str = "labelled") -> int:
    """Return the offset of an outcome while nothing was inserted."""
    return next(
        offset
        for offset, p in enumerate(made.predictions)
        if p["source"][1] == source and p.get("outcome") == kind
    )


def _changed(at: int, **fields: Any) -> Callable[[Made], object]:
    return lambda made: outcome(made, at).update(fields)


def _lost(made: Made) -> None:
    del made.predictions[place(made, 12)]
    recounted(made)


def _twice(made: Made) -> None:
    made.predictions.append(dict(outcome(made, 12)))
    recounted(made)


def _before_its_prediction(made: Made) -> None:
    early = made.predictions.pop(place(made, EARLY))
    made.predictions.insert(made.offset(EARLY), early)
    recounted(made)


def _other_label(made: Made) -> None:
    outcome(made, 12)["label"] ^= 1
    recounted(made)


def _text(values: str, at: int, becomes: str) -> Callable[[Made], object]:
    def breaks(made: Made) -> None:
        found = json.loads(getattr(with_texts(made), values)[at])
        other = {"yes": "no", "no": "yes"}[found["label"]]
        found["label"] = becomes or other
        getattr(made, values)[at] = json.dumps(found).encode()

    return breaks


def _labels_exchanged(made: Made) -> None:
    one, other = outcome(made, 12), outcome(made, 13)
    for name in ("labelled", "delay"):
        one[name], other[name] = other[name], one[name]


def _labelled_after_a_label(made: Made) -> None:
    _again(made, 12, {"id": "r12", "label": outcome(made, 12)["label"]}, "labelled")


def _labelled_after_an_assumption(made: Made) -> None:
    _again(made, 14, {"id": "r14", "label": 1}, "labelled")


def _revised_before_a_label(made: Made) -> None:
    _again(made, 34, {"id": "r34", "label": 1, "revises": True}, "revised")


def _revised_by_a_first_label(made: Made) -> None:
    _again(made, 12, {"id": "r12", "label": 1}, "revised")


def _again(made: Made, source: int, label: dict[str, Any], kind: str) -> None:
    at = made.labels_committed or 0
    made.labels[at] = json.dumps(label).encode()
    made.label_times[at] = BEGAN_MS + 100_000
    made.labels_committed = at + 1
    _meet(made, source, label["label"], kind, at)
    recounted(made)


def _assumed_to_be_positive(made: Made) -> None:
    outcome(made, 14, "assumed")["label"] = 1


def _time_is_off(made: Made) -> None:
    for found in made.predictions:
        if found["source"][1] == 32:  # its label is inside
            found["time"] += 1


def _counted(made: Made, at: int, n: int, correct: int) -> None:
    """Count an outcome as it must not be, and go on from there."""
    for found in made.predictions[at:]:
        found["n"], found["correct"] = found["n"] + n, found["correct"] + correct
        found["accuracy"] = found["correct"] / found["n"]
    made.tally["tp"] += correct
    made.tally["tn" if n < correct else "fp"] += n - correct


def _answered_and_rejected(made: Made) -> None:
    _reject(made, outcome(made, 71)["labelled"][1], "orphan")
    recounted(made)


def _not_rejected(made: Made) -> None:
    del made.rejected_labels[1]
    recounted(made)


def _batch_is_longer(made: Made) -> None:
    made.rejected_labels[2]["until"] += 1
    recounted(made)


def _not_held(made: Made) -> None:
    made.held = made.held[1:]


def _held_but_not_on_the_topic(made: Made) -> None:
    made.held += (made.labels_committed or 0,)


def _another_partition(made: Made) -> None:
    outcome(made, 12)["labelled"] = [1, outcome(made, 12)["labelled"][1]]


def _tally(name: str, step: int = 1) -> Broken:
    def breaks(made: Made) -> None:
        made.tally[name] += step

    return Broken(f"a_tally_whose_{name}_is_wrong", "I3", "data", RECORDS, breaks)


def _other_delays(made: Made) -> None:
    made.tally["delays"][3] -= 1
    made.tally["delays"][4] += 1


@cache
def _correct() -> Made:
    return late_history()


def _at(source: int, kind: str = "labelled") -> int:
    return place(_correct(), source, kind)


_LABEL_OF_12 = outcome(_correct(), 12)["labelled"][1]
_INSIDE = _correct().offset(32)
_END = len(_correct().predictions)
_REVISION = _at(33, "revised")
_ASSUMPTION = _at(14, "assumed")

BROKEN_LATE = [
    Broken("an_outcome_lost", "I8", "label", _LABEL_OF_12, _lost),
    Broken("an_outcome_twice", "I8", "prediction", _END, _twice),
    Broken("a_label_of_another_partition", "I8", "prediction", _at(12), _another_partition),
    Broken("a_label_answered_and_rejected", "I8", "label.rejected", 3, _answered_and_rejected),
    Broken("a_label_neither_answered_nor_held", "I8", "label", 18, _not_rejected),
    Broken("a_batch_rejected_with_a_label_behind_it", "I8", "label.rejected", 2, _batch_is_longer),
    Broken("a_label_no_longer_held", "I8", "label", _correct().held[0], _not_held),
    Broken(
        "a_label_held_that_is_not_on_the_topic",
        "I8",
        "label",
        _correct().labels_committed or 0,
        _held_but_not_on_the_topic,
    ),
    Broken(
        "an_outcome_before_its_prediction",
        "I9",
        "prediction",
        _correct().offset(EARLY),
        _before_its_prediction,
    ),
    *(
        Broken(
            f"an_outcome_of_another_{name}", "I9", "prediction", _at(12), _changed(12, **{name: to})
        )
        for name, to in {
            "id": "r13",
            "prediction": 1 - outcome(_correct(), 12)["prediction"],
            "probability": 0.123,
            "model": 2,
            "source": [0, 13],
            "seen": True,
            "time": BEGAN_MS,
            "delay": 5.501,
        }.items()
    ),
    Broken("an_outcome_without_a_delay", "I9", "prediction", _at(12), _changed(12, delay=None)),
    Broken("another_label_than_the_one_given", "I9", "prediction", _at(12), _other_label),
    Broken("another_text", "I9", "prediction", _at(12), _text("labels", _LABEL_OF_12, "")),
    Broken("a_text_of_none", "I9", "prediction", _at(12), _text("labels", _LABEL_OF_12, "maybe")),
    Broken("another_text_inside", "I2", "prediction", _INSIDE, _text("data", 32, "")),
    Broken("labels_exchanged", "I9", "prediction", _at(12), _labels_exchanged),
    Broken("a_second_label_counted", "I9", "prediction", _END, _labelled_after_a_label),
    Broken("a_label_after_an_assumption", "I9", "prediction", _END, _labelled_after_an_assumption),
    Broken("a_revision_of_no_label", "I9", "prediction", _END, _revised_before_a_label),
    Broken("a_revision_by_a_first_label", "I9", "prediction", _END, _revised_by_a_first_label),
    Broken("an_assumed_label_1", "I9", "prediction", _ASSUMPTION, _assumed_to_be_positive),
    Broken(
        "a_time_that_is_not_the_records", "I9", "prediction", _correct().offset(32), _time_is_off
    ),
    Broken(
        "an_outcome_that_n_does_not_count",
        "I2",
        "prediction",
        _at(12),
        lambda m: _counted(m, _at(12), -1, 0),
    ),
    Broken(
        "a_revision_that_moves_n",
        "I2",
        "prediction",
        _REVISION,
        lambda m: _counted(m, _REVISION, 1, 0),
    ),
    Broken(
        "a_revision_that_moves_correct_by_two",
        "I2",
        "prediction",
        _REVISION,
        lambda m: _counted(m, _REVISION, 0, -1),
    ),
    Broken(
        "an_assumption_that_counts",
        "I2",
        "prediction",
        _ASSUMPTION,
        lambda m: _counted(m, _ASSUMPTION, 1, 1),
    ),
    *(_tally(name) for name in ("waiting", "late", "expired", "assumed", "revised", "orphans")),
    _tally("expired_to", 10),
    _tally("labels"),
    _tally("known_from", RECORDS),
    Broken("a_tally_of_other_delays", "I3", "data", RECORDS, _other_delays),
]
"""Each breaks `late_history`; offsets count from 0 without gaps."""
