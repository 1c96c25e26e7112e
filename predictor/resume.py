"""Where a partition resumes: at its committed offsets or, if they are lost, after its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from predictor.committed import Commit
from predictor.outputs import Output
from predictor.tally import Tally
from stream.records import Prediction


class Position(NamedTuple):
    """Where a partition resumes.

    Attributes
    ----------
    offset : int
        The next record to predict.
    tally : Tally
        It names the next label to read.
    never_seen : int
        Records before `offset` that are gone and were not predicted.
    remark : str
        Why it is not where the group left it, in words for the log; empty where it is.
    early : tuple of int
        Offsets of the labels that were read before and wait for their records.
    """

    offset: int
    tally: Tally
    never_seen: int = 0
    remark: str = ""
    early: tuple[int, ...] = ()


def resume(
    bounds: tuple[int, int],
    committed: Commit | str | None,
    outputs: Sequence[Output],
    incarnation: str | None,
) -> Position:
    """Decide where a partition of the data topic resumes, so that no record is answered twice.

    Outputs and offsets are committed together. So outputs beyond the committed offset are there
    only if a broker kept half of a commit; then they count.

    Parameters
    ----------
    bounds : tuple of int
        First offset of the data partition, and the one after its last.
    committed : Commit, str or None
        ``None`` where nothing is committed; a string says why it cannot be used.
    outputs : sequence of Output
        The newest of this group on each topic.
    incarnation : str or None
        Id of the data topic as it is now; ``None`` where the brokers give none.
    """
    of_this_topic = [output for output in outputs if output.incarnation == incarnation]
    if isinstance(committed, Commit):
        reached = max((output.offset for output in of_this_topic), default=-1) + 1
        labels = max((_labels(output, committed.tally) for output in of_this_topic), default=0)
        if not incarnation or (reached <= committed.offset and labels <= committed.tally.labels):
            return _on_the_topic(bounds, _with_early(committed, outputs), incarnation)
        reason = f"outputs reach offset {reached - 1}, beyond the committed {committed.offset}"
        if reached <= committed.offset:
            reason = (
                f"outputs reach offset {labels - 1} of the label topic, beyond the committed"
                f" {committed.tally.labels}"
            )
    else:
        reason = committed or "no tally is committed"
        if not outputs:
            return Position(bounds[0], Tally(incarnation=incarnation), remark=committed or "")
    # After a topic was recreated, all rejected records may still be of the one before.
    newest = max(of_this_topic or outputs, key=_reached)
    commit = newest.commit or _counts_of_the_version_before(newest, outputs)
    tally = commit.tally
    reason += (
        f"; counts are taken from the last output, n={tally.n} correct={tally.correct}"
        f" model={tally.model}"
    )
    return _on_the_topic(bounds, commit, incarnation, reason)


def resume_labels(bounds: tuple[int, int], position: Position, incarnation: str | None) -> Position:
    """Decide where the labels of a partition are read from.

    Parameters
    ----------
    bounds : tuple of int
        First offset of the label partition, and the one after its last.
    position : Position
        Where the partition resumes; its tally names the next label.
    incarnation : str or None
        Id of the label topic as it is now; ``None`` where the brokers give none.
    """
    tally, early, why = position.tally, position.early, ""
    beginning, end = bounds
    offset = tally.labels
    known = tally.label_incarnation is not None and incarnation is not None
    if tally.label_incarnation != incarnation if known else offset > end:
        offset, early = beginning, ()
        why = f"the label topic was recreated; labels are read from offset {offset}"
    elif offset > end:
        why = f"label offset {offset} is out of range: labels are read from the end, {end}"
        offset = end
    elif offset < beginning:
        lost, offset = beginning - offset, beginning
        if tally.labels:  # else none was ever read
            why = f"labels are read from offset {offset}, where their topic begins; {lost} are lost"
    return position._replace(
        tally=replace(tally, labels=offset, label_incarnation=incarnation),
        early=early,
        remark="; ".join(filter(None, (position.remark, why))),
    )


def _labels(output: Output, tally: Tally) -> int:
    """Return the next label after an output, if it is of the same label topic as a tally."""
    found = output.commit.tally if output.commit else Tally()
    return found.labels if found.label_incarnation == tally.label_incarnation else 0


def _reached(output: Output) -> tuple[int, int]:
    return output.offset, output.commit.tally.labels if output.commit else 0


def _with_early(committed: Commit, outputs: Sequence[Output]) -> Commit:
    """Take the labels that wait from the outputs where the offset of the labels is lost."""
    if committed.early is None:
        for output in outputs:
            if output.commit and output.commit.tally.labels == committed.tally.labels:
                return committed._replace(early=output.commit.early)
    return committed


def _counts_of_the_version_before(newest: Output, outputs: Sequence[Output]) -> Commit:
    tally = Tally(carried=(0, 0), incarnation=newest.incarnation)
    for content in (output.content for output in outputs):
        if isinstance(content, Prediction):
            carried = (content.n, content.correct)
            tally = replace(tally, model=content.model, carried=carried)
    return Commit(newest.offset + 1, tally)


def _on_the_topic(
    bounds: tuple[int, int], commit: Commit, incarnation: str | None, reason: str = ""
) -> Position:
    """Resume at an offset if the data topic still has it, else where no record comes twice."""
    beginning, end = bounds
    offset, tally = commit.offset, commit.tally
    known = tally.incarnation is not None and incarnation is not None
    recreated = tally.incarnation != incarnation if known else offset > end
    reused = recreated or offset > end  # other records have the offsets of what was predicted
    never_seen, why = 0, ""
    if recreated:
        offset, never_seen = beginning, beginning
        why = "the data topic was recreated"
    elif offset > end:
        why = f"offset {offset} is out of range: the broker lost records, the topic ends at {end}"
        offset = end
    elif offset < beginning:
        why = f"offset {offset} is out of range: the topic begins at {beginning}"
        offset, never_seen = beginning, beginning - offset
    elif incarnation and tally.incarnation is None and offset > beginning:
        why = (
            "the tally of older software does not tell which data topic it counted: if that was"
            f" recreated since, up to {offset - beginning} of its records are skipped; python -m"
            " predictor.reset counts from its beginning"
        )
    if reused or tally.known_from is None:  # nothing is known; a tally of the version before is so
        if tally.waiting:
            why += f"; {tally.waiting} predictions no longer wait for their labels"
        tally = replace(
            tally,
            expired=tally.expired + tally.waiting,
            waiting=0,
            expired_to=offset,
            known_from=None,
        )
    where = f"resuming at offset {offset}, {never_seen} records lost unpredicted"
    remark = "; ".join(part for part in (reason, why, where) if part) if reason or why else ""
    tally = replace(tally, incarnation=incarnation)
    return Position(offset, tally, never_seen, remark, commit.early or ())
