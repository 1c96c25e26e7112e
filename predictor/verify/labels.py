"""I8: each label is answered exactly once; and what the label of an outcome says (I9)."""

from __future__ import annotations

import math

from predictor.verify.models import Models
from predictor.verify.partition import Output, Partition, Row
from predictor.verify.report import Findings, Violation
from stream.records import Label, Prediction, RecordError, decode_label

HELD_MOST = 256
"""Labels that may wait for their records at a time."""

_OPEN_MOST = 4 * HELD_MOST
"""Labels without an answer that are kept: those held when an answer further on was found, for each
of the two topics of answers, and as many again."""


class Labels:
    """Walks over the labels of a partition as their answers come, in bounded memory.

    Answers come in the order of the labels, but for those that were held.

    Attributes
    ----------
    rejected : int
        Labels rejected, a batch that cannot be decoded as one.
    beyond : list of Output
        The first rejected label that is not committed.
    """

    def __init__(self, partition: Partition, models: Models, findings: Findings) -> None:
        self.beyond: list[Output] = []
        self.rejected = 0
        self._partition = partition
        self._models = models
        self._findings = findings
        self._rows = iter(partition.labels.rows)
        self._row = next(self._rows, None)
        self._open: dict[int, Row] = {}
        self._excused_to = partition.labels.start - 1
        self._rejected = partition.label_rejections(self.beyond)
        self._next_rejected = next(self._rejected, None)
        cut = (
            partition.predictions.start > partition.labels_since,
            partition.rejected_labels.start > partition.rejected_labels.since,
        )
        topics = (partition.predictions.topic, partition.rejected_labels.topic)
        self._first: dict[str, list[int]] = {
            t: [] for t, is_cut in zip(topics, cut, strict=True) if is_cut
        }

    def meet(self, output: Output, outcome: Prediction, number: int, offset: int) -> None:
        """Check that an outcome is the one answer to its label, and says what the label says.

        Raises
        ------
        Violation
        """
        if number != self._partition.number:
            expected = f"a label of partition {self._partition.number}"
            raise output.violation("I8", expected, f"one of {number}")
        if output.offset < self._partition.labels_since:
            self._not_checked("I8, I9: from before the label topic was recreated")
            return
        self._reject_to(offset)
        row = self._answer(output, offset, offset)
        if row is not None:
            self._check_label(output, outcome, row)

    def finish(self) -> None:
        """Check what is left: labels without an answer are those that are held.

        Raises
        ------
        Violation
        """
        self._reject_to(math.inf)
        self._findings.rejected_labels += self.rejected
        self._read_to(math.inf)
        partition = self._partition
        if partition.committed.labels is None:
            if self._open:
                self._not_checked("I8: no offset of labels is committed", len(self._open))
            return
        if partition.committed.held is None:
            self._not_checked("I8: the labels that wait for their records changed meanwhile")
            return
        for offset in sorted(partition.committed.held):
            if self._open.pop(offset, None) is None:
                raise self._violation(offset, "a label that waits", "one answered, or none")
            self._findings.checked["I8"] += 1
            self._findings.held += 1
        for offset in self._open:
            self._excuse(offset)

    def _reject_to(self, offset: float) -> None:
        """Take in the rejected labels that come before the label at `offset`."""
        while (output := self._next_rejected) and output.source < offset:
            self._next_rejected = next(self._rejected, None)
            self.rejected += 1
            if output.content.source[0] != self._partition.number:
                expected = f"a source in partition {self._partition.number}"
                raise output.violation("I8", expected, f"{output.content.source}")
            if output.current:
                self._answer(output, output.source, output.last)
            else:
                self._not_checked("I8, I9: from before the label topic was recreated")

    def _read_to(self, last: float) -> None:
        while self._row and self._row[0] <= last:
            self._open[self._row[0]] = self._row
            self._row = next(self._rows, None)
            if len(self._open) > _OPEN_MOST:
                self._excuse(oldest := next(iter(self._open)))
                self._excused_to = oldest
                del self._open[oldest]

    def _answer(self, output: Output, first: int, last: int) -> Row | None:
        """Take the label that an output answers; ``None`` if it cannot be checked."""
        answers = self._first.get(output.topic)
        if answers is not None and len(answers) <= HELD_MOST:
            answers.append(last)
        self._read_to(last)
        row = self._open.pop(last, None)
        if row is None and last <= self._excused_to:
            self._not_checked("I8, I9: retention has deleted the label")
            return None
        if row is None:
            raise output.violation("I8", "a label that nothing answers yet", f"offset {last}")
        if first < last and (readable := [o for o in self._open if first <= o]):
            raise output.violation(
                "I8", f"a batch from {first} to {last}", f"a label at {readable[0]}"
            )
        self._findings.checked["I8"] += last - first + 1
        return row

    def _excuse(self, offset: int) -> None:
        """Check that retention may have deleted the answer to a label that has none.

        Of the first answers that are left of a topic, all but `HELD_MOST` were read in order. So
        nothing that was read before those is missing behind the highest of them.
        """
        firsts = self._first.values()
        if all(len(first) > HELD_MOST and max(first) <= offset for first in firsts):
            raise self._violation(offset, "an outcome, a rejected label or one that waits", "none")
        self._not_checked("I8: retention may have deleted the answer to the label")

    def _check_label(self, output: Output, outcome: Prediction, row: Row) -> None:
        _, value, time_ms = row
        try:
            label = decode_label(value)
        except RecordError as error:
            raise output.violation("I9", "a rejected label", f"an outcome: {error}") from None
        said: set[int | bool | str | None] = {label.label}
        if isinstance(label.label, str):
            said = {*self._models.label(label.label)}
            if not said and isinstance(self._models.envelope(outcome.model), str):
                self._not_checked("I9: a label is a text, and models are gone")
                said = {outcome.label}
        if outcome.label not in said:
            raise output.violation("I9", f"an outcome of {label}", f"one of label {outcome.label}")
        given = Label(
            label.label,
            outcome.id if label.id is not None else None,
            outcome.source if label.source is not None else None,
            label.revises or outcome.outcome == "revised",
        )
        if given != label:
            raise output.violation("I9", f"an outcome of {label}", f"one of {given}")
        delay = None
        if time_ms > 0 and outcome.time is not None:
            delay = (time_ms - outcome.time) / 1000
        if delay != outcome.delay:
            raise output.violation("I9", f"delay {delay}", f"{outcome.delay}")

    def _violation(self, offset: int, expected: str, found: str) -> Violation:
        place = (self._partition.labels.topic, self._partition.number, offset)
        return Violation("I8", *place, expected, found)

    def _not_checked(self, why: str, number: int = 1) -> None:
        self._findings.not_checked[why] += number
