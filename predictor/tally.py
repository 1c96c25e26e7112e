"""The tally of a partition: its counts, kept in the metadata of the committed offset."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields

import msgspec

from stream.decoding import RecordError, reader
from stream.records import Count, parse


@dataclass
class Tally:
    """The counts of one input partition.

    Attributes
    ----------
    tp, fp, tn, fn : int
        Counted predictions: true and false positives, true and false negatives.
    seen : int
        Predictions not counted because the model had been trained on the record.
    unlabelled : int
        Predictions not counted because the record has no label.
    rejected : int
        Records that could not be predicted.
    model : int
        Version of the model that predicted last; 0 before the first.
    carried : tuple of int or None
        ``n`` and ``correct`` taken from the prediction topic, where the tally was lost.
    incarnation : str or None
        Id of the data topic that was counted; a recreated topic has another.
    """

    tp: Count = 0
    fp: Count = 0
    tn: Count = 0
    fn: Count = 0
    seen: Count = 0
    unlabelled: Count = 0
    rejected: Count = 0
    model: Count = 0
    carried: tuple[Count, Count] | None = None
    incarnation: str | None = None

    @property
    def n(self) -> int:
        """Counted predictions."""
        return self.tp + self.fp + self.tn + self.fn + (self.carried or (0, 0))[0]

    @property
    def correct(self) -> int:
        """Counted predictions that were right."""
        return self.tp + self.tn + (self.carried or (0, 0))[1]

    def allows(self, model: int, barred: Collection[int]) -> bool:
        """Tell whether a model version may predict next; 0 stands for no model."""
        return bool(model) and (model >= self.model or self.model in barred)

    def count(self, prediction: int, label: int | None, seen: bool) -> bool:
        """Take in one prediction; return whether it was counted."""
        if label is None:
            self.unlabelled += 1
            return False
        if seen:
            self.seen += 1
            return False
        if prediction:
            self.tp, self.fp = self.tp + label, self.fp + 1 - label
        else:
            self.fn, self.tn = self.fn + label, self.tn + 1 - label
        return True

    def to_metadata(self) -> str:
        """Write the tally as the metadata of a committed offset."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return msgspec.json.encode(found).decode()

    @classmethod
    def from_metadata(cls, metadata: str) -> Tally:
        """Read the metadata of a committed offset.

        Raises
        ------
        RecordError
            When it is not a tally: every count has to be there.
        """
        value = metadata.encode(errors="replace")
        if missing := _COUNTS - parse(value).keys():
            raise RecordError(f"{min(missing)}: missing")
        tally = _read(value)
        if tally.carried and tally.carried[1] > tally.carried[0]:
            raise RecordError(f"carried: expected n and correct, got {tally.carried}")
        return tally


_COUNTS = {field.name for field in fields(Tally) if field.default == 0}
_read = reader(Tally)
