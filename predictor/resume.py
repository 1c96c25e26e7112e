"""Where a partition resumes: at its committed offset or, where that is lost, after its outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from predictor.outputs import Output
from predictor.tally import Tally
from stream.records import Prediction, Rejected


class Commit(NamedTuple):
    """What a group has committed for a partition: the next offset, and the tally before it."""

    offset: int
    tally: Tally


class Position(NamedTuple):
    """Where a partition resumes.

    Attributes
    ----------
    offset : int
        The next record to predict.
    never_seen : int
        Records before `offset` that are gone and were not predicted.
    remark : str
        Why it is not where the group left it, in words for the log; empty where it is.
    """

    offset: int
    tally: Tally
    never_seen: int = 0
    remark: str = ""


def resume(
    bounds: tuple[int, int],
    committed: Commit | str | None,
    prediction: Output[Prediction] | None,
    rejected: Output[Rejected] | None,
    incarnation: str | None,
) -> Position:
    """Decide where a partition resumes, so that no record is answered twice.

    Outputs and offsets are committed together. So outputs beyond the committed offset are there
    only if a broker kept half of a commit; then they count.

    Parameters
    ----------
    bounds : tuple of int
        First offset of the data partition, and the one after its last.
    committed : Commit, str or None
        ``None`` where nothing is committed; a string says why it cannot be used.
    prediction, rejected : Output or None
        The newest of this group.
    incarnation : str or None
        Id of the data topic as it is now; ``None`` where the brokers give none.
    """
    outputs = [output for output in (prediction, rejected) if output is not None]
    of_this_topic = [output for output in outputs if output.incarnation == incarnation]
    if isinstance(committed, Commit):
        last = max((output.offset for output in of_this_topic if incarnation), default=-1)
        if last < committed.offset:
            return _on_the_topic(bounds, *committed, incarnation)
        reason = f"outputs reach offset {last}, beyond the committed {committed.offset}"
    else:
        reason = committed or "no tally is committed"
        if not outputs:
            return Position(bounds[0], Tally(incarnation=incarnation), remark=committed or "")
    # After a topic was recreated, all rejected records may still be of the one before.
    newest = max(of_this_topic or outputs, key=lambda output: output.offset)
    tally = Tally(carried=(0, 0), incarnation=newest.incarnation)
    if prediction:
        last_one = prediction.content
        tally = replace(tally, model=last_one.model, carried=(last_one.n, last_one.correct))
    reason += (
        f"; counts are taken from the last output, n={tally.n} correct={tally.correct}"
        f" model={tally.model}"
    )
    return _on_the_topic(bounds, newest.offset + 1, tally, incarnation, reason)


def _on_the_topic(
    bounds: tuple[int, int], offset: int, tally: Tally, incarnation: str | None, reason: str = ""
) -> Position:
    """Resume at `offset` if the data topic still has it, else where no record comes twice."""
    beginning, end = bounds
    known = tally.incarnation is not None and incarnation is not None
    recreated = tally.incarnation != incarnation if known else offset > end
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
    where = f"resuming at offset {offset}, {never_seen} records lost unpredicted"
    remark = "; ".join(part for part in (reason, why, where) if part) if reason or why else ""
    return Position(offset, replace(tally, incarnation=incarnation), never_seen, remark)
