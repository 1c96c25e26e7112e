"""What is committed for a partition, and how it is written: both next offsets and the tally.

The metadata of the data offset is the tally. The metadata of the label offset says which labels
before it wait for their records. The last outputs of a unit carry all of it in a header, so that
the offsets may be lost.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from predictor.tally import Tally
from stream.decoding import RecordError, reader
from stream.records import Count


class Commit(NamedTuple):
    """Where a partition stands after a unit.

    Attributes
    ----------
    offset : int
        The next record of the data topic.
    tally : Tally
        The counts before it; it names the next label, too.
    early : tuple of int or None
        Offsets of labels before the next one that wait for their records, in order. ``None`` where
        that is lost.
    """

    offset: int
    tally: Tally
    early: tuple[int, ...] | None = ()

    def label_metadata(self) -> str:
        """Write the metadata of the committed offset of the label topic.

        Of the labels that wait, each offset but the first is written as the difference from the one
        before, so that 256 of them fit.
        """
        early = self.early or ()
        deltas = [*early[:1], *(after - before for before, after in pairwise(early))]
        return msgspec.json.encode(_Labels(self.tally.label_incarnation, deltas)).decode()

    def with_labels(self, offset: int, metadata: str) -> Commit:
        """Take the committed offset of the label topic and its metadata, if that can be read."""
        try:
            found = _read_labels(metadata.encode(errors="replace"))
        except RecordError:
            return self
        tally = replace(self.tally, labels=offset, label_incarnation=found.incarnation)
        return self._replace(tally=tally, early=tuple(accumulate(found.early)))

    def to_header(self) -> bytes:
        """Write all of it as the header of an output."""
        tally = Raw(self.tally.to_metadata().encode())
        return msgspec.json.encode(
            _Position(self.offset, self.tally.labels, list(self.early or ()), tally)
        )

    @classmethod
    def from_header(cls, content: bytes) -> Commit:
        """Read the header of an output.

        Raises
        ------
        RecordError
        """
        found = _read_position(content)
        tally = Tally.from_metadata(bytes(found.tally).decode(errors="replace"))
        return cls(found.data, tally, tuple(found.early))


def about(group: str, topic: str, partition: int, offset: int) -> str:
    """Return what the seal of committed metadata is about: it holds at no other place."""
    return f"{group} {topic} {partition} {offset}"


class _Labels(Struct):
    incarnation: str | None = None
    early: list[Count] = []


class _Position(Struct):
    data: Count
    labels: Count
    early: list[Count]
    tally: Raw


_read_labels = reader(_Labels)
_read_position = reader(_Position)
