"""The tally of a partition: its counts, kept in the metadata of the committed offset."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Annotated

import msgspec

from stream.decoding import RecordError, reader
from stream.records import Count, parse

DELAY_BUCKETS = 24


def delay_bucket(delay: float) -> int:
    """Return the number of the bucket that counts a delay, in seconds.

    Bucket 0 holds the delays below 1 s, negative ones included; bucket i those below 2**i s that
    are in none before it; the last bucket those from 2**22 s (48 days) on.
    """
    return min(math.floor(max(0.0, delay)).bit_length(), DELAY_BUCKETS - 1)


@dataclass
class Tally:
    """The counts of one input partition.

    Attributes
    ----------
    tp, fp, tn, fn : int
        Counted predictions: true and false positives, true and false negatives.
    seen : int
        Labelled predictions not counted because the model had been trained on the record.
    unlabelled : int
        Predictions of records without a label inside.
    rejected : int
        Records that could not be predicted.
    model : int
        Version of the model that predicted last; 0 before the first.
    carried : tuple of int or None
        ``n`` and ``correct`` taken from the prediction topic, where the tally was lost.
    incarnation : str or None
        Id of the data topic that was counted; a recreated topic has another.
    waiting : int
        Predictions that a label may still come for.
    late : int
        Predictions that met a label which came later, those of seen records included.
    expired : int
        Predictions whose label did not come within ``LABEL_WAIT``.
    assumed : int
        Predictions that got an assumed label instead (``LABEL_ASSUME``); in no other count.
    revised : int
        Labels that corrected one given before.
    orphans : int
        Labels that were rejected, whatever the reason.
    expired_to : int
        Offset of the data topic below which no prediction is known any more. It only rises.
    known_from : int or None
        Offset of the prediction topic from which on all known predictions stand; ``None`` in a
        tally of the version before, or before the first commit.
    labels : int
        The next offset of the label topic.
    label_incarnation : str or None
        Id of the label topic that `labels` is of.
    delays : tuple of int
        Labels that came later, by `delay_bucket`; empty before the first one.
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
    waiting: Count = 0
    late: Count = 0
    expired: Count = 0
    assumed: Count = 0
    revised: Count = 0
    orphans: Count = 0
    expired_to: Count = 0
    known_from: Count | None = None
    labels: Count = 0
    label_incarnation: str | None = None
    delays: Annotated[tuple[Count, ...], msgspec.Meta(max_length=DELAY_BUCKETS)] = ()

    @property
    def n(self) -> int:
        """Counted predictions."""
        return self.tp + self.fp + self.tn + self.fn + (self.carried or (0, 0))[0]

    @property
    def correct(self) -> int:
        """Counted predictions that were right."""
        return self.tp + self.tn + (self.carried or (0, 0))[1]

    @property
    def labelled(self) -> int:
        """Predictions that have a real label, inside or later; those of seen records included."""
        return self.n + self.seen

    @property
    def predicted(self) -> int:
        """All predictions; the share of `labelled` among them is the coverage."""
        return self.labelled - self.late + self.unlabelled

    def allows(self, model: int, barred: Collection[int]) -> bool:
        """Tell whether a model version may predict next; 0 stands for no model."""
        return bool(model) and (model >= self.model or self.model in barred)

    def count(self, prediction: int, label: int | None, seen: bool) -> bool:
        """Take in one prediction; return whether it was counted."""
        if label is None:
            self.unlabelled += 1
            self.waiting += 1
            return False
        if seen:
            self.seen += 1
            return False
        if prediction:
            self.tp, self.fp = self.tp + label, self.fp + 1 - label
        else:
            self.fn, self.tn = self.fn + label, self.tn + 1 - label
        return True

    def count_late(self, prediction: int, label: int, seen: bool, delay: float | None) -> bool:
        """Take in the label of a prediction that waited; return whether it was counted."""
        self.waiting -= 1
        self.late += 1
        if delay is not None:
            counts = list(self.delays or (0,) * DELAY_BUCKETS)
            counts[delay_bucket(delay)] += 1
            self.delays = tuple(counts)
        return self.count(prediction, label, seen)

    def revise(self, prediction: int, before: int, label: int, seen: bool) -> None:
        """Correct the label of a prediction; n stays."""
        self.revised += 1
        if seen or label == before:
            return
        step = 1 if label else -1
        if prediction:
            self.tp, self.fp = self.tp + step, self.fp - step
        else:
            self.fn, self.tn = self.fn + step, self.tn - step

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
            When it is not a tally: every count of the version before has to be there.
        """
        value = metadata.encode(errors="replace")
        if missing := _COUNTS - parse(value).keys():
            raise RecordError(f"{min(missing)}: missing")
        tally = _read(value)
        if tally.carried and tally.carried[1] > tally.carried[0]:
            raise RecordError(f"carried: expected n and correct, got {tally.carried}")
        return tally


def delay_below(delays: Collection[int], share: float) -> float | None:
    """Return the seconds below which at least this share of the delays is.

    Parameters
    ----------
    delays : collection of int
        Counts by `delay_bucket`.

    Returns
    -------
    float or None
        The upper bound of a bucket, infinity for the last one; ``None`` without delays.
    """
    if not (total := sum(delays)):
        return None
    bucket = next(i for i, n in enumerate(accumulate(delays)) if n >= share * total)
    return 2.0**bucket if bucket < DELAY_BUCKETS - 1 else math.inf


_COUNTS = {"tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected", "model"}
_read = reader(Tally)
