"""The tally of a partition: what was counted, kept as metadata of the committed offset."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from stream.records import RecordError, integer, parse, text


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
        ``n`` and ``correct`` taken over from the prediction topic, where the tally was lost.
    incarnation : str or None
        Id of the data topic that was counted; one made again under its name has another.
    """

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0
    seen: int = 0
    unlabelled: int = 0
    rejected: int = 0
    model: int = 0
    carried: tuple[int, int] | None = None
    incarnation: str | None = None

    @property
    def n(self) -> int:
        """Counted predictions."""
        return self.tp + self.fp + self.tn + self.fn + (self.carried or (0, 0))[0]

    @property
    def correct(self) -> int:
        """Counted predictions that were right."""
        return self.tp + self.tn + (self.carried or (0, 0))[1]

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
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        return orjson.dumps(fields).decode()

    @classmethod
    def from_metadata(cls, metadata: str) -> Tally:
        """Read the metadata of a committed offset.

        Raises
        ------
        RecordError
            When it is no tally.
        """
        fields = parse(metadata.encode(errors="replace"))
        names = ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected", "model")
        counts = {name: integer(fields, name) for name in names}
        carried = None
        if fields.get("carried") is not None:
            found = fields["carried"]
            if type(found) is not list or len(found) != 2:
                raise RecordError("carried: expected n and correct")
            taken_over = dict(zip(("n", "correct"), found, strict=True))
            n = integer(taken_over, "n")
            carried = n, integer(taken_over, "correct", 0, n)
        incarnation = None if fields.get("incarnation") is None else text(fields, "incarnation")
        return cls(**counts, carried=carried, incarnation=incarnation)
