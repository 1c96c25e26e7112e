"""What the topics say of each model: what it is, who signed it, what became of it.

The bytes of the models are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stream.model_topic import ModelIndex
from stream.models import SIGNATURE, Envelope, ModelError, unpack
from stream.records import LARGEST_VERSION, Prediction, Status


@dataclass
class Entry:
    """What is known of one version.

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
    problem : str
        Why it cannot be loaded; empty if nothing is known against it.
    since : dict of str to int
        Partition to the offset of the first record that it predicted there.
    refused, barred : str
        Why it was refused or barred, and by which predictor; empty if it was not.
    records : int
        Predictions that it made.
    counted, correct : int
        How many of those were counted, and right.
    """

    version: int
    envelope: Envelope | None = None
    size: int = 0
    key: str = ""
    whole: bool = False
    problem: str = ""
    since: dict[str, int] = field(default_factory=dict)
    refused: str = ""
    barred: str = ""
    records: int = 0
    counted: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float | None:
        """Accuracy of its counted predictions, ``None`` if there are none."""
        return self.correct / self.counted if self.counted else None


class Catalogue:
    """Collects what the model, status and prediction topics say.

    The records that do not count on the model topic come first, then the models that do: what a
    stranger writes changes nothing about the version of a trusted key.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}

    def add_untrusted(self, record: Any, why: str) -> None:
        """Take a record of the model topic that does not count; garbage is left out."""
        try:
            part = unpack(record.value)
        except ModelError:
            return
        entry = self._entry(part.envelope.version)
        entry.size = len(part.pickle) + (entry.size if part.part > 1 else 0)
        signed = any(name == SIGNATURE for name, _ in record.headers)
        entry.key = "not trusted" if signed else "unsigned"
        entry.envelope, entry.problem = part.envelope, why

    def add_models(self, index: ModelIndex, max_bytes: int) -> None:
        """Take the models of trusted keys; one larger than `max_bytes` is refused."""
        for model in index.models():
            entry = self._entry(model.version)
            entry.envelope, entry.size, entry.key = model.envelope, model.size, model.signer
            entry.problem = model.problem(max_bytes)
            entry.whole = not entry.problem

    def add_status(self, status: Status) -> None:
        """Take a record of the status topic."""
        if not 1 <= status.version < LARGEST_VERSION:
            return
        entry = self._entry(status.version)
        why = f"{status.reason or 'no reason given'} ({status.replica})"
        if status.status == "serving":
            for partition, offset in status.since.items():
                entry.since.setdefault(partition, offset)
        elif status.status == "refused":
            entry.refused = entry.refused or why
        elif status.status == "barred":
            entry.barred = entry.barred or why

    def add_prediction(self, prediction: Prediction) -> None:
        """Take a record of the prediction topic."""
        entry = self._entry(prediction.model)
        partition, offset = prediction.source
        entry.since.setdefault(str(partition), offset)
        entry.records += 1
        if prediction.label is not None and not prediction.seen:
            entry.counted += 1
            entry.correct += prediction.prediction == prediction.label

    def rows(self) -> list[Row]:
        """Return what is known of each version, and what became of it, by rising version."""
        served = (e.version for e in self._entries.values() if e.since and not e.barred)
        serving = max(served, default=0)
        newest = max((e.version for e in self._entries.values() if e.whole), default=0)
        return [
            Row(entry, _status(entry, serving), version == newest and _pinned(entry.envelope))
            for version, entry in sorted(self._entries.items())
        ]

    def _entry(self, version: int) -> Entry:
        return self._entries.setdefault(version, Entry(version))


@dataclass(frozen=True)
class Row:
    """A version in the catalogue.

    Attributes
    ----------
    entry : Entry
    status : str
        ``serving``: the newest that predicts. ``replaced``: it predicted, a newer one does now.
        ``barred``: taken out of service. ``refused``: not served, for a reason. ``waiting``: newer
        than the one serving, and not served yet. ``never served``: a newer one was there first.
    pinned : bool
        Whether the modelgenerator publishes nothing after it.
    """

    entry: Entry
    status: str
    pinned: bool

    @property
    def why(self) -> str:
        """Why it was refused or barred; empty if it was not."""
        return self.entry.barred or self.entry.refused or self.entry.problem

    def fields(self) -> dict[str, Any]:
        """Return it as ``--json`` shows it."""
        entry = self.entry
        return {
            "version": entry.version,
            "on_topic": entry.envelope is not None,
            **{
                name: getattr(entry.envelope, name, None)
                for name in Envelope.__dataclass_fields__
                if name not in ("version", "pinned")
            },
            "bytes": entry.size,
            "key": entry.key or None,
            "status": self.status,
            "pinned": self.pinned,
            "since": entry.since,
            "records": entry.records,
            "counted": entry.counted,
            "correct": entry.correct,
            "accuracy": entry.accuracy,
            "why": self.why or None,
        }


def _status(entry: Entry, serving: int) -> str:
    if entry.barred:
        return "barred"
    if entry.since:
        return "serving" if entry.version == serving else "replaced"
    if entry.refused or entry.problem:
        return "refused"
    return "waiting" if entry.version > serving else "never served"


def _pinned(envelope: Envelope | None) -> bool:
    return envelope is not None and envelope.pinned
