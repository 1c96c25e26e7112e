"""What the topics hold under one partition number, and the outputs in it, without Kafka."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from predictor.tally import Tally
from predictor.verify.report import Violation
from stream.records import Prediction, RecordError, Rejected, decode_prediction, decode_rejected

Row = tuple[int, bytes | None, int]
"""Offset, value and timestamp in ms of a record."""


@dataclass(frozen=True)
class Records:
    """The records of one partition of a topic.

    Attributes
    ----------
    rows : iterable of Row
        In the order of their offsets.
    start : int
        First offset of the partition. Above 0, retention has deleted the records before it.
    since : int
        Outputs below this offset belong to a topic that was deleted and recreated: the label topic
        for rejected labels, the data topic for all others.
    """

    topic: str
    rows: Iterable[Row]
    start: int = 0
    since: int = 0


@dataclass(frozen=True)
class Committed:
    """How far the group had come in a partition with its last transaction.

    Attributes
    ----------
    offset : int
        Offset of the data topic below which every record is predicted or rejected.
    tally : Tally, str or None
        ``None`` if nothing was committed since the data topic was recreated; a string says why it
        cannot be read.
    labels : int or None
        The committed offset of the label topic; ``None`` if there is none.
    held : collection of int or None
        Offsets of the labels before that which wait for their records; ``None`` if not known.
    """

    offset: int
    tally: Tally | str | None
    labels: int | None = None
    held: Collection[int] | None = ()


@dataclass(frozen=True)
class Partition:
    """What each topic holds under one partition number, and what the group has committed.

    Attributes
    ----------
    data, labels : Records
        Up to the committed offsets.
    labels_since : int
        Outcomes below this offset of the prediction topic belong to a label topic that was deleted
        and recreated.
    """

    number: int
    data: Records
    predictions: Records
    rejected: Records
    labels: Records
    rejected_labels: Records
    committed: Committed
    labels_since: int = 0

    def violation(self, invariant: str, expected: str, found: str) -> Violation:
        """Return a violation at the committed offset."""
        place = (self.data.topic, self.number, self.committed.offset)
        return Violation(invariant, *place, expected, found)

    def outputs(self, beyond: list[Output]) -> Iterator[Output]:
        """Yield what is on the topics of predictions and of rejected records.

        In the order of the data, those of a deleted topic first. Each topic ends before its first
        output that is not committed, which is added to `beyond`.
        """
        end = self.committed.offset
        predictions = _decoded(self.predictions, self.number, decode_prediction)
        rejected = _decoded(self.rejected, self.number, decode_rejected)
        return heapq.merge(
            self._committed(predictions, end, beyond),
            self._committed(rejected, end, beyond),
            key=attrgetter("current", "order"),
        )

    def label_rejections(self, beyond: list[Output]) -> Iterator[Output]:
        """Yield the rejected labels in their order, and end like `outputs`."""
        rejected = _decoded(self.rejected_labels, self.number, decode_rejected)
        return self._committed(rejected, 0, beyond)

    def is_committed(self, output: Output) -> bool:
        """Tell whether an output belongs to what is committed."""
        content = output.content
        if not output.current:
            return True
        if output.topic == self.rejected_labels.topic:
            return self._is_answered(output.last)
        if isinstance(content, Rejected) or content.outcome is None:
            return output.last < self.committed.offset
        if content.labelled is not None:
            return output.offset < self.labels_since or self._is_answered(content.labelled[1])
        tally = self.committed.tally
        return not isinstance(tally, Tally) or output.source < tally.expired_to

    def _is_answered(self, label: int) -> bool:
        """Tell whether what is committed goes beyond a label, and it does not wait."""
        labels, held, tally = self.committed.labels, self.committed.held, self.committed.tally
        if labels is None and isinstance(tally, Tally):
            labels = tally.labels
        return (labels is None or label < labels) and label not in (held or ())

    def _committed(
        self, outputs: Iterator[Output], certain: int, beyond: list[Output]
    ) -> Iterator[Output]:
        """Yield outputs up to the first that is not committed: none before `certain`."""
        for output in outputs:
            if (output.outcome or output.order >= certain) and not self.is_committed(output):
                beyond.append(output)
                return
            yield output


class Output(NamedTuple):
    """A prediction, an outcome or something rejected, and where it is.

    Attributes
    ----------
    order : int
        Offset on the data topic of the record that it answers; an outcome follows the prediction
        that stands before it.
    current : bool
        Whether it belongs to the data topic (a rejected label: to the label topic) as it is now,
        not to one that was deleted.
    outcome : bool
        Whether it is a prediction that was made before and now meets its label.
    """

    topic: str
    partition: int
    offset: int
    value: bytes | None
    content: Prediction | Rejected
    order: int
    current: bool
    outcome: bool

    @property
    def source(self) -> int:
        """The offset of its record or label."""
        return self.content.source[1]

    @property
    def last(self) -> int:
        """The last offset that this answers: that of the source, but for a rejected batch."""
        return self.content.last if isinstance(self.content, Rejected) else self.source

    def violation(self, invariant: str, expected: str, found: str) -> Violation:
        """Return a violation at this output."""
        return Violation(invariant, self.topic, self.partition, self.offset, expected, found)


def _decoded(
    records: Records, partition: int, decode: Callable[[bytes | None], Prediction | Rejected]
) -> Iterator[Output]:
    order = -1
    for offset, value, _ in records.rows:
        try:
            content = decode(value)
        except RecordError as error:
            place = (records.topic, partition, offset)
            raise Violation("I1", *place, "a valid record", str(error)) from None
        if not (outcome := isinstance(content, Prediction) and content.outcome is not None):
            order = content.source[1]
        current = offset >= records.since
        yield Output(records.topic, partition, offset, value, content, order, current, outcome)
