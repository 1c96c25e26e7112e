"""The part of `tests/checker.py` for labels that come later: I8, I9, and what the tally says."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tests.laid_out import label_of
from tests.snapshot import Published, Report, Row, Snapshot

HELD_MOST = 256
FIELDS = ("id", "prediction", "probability", "model", "source", "seen", "time")


@dataclass
class Meeting:
    """A prediction, and the label that it has."""

    prediction: Published
    label: int | None
    assumed: bool = False


def meet(partition: int, outputs: list[Published], whole: bool) -> list[Meeting]:
    """I9, without what the labels say: each outcome is a prediction that stands before it.

    Parameters
    ----------
    outputs : list of Published
        Predictions and outcomes in the order of their topic.
    whole : bool
        Whether retention has left all of them.
    """
    found: list[Meeting] = []
    by_source: dict[int, Meeting] = {}
    for output in outputs:
        where = f"I9 prediction partition {partition} offset {output.offset}: {output.fields}"
        if output.outcome is None:
            found.append(Meeting(output, output.fields["label"]))
            by_source[output.source] = found[-1]
            continue
        meeting = by_source.get(output.source)
        if meeting is None:
            assert not whole, f"{where}: no prediction before it"
            continue
        made = meeting.prediction.fields
        for name in FIELDS:
            assert output.fields.get(name) == made.get(name), f"{where}: predicted as {made}"
        state = (meeting.label is not None, meeting.assumed)
        wanted = (True, False) if output.outcome == "revised" else (False, False)
        assert state == wanted, f"{where}: labelled, assumed: {state} before"
        meeting.label, meeting.assumed = output.fields["label"], output.outcome == "assumed"
        assert meeting.label == 0 or not meeting.assumed, f"{where}: assumed to be 1"
    return found


def check_labels(
    partition: int,
    snapshot: Snapshot,
    outputs: list[Published],
    envelopes: list[dict[str, Any]],
    report: Report,
) -> None:
    """I8, and I9 as to what the labels say, by the texts of any of the models."""
    rows = {row.offset: row for row in snapshot.labels.get(partition, [])}
    committed = snapshot.labels_committed.get(partition)
    tally = json.loads((snapshot.committed.get(partition) or (0, "{}"))[1] or "{}")
    topic_id = tally.get("label_incarnation")
    current = _since(topic_id, snapshot.predictions.get(partition, []))
    answers = [p for p in outputs if p.fields.get("labelled") and p.offset >= current]
    rejections = snapshot.rejected_labels.get(partition, [])
    since = _since(topic_id, rejections)
    start = snapshot.start("labels", partition)
    answered: Counter[int] = Counter()
    firsts: list[list[int]] = [[], []]
    for output in answers:
        number, offset = output.fields["labelled"]
        where = f"prediction partition {partition} offset {output.offset}: {output.fields}"
        assert number == partition, f"I8 {where}: another partition"
        answered[offset] += 1
        assert answered[offset] == 1, f"I8 {where}: answered twice"
        assert offset < start or offset in rows, f"I8 {where}: no such label"
        firsts[0].append(offset)
        if offset in rows:
            _check_label(f"I9 {where}", output, rows[offset], envelopes)
    _check_newest(partition, outputs, rows, current)
    for row in rejections:
        fields = json.loads(row.value or b"")
        (number, offset), last = fields["source"], fields.get("until", fields["source"][1])
        where = f"I8 label.rejected partition {partition} offset {row.offset}: {fields}"
        assert number == partition, f"{where}: another partition"
        if row.offset < since:
            continue
        firsts[1].append(last)
        assert last < start or last in rows, f"{where}: no such label"
        for each in range(offset, last + 1):
            answered[each] += 1
            assert answered[each] == 1, f"{where}: answered twice"
            assert each == last or each not in rows, f"{where}: {each} can be read"
    report.rejected_labels += len(rejections)
    if committed is None:
        return
    end, held = committed[0], _held(committed[1])
    report.held += len(held)
    for offset in held:
        where = f"I8 label partition {partition} offset {offset}"
        assert offset in rows, f"{where}: held, but not on the topic"
        assert offset < end, f"{where}: held, but not yet read"
        answered[offset] += 1
        assert answered[offset] == 1, f"{where}: held and answered"
    cut = (
        snapshot.start("predictions", partition) > current,
        snapshot.start("rejected_labels", partition) > since,
    )
    excused = max(
        (
            max(first[: HELD_MOST + 1]) if len(first) > HELD_MOST else end
            for first, is_cut in zip(firsts, cut, strict=True)
            if is_cut
        ),
        default=0,
    )
    for offset in rows:
        if offset < end and not answered[offset]:
            assert offset < excused, f"I8 label partition {partition} offset {offset}: no answer"
            report.not_checked.add("labels whose answers retention may have deleted")


def check_late_tally(
    partition: int,
    snapshot: Snapshot,
    outputs: list[Published],
    meetings: list[Meeting],
    current: list[Published],
) -> None:
    """I3, for the counts of labels; `current` are predictions of the data topic as it is now."""
    committed = snapshot.committed.get(partition)
    if committed is None or "waiting" not in (tally := json.loads(committed[1])):
        return  # older software
    where = f"I3 data partition {partition} offset {committed[0]}"
    whole = "carried" not in tally and not any(
        snapshot.start(topic, partition) for topic in ("predictions", "rejected", "rejected_labels")
    )
    kinds = Counter(output.outcome for output in outputs)
    delays = [p.fields["delay"] for p in outputs if p.outcome == "labelled"]
    expected = {
        "late": kinds["labelled"],
        "assumed": kinds["assumed"],
        "revised": kinds["revised"],
        "orphans": len(snapshot.rejected_labels.get(partition, [])),
    }
    for name, number in expected.items() if whole else ():
        assert tally[name] == number, f"{where}: {name}={tally[name]}, not {number}"
    if whole:
        found, wanted = list(tally["delays"]), _buckets(d for d in delays if d is not None)
        assert found == wanted or (not found and not any(wanted)), (
            f"{where}: delays={found}, not {wanted}"
        )
    labels = snapshot.labels_committed.get(partition)
    if labels and tally.get("label_incarnation"):
        assert tally["labels"] == labels[0], f"{where}: labels={tally['labels']}, not {labels[0]}"
    if tally.get("known_from") is None:
        return
    known = [p for p in current if p.source >= tally["expired_to"]]
    if snapshot.start("predictions", partition):
        if not current or current[0].source > tally["expired_to"]:
            return
    elif known:
        first = known[0].offset
        assert tally["known_from"] <= first, f"{where}: known_from={tally['known_from']}: {first}"
    places = {p.offset for p in known}
    silent = [m for m in meetings if m.label is None]
    waiting = sum(m.prediction.offset in places for m in silent)
    assert tally["waiting"] == waiting, f"{where}: waiting={tally['waiting']}, not {waiting}"
    if whole:
        most = len(silent) - waiting
        least = most - sum("time" not in m.prediction.fields for m in silent)  # older software
        assert least <= tally["expired"] <= most, f"{where}: expired={tally['expired']}, not {most}"


def _check_label(where: str, output: Published, row: Row, envelopes: list[dict[str, Any]]) -> None:
    try:
        label = json.loads(row.value or b"null")
        given = label["label"]
    except (ValueError, TypeError, KeyError):
        raise AssertionError(f"{where}: not a label: {row.value!r}") from None
    fields = output.fields
    said = [given]
    if isinstance(given, str):
        said = [label_of(given, envelope) for envelope in envelopes]
    assert fields["label"] in said, f"{where}: the label is {label}"
    for name in ("id", "source"):
        assert label.get(name) in (None, fields[name]), f"{where}: the label is {label}"
    assert label.get("revises") or output.outcome == "labelled", f"{where}: it revises nothing"
    if row.time_ms <= 0 or fields.get("time") is None:
        assert fields["delay"] is None, f"{where}: there is no time"
    else:
        delay = (row.time_ms - fields["time"]) / 1000
        assert fields["delay"] is not None, f"{where}: the delay is {delay}"
        assert math.isclose(fields["delay"], delay, abs_tol=1e-6), f"{where}: the delay is {delay}"


def _check_newest(
    partition: int, outputs: list[Published], rows: dict[int, Row], current: int
) -> None:
    """Check that a label by id met the newest prediction of the id that waited (I9)."""
    waiting: dict[Any, list[int]] = defaultdict(list)
    last = -1
    for output in outputs:
        id, source = output.fields["id"], output.source
        if output.outcome is None:
            if source <= last:  # the data topic was recreated
                waiting.clear()
            last = source
            if output.fields["label"] is None:
                waiting[id].append(source)
        elif source in waiting[id]:
            labelled = output.fields.get("labelled")
            row = rows.get(labelled[1]) if labelled and output.offset >= current else None
            if row and json.loads(row.value or b"{}").get("source") is None:
                assert waiting[id][-1] == source, (
                    f"I9 prediction partition {partition} offset {output.offset}:"
                    f" {output.fields}: {waiting[id][-1]} is newer"
                )
            waiting[id].remove(source)


def _since(topic_id: str | None, rows: list[Row]) -> int:
    """Return the offset since which units answer the label topic with this id."""
    since, of_unit = rows[-1].offset + 1 if rows else 0, topic_id
    for row in reversed(rows):
        for name, value in row.headers:
            if name == "position":
                of_unit = json.loads(value)["tally"].get("label_incarnation")
        if topic_id is not None and of_unit != topic_id:
            return since
        since = row.offset
    return 0


def _held(metadata: str) -> list[int]:
    return list(accumulate(json.loads(metadata or "{}").get("early", [])))


def _buckets(delays: Iterable[float]) -> list[int]:
    """Count delays below 1 s, below twice that, and so on."""
    found, bounds = [0] * 24, [2**k for k in range(23)]
    for delay in delays:
        found[sum(delay >= bound for bound in bounds)] += 1
    return found
