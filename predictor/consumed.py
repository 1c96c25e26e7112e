"""Records as they came from the data topic and the label topic, and why one cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

from msgspec.structs import replace

from stream.batches import UndecodableBatch
from stream.layout import Layout
from stream.records import (
    Label,
    Record,
    RecordError,
    Rejected,
    decode_label,
    decode_record,
    reject,
)

T = TypeVar("T", Record, Label)

KEY_LIMIT_BYTES = 10_000
"""A record with a longer key is rejected: its prediction could exceed a broker's size limit."""


class Consumed(NamedTuple):
    """A record as it came from its topic, or a batch of records that cannot be decoded.

    Attributes
    ----------
    offset : int
        The first offset of a batch.
    batch : Rejected or None
        How a batch is rejected.
    time : int or None
        Timestamp in ms since 1970; ``None`` where it has none.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    batch: Rejected | None = None
    time: int | None = None

    @classmethod
    def of(cls, record: Any) -> Self:
        """Take what a consumer delivers."""
        time = record.timestamp if record.timestamp > 0 else None
        if isinstance(record, UndecodableBatch):
            source = (record.partition, record.first)
            batch = Rejected(source, record.reason, record.size, "", until=record.offset)
            return cls(*source, None, None, batch, time)
        return cls(record.partition, record.offset, record.key, record.value, None, time)

    @property
    def last(self) -> int:
        """The last offset that this is about."""
        return self.batch.last if self.batch else self.offset

    def decode(self) -> Record | str:
        """Return the record as it was sent, or the reason why no model could ever predict it."""
        return self._read(decode_record)

    def rejected(self, reason: str) -> Rejected:
        """Return the rejected record to be written for this."""
        return self.batch or reject((self.partition, self.offset), self.value, reason)

    def _read(self, decode: Callable[[bytes | None], T]) -> T | str:
        if self.batch is not None:
            return self.batch.reason
        if self.key is not None and len(self.key) > KEY_LIMIT_BYTES:
            return f"key: at most {KEY_LIMIT_BYTES} bytes, got {len(self.key)}"
        try:
            return decode(self.value)
        except RecordError as error:
            return str(error)


class ConsumedLabel(Consumed):
    """A record as it came from the label topic, or a batch that cannot be decoded."""

    __slots__ = ()

    def label(self) -> Label | str:
        """Return the label as it was written, or the reason why it can be nobody's."""
        return self._read(decode_label)

    def read(self, layout: Layout | None) -> Label | str | None:
        """Return the label with 0 or 1, why it can be nobody's, or ``None``: only a model can say.

        Parameters
        ----------
        layout : Layout or None
            Of the model that serves; ``None`` where there is none.
        """
        found = self.label()
        if isinstance(found, str) or isinstance(found.label, int):
            return found
        if layout is None:
            return None
        try:
            return replace(found, label=layout.label(found.label))
        except RecordError as error:
            return str(error)
