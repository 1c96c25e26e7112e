"""A record as it came from the data topic, and why no model could ever predict it."""

from __future__ import annotations

from typing import Any, NamedTuple

from stream.batches import UndecodableBatch
from stream.records import Record, RecordError, Rejected, decode_record, reject

KEY_LIMIT_BYTES = 10_000
"""A record with a longer key is rejected: its prediction could exceed a broker's size limit."""


class Consumed(NamedTuple):
    """A record as it came from the data topic, or a batch of records that cannot be decoded.

    Attributes
    ----------
    offset : int
        The first offset of a batch.
    batch : Rejected or None
        How a batch is rejected.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    batch: Rejected | None = None

    @classmethod
    def of(cls, record: Any) -> Consumed:
        """Take what a consumer delivers."""
        if isinstance(record, UndecodableBatch):
            source = (record.partition, record.first)
            batch = Rejected(source, record.reason, record.size, "", until=record.offset)
            return cls(*source, None, None, batch)
        return cls(record.partition, record.offset, record.key, record.value)

    @property
    def last(self) -> int:
        """The last offset that this is about."""
        return self.batch.last if self.batch else self.offset

    def decode(self) -> Record | str:
        """Return the record, or the reason why no model could ever predict it."""
        if self.batch is not None:
            return self.batch.reason
        if self.key is not None and len(self.key) > KEY_LIMIT_BYTES:
            return f"key: at most {KEY_LIMIT_BYTES} bytes, got {len(self.key)}"
        try:
            return decode_record(self.value)
        except RecordError as error:
            return str(error)

    def rejected(self, reason: str) -> Rejected:
        """Return the rejected record to be written for this."""
        return self.batch or reject((self.partition, self.offset), self.value, reason)
