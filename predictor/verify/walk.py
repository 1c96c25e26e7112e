"""I1, and the walk over a partition that hands each record to the other checks."""

from __future__ import annotations

from collections.abc import Iterable

from predictor.verify.counts import Counts
from predictor.verify.log_file import Line
from predictor.verify.models import Models
from predictor.verify.outcomes import Outcomes
from predictor.verify.partition import Output, Partition, Row
from predictor.verify.recompute import Recompute
from predictor.verify.report import Findings, Violation
from stream.records import Prediction


def check_partition(
    partition: Partition,
    models: Models,
    findings: Findings,
    logs: Iterable[Iterable[Line]] = (),
) -> list[Output]:
    """Check the invariants on one partition, in bounded memory.

    Parameters
    ----------
    findings : Findings
        Gets what was checked.
    logs : iterable of iterables of Line
        For each log, the lines about this partition.

    Returns
    -------
    list of Output
        The first output of each topic that is not committed, where the check ended. That is a
        violation, unless it has been committed meanwhile.

    Raises
    ------
    Violation
        The first that was found.
    """
    outcomes = Outcomes(partition, models, findings)
    counts = Counts(partition, outcomes, models, findings, logs)
    recompute = Recompute(models, findings)
    try:
        beyond = _walk(partition, counts, recompute, findings)
        outcomes.labels.finish()
        beyond += outcomes.labels.beyond
        counts.finish()
    except Violation:
        recompute.finish()  # what waits there comes before what was just found
        raise
    recompute.finish()
    return beyond


def _walk(
    partition: Partition, counts: Counts, recompute: Recompute, findings: Findings
) -> list[Output]:
    both = (partition.predictions, partition.rejected)
    cut = [records.topic for records in both if records.start > records.since]
    first: dict[str, int] = {}
    data = iter(partition.data.rows)

    def check_deleted(offset: int) -> None:
        """Check that retention may have deleted the output of a record that has none."""
        if all(first.get(topic, partition.committed.offset) <= offset for topic in cut):
            place = (partition.data.topic, partition.number, offset)
            raise Violation("I1", *place, "a prediction or a rejected record", "neither")
        findings.not_checked["I1: retention may have deleted the record's output"] += 1

    before = -1
    beyond: list[Output] = []
    for output in partition.outputs(beyond):
        content, source, last = output.content, output.order, output.last
        if output.outcome:
            counts.add(output)
            continue
        if output.current:
            if content.source[0] != partition.number:
                expected = f"a source in partition {partition.number}"
                raise output.violation("I1", expected, f"{content.source}")
            if source <= before:
                raise output.violation("I1", f"a source above {before}", f"{source}")
            before = last
            first.setdefault(output.topic, source)
        counts.add(output)
        if not output.current:
            findings.not_checked["I1, I6, I7: from before the data topic was recreated"] += 1
            continue
        if isinstance(content, Prediction):
            recompute.check_seen(output, content)
        if last < partition.data.start:
            findings.not_checked["I1, I6: retention has deleted the record"] += 1
            continue
        row: Row = (-1, None, -1)
        for row in data:
            if row[0] >= source:
                break
            check_deleted(row[0])
        if row[0] != last:  # a batch that cannot be decoded is one row, at its last offset
            found = f"{source}, where no record is"
            raise output.violation("I1", "the source of a record", found)
        findings.checked["I1"] += last - source + 1
        if isinstance(content, Prediction):
            recompute.add(output, content, row)
    for offset, *_ in data:
        check_deleted(offset)
    return beyond
