"""What the topics hold under one partition number, and the outputs in it, without Kafka."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from predictor.verify.report import Violation
from stream.records import Prediction, RecordError, Rejected, decode_prediction, decode_rejected

Row = tuple[int, bytes | None]
"""Offset and value of a record."""


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
        Outputs below this offset belong to a data topic that was deleted and recreated.
    """

    topic: str
    rows: Iterable[Row]
    start: int = 0
    since: int = 0


@dataclass(frozen=True)
class Partition:
    """What each topic holds under one partition number, and what the group has committed.

    Attributes
    ----------
    data : Records
        Up to the committed offset.
    committed : int
        Offset below which every record is predicted or rejected.
    metadata : str or None
        Metadata of the commit. ``None`` if nothing was committed since the data topic was
        recreated.
    """

    number: int
    data: Records
    predictions: Records
    rejected: Records
    committed: int
    metadata: str | None

    def violation(self, invariant: str, expected: str, found: str) -> Violation:
        """Return a violation at the committed offset."""
        place = (self.data.topic, self.number, self.committed)
        return Violation(invariant, *place, expected, found)

    def outputs(self) -> Iterator[Output]:
        """Yield predictions and rejected records by source, those of a deleted topic first."""
        return heapq.merge(
            _decoded(self.predictions, self.number, decode_prediction),
            _decoded(self.rejected, self.number, decode_rejected),
            key=attrgetter("current", "source"),
        )


class Output(NamedTuple):
    """A prediction or a rejected record, and where it is.

    Attributes
    ----------
    source : int
        Offset of its record on the data topic.
    current : bool
        Whether that is the data topic as it is now, not one that was deleted.
    """

    topic: str
    partition: int
    offset: int
    value: bytes | None
    content: Prediction | Rejected
    source: int
    current: bool

    @property
    def until(self) -> int:
        """The last offset that this answers: that of the source, but for a rejected batch."""
        return self.content.last if isinstance(self.content, Rejected) else self.source

    def violation(self, invariant: str, expected: str, found: str) -> Violation:
        """Return a violation at this output."""
        return Violation(invariant, self.topic, self.partition, self.offset, expected, found)


def _decoded(
    records: Records, partition: int, decode: Callable[[bytes | None], Prediction | Rejected]
) -> Iterator[Output]:
    for offset, value in records.rows:
        try:
            content = decode(value)
        except RecordError as error:
            place = (records.topic, partition, offset)
            raise Violation("I1", *place, "a valid record", str(error)) from None
        current = offset >= records.since
        yield Output(records.topic, partition, offset, value, content, content.source[1], current)


def recreated_at(predictions: Iterable[tuple[int, int, bytes | None]], first_data_ms: float) -> int:
    """Find where the predictions of the data topic as it is now begin.

    When a data topic is deleted and recreated, its offsets start again at 0, and so do the sources.
    Sources also go back when a record is predicted twice. The difference: after a recreation, the
    predictions before are older than the first record there is now.

    Parameters
    ----------
    predictions : iterable of (int, int, bytes or None)
        Offset, time in ms and value.
    first_data_ms : float
        Time of the first record of the data topic, in ms.

    Returns
    -------
    int
        Offset of the first prediction since the topic was last recreated, 0 if it never was.
    """
    since, last = 0, -1
    for offset, time_ms, value in predictions:
        try:
            source = decode_prediction(value).source[1]
        except RecordError:
            break  # the check finds it
        if source <= last:
            since = offset
        if time_ms >= first_data_ms:
            break
        last = source
    return since
