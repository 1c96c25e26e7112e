"""What the topics say of each model: what it is, who signed it, what became of it.

The bytes of the models are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from stream.model_topic import ModelIndex
from stream.models import SIGNATURE, Envelope, ModelError, unpack
from stream.records import LARGEST_VERSION, Prediction, Status
from stream.times import instant


@dataclass
class Row:
    """A version in the catalogue.

    Attributes
    ----------
    envelope : Envelope or None
        ``None`` when the model is not on the topic, or no longer.
    size : int
        Bytes of its pickle.
    key : str
        Fingerprint of the trusted key that signed it, ``unsigned`` or ``not trusted``; empty when
        the model is not on the topic.
    whole : bool
        Whether it is on the topic, signed by a trusted key, with every part.
    problem, refused, barred : str
        Why it cannot be loaded, or why a predictor refused or barred it; empty if nothing is known.
    since : dict of str to int
        Partition to the lowest offset of a record that it predicted there.
    records : int
        Predictions that it made.
    counts : dict of int to list of int
        Partition to how many of those the tally has counted, and how many of these were right.
    status : str
        ``serving``: the newest that predicts. ``replaced``: it predicted, a newer one does now.
        ``barred``: taken out of service. ``refused``: not served, for a reason. ``waiting``: newer
        than the one serving, and not served yet. ``never served``: a newer one was there first.
    pinned : bool
        Whether the modelgenerator publishes nothing after it.
    heard : int
        Of the one that serves: when a predictor was last heard, ms since 1970; 0 for never.
    """

    version: int
    envelope: Envelope | None = None
    size: int = 0
    key: str = ""
    whole: bool = False
    problem: str = ""
    refused: str = ""
    barred: str = ""
    since: dict[str, int] = field(default_factory=dict)
    records: int = 0
    counts: dict[int, list[int]] = field(default_factory=dict)
    status: str = ""
    pinned: bool = False
    heard: int = 0

    @property
    def counted(self) -> int:
        """Predictions that the tally has counted."""
        return sum(counted for counted, _ in self.counts.values())

    @property
    def correct(self) -> int:
        """Counted predictions that were right."""
        return sum(correct for _, correct in self.counts.values())

    @property
    def asks_for_pin(self) -> bool:
        """Whether it was published with a pin."""
        return bool(self.envelope and self.envelope.pinned)

    @property
    def decides(self) -> bool:
        """Whether it decides about the pin if it is the newest that does (see `Publisher`)."""
        out_of_service = self.barred or (self.refused and not self.since)
        return self.whole and not (self.asks_for_pin and out_of_service)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of its counted predictions, ``None`` if there are none."""
        return self.correct / self.counted if self.counted else None

    @property
    def why(self) -> str:
        """Why it was refused or barred; empty if it was not."""
        return self.barred or self.refused or self.problem

    def as_json(self) -> dict[str, Any]:
        """Return it as ``--json`` shows it."""
        return {
            "version": self.version,
            "on_topic": self.envelope is not None,
            **{
                each.name: getattr(self.envelope, each.name, None)
                for each in fields(Envelope)
                if each.name not in ("version", "pinned")
            },
            "bytes": self.size,
            "key": self.key or None,
            "status": self.status,
            "pinned": self.pinned,
            "heard": instant(self.heard) if self.heard else None,
            "since": self.since,
            "records": self.records,
            "counted": self.counted,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "why": self.why or None,
        }


class Catalogue:
    """Collects what the model, status and prediction topics say.

    The records that do not count on the model topic come first, then the models that do: what a
    stranger writes changes nothing about the version of a trusted key.

    Attributes
    ----------
    heard : int
        Timestamp of the newest prediction or status, ms since 1970; 0 if there is none.
    """

    def __init__(self) -> None:
        self.heard = 0
        self._rows: dict[int, Row] = {}
        self._counts: dict[int, tuple[int, int]] = {}  # partition to n and correct

    def add_untrusted(self, record: Any, why: str) -> None:
        """Take a record of the model topic that does not count; garbage is left out."""
        try:
            part = unpack(record.value)
        except ModelError:
            return
        row = self._row(part.envelope.version)
        row.size = len(part.pickle) + (row.size if part.part > 1 else 0)
        signed = any(name == SIGNATURE for name, _ in record.headers)
        row.key = "not trusted" if signed else "unsigned"
        row.envelope, row.problem = part.envelope, why

    def add_models(self, index: ModelIndex, max_bytes: int) -> None:
        """Take the models of trusted keys; one larger than `max_bytes` is refused."""
        for model in index.models():
            row = self._row(model.version)
            row.envelope, row.size, row.key = model.envelope, model.size, model.signer
            row.problem = model.problem(max_bytes)
            row.whole = not row.problem

    def add_status(self, status: Status) -> None:
        """Take a record of the status topic."""
        if not 1 <= status.version < LARGEST_VERSION:
            return
        row = self._row(status.version)
        why = f"{status.reason or 'no reason given'} ({status.replica})"
        if status.status == "serving":
            for partition, offset in status.since.items():
                row.since[partition] = min(offset, row.since.get(partition, offset))
        elif status.status == "refused":
            row.refused = row.refused or why
        elif status.status == "barred":
            row.barred = row.barred or why

    def hear(self, timestamp: int) -> None:
        """Take the time of a prediction or a status."""
        self.heard = max(self.heard, timestamp)

    def add_prediction(self, prediction: Prediction) -> None:
        """Take a record of the prediction topic; in each partition, in its order.

        A prediction that meets its label later counts for its model then. An assumed label does not
        count.
        """
        row = self._row(prediction.model)
        partition, offset = prediction.source
        if prediction.outcome is None:
            since = row.since.get(str(partition), offset)
            row.since[str(partition)] = min(offset, since)
            row.records += 1
        n, correct = self._counts.get(partition, (prediction.n, prediction.correct))
        self._counts[partition] = prediction.n, prediction.correct
        if prediction.n < n:  # counting has started over
            for each in self._rows.values():
                each.counts.pop(partition, None)
        counts = row.counts.setdefault(partition, [0, 0])
        if prediction.outcome == "revised":
            counts[1] += prediction.correct - correct
        elif (
            prediction.outcome != "assumed" and prediction.label is not None and not prediction.seen
        ):
            counts[0] += 1
            counts[1] += prediction.prediction == prediction.label

    def rows(self) -> list[Row]:
        """Return the versions, each with what became of it, by rising version."""
        rows = [row for _, row in sorted(self._rows.items())]
        serving = max((row.version for row in rows if row.since and not row.barred), default=0)
        decides = next((row for row in reversed(rows) if row.decides), None)
        for row in rows:
            row.status = _status(row, serving)
            row.pinned = row is decides and row.asks_for_pin
            row.heard = self.heard if row.version == serving else 0
        return rows

    def _row(self, version: int) -> Row:
        return self._rows.setdefault(version, Row(version))


def _status(row: Row, serving: int) -> str:
    if row.barred:
        return "barred"
    if row.since:
        return "serving" if row.version == serving else "replaced"
    if row.refused or row.problem:
        return "refused"
    return "waiting" if row.version > serving else "never served"
