"""I1, and the walk over a partition that hands each record to the other checks."""

from __future__ import annotations

from collections.abc import Iterable

from predictor.verify.counts import Counts
from predictor.verify.log_file import Line
from predictor.verify.partition import Partition, Row
from predictor.verify.recompute import Models, Recompute
from predictor.verify.report import Findings, Violation
from stream.records import Prediction


def check_partition(
    partition: Partition,
    models: Models,
    findings: Findings,
    logs: Iterable[Iterable[Line]] = (),
) -> int | None:
    """Check the invariants on one partition, in bounded memory.

    Parameters
    ----------
    findings : Findings
        Gets what was checked.
    logs : iterable of iterables of Line
        For each log, the lines about this partition.

    Returns
    -------
    int or None
        The first source that is not committed, where the check ended. That is a violation,
        unless it has been committed meanwhile.

    Raises
    ------
    Violation
        The first that was found.
    """
    counts = Counts(partition, models, findings, logs)
    recompute = Recompute(models, findings)
    try:
        beyond = _walk(partition, counts, recompute, findings)
        counts.finish()
    except Violation:
        recompute.finish()  # what waits there comes before what was just found
        raise
    recompute.finish()
    return beyond


def _walk(
    partition: Partition, counts: Counts, recompute: Recompute, findings: Findings
) -> int | None:
    both = (partition.predictions, partition.rejected)
    cut = [records.topic for records in both if records.start > records.since]
    first: dict[str, int] = {}
    data = iter(partition.data.rows)

    def check_deleted(offset: int) -> None:
        """Check that retention may have deleted the output of a record that has none."""
        if all(first.get(topic, partition.committed) <= offset for topic in cut):
            place = (partition.data.topic, partition.number, offset)
            raise Violation("I1", *place, "a prediction or a rejected record", "neither")
        findings.not_checked["I1: retention may have deleted the record's output"] += 1

    last, beyond = -1, None
    for output in partition.outputs():
        if output.current:
            if output.content.source[0] != partition.number:
                expected = f"a source in partition {partition.number}"
                raise output.violation("I1", expected, f"{output.content.source}")
            if output.until >= partition.committed:
                beyond = output.until
                break
            if output.source <= last:
                raise output.violation("I1", f"a source above {last}", f"{output.source}")
            last = output.until
            first.setdefault(output.topic, output.source)
        counts.add(output)
        if not output.current:
            findings.not_checked["I1, I6, I7: from before the data topic was recreated"] += 1
            continue
        if isinstance(output.content, Prediction):
            recompute.check_seen(output, output.content)
        if output.until < partition.data.start:
            findings.not_checked["I1, I6: retention has deleted the record"] += 1
            continue
        row: Row = (-1, None)
        for row in data:
            if row[0] >= output.source:
                break
            check_deleted(row[0])
        if row[0] != output.until:  # a batch that cannot be decoded is one row, at its last offset
            found = f"{output.source}, where no record is"
            raise output.violation("I1", "the source of a record", found)
        findings.checked["I1"] += output.until - output.source + 1
        if isinstance(output.content, Prediction):
            recompute.add(output, output.content, row[1])
    for offset, _ in data:
        check_deleted(offset)
    return beyond
