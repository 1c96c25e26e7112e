"""What the topics say of each model: what it is, who signed it, what became of it.

The records of the topics are folded in one by one; the bytes of the models are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stream.keys import TrustedKeys
from stream.models import SIGNATURE, Assembler, Envelope, Headers, ModelError, unpack, verify
from stream.records import LARGEST_VERSION, Prediction, Status


@dataclass
class Entry:
    """What is known of one version.

    Attributes
    ----------
    version : int
    envelope : Envelope or None
        ``None`` when the model is not on the topic, or not any more.
    size : int
        Of its pickle, in bytes.
    key : str
        Fingerprint of the trusted key that signed it, ``unsigned`` or ``not trusted``; empty when
        the model is not on the topic.
    trusted : bool
        Whether a trusted key signed it.
    problem : str or None
        Why it cannot be loaded.
    since : dict of str to int
        Partition to the offset of the first record that it predicted there.
    refused, barred : str or None
        Why it was refused or barred, and by which predictor.
    records : int
        Predictions that it made.
    counted, correct : int
        How many of those were counted, and right.
    """

    version: int
    envelope: Envelope | None = None
    size: int = 0
    key: str = ""
    trusted: bool = False
    problem: str | None = None
    since: dict[str, int] = field(default_factory=dict)
    refused: str | None = None
    barred: str | None = None
    records: int = 0
    counted: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float | None:
        """Accuracy of its counted predictions, ``None`` where there are none."""
        return self.correct / self.counted if self.counted else None

    @property
    def pinned(self) -> bool:
        """Whether it was published to stay."""
        return self.envelope is not None and self.envelope.pinned

    @property
    def whole(self) -> bool:
        """Whether it is on the topic, signed by a trusted key, with every part."""
        return self.trusted and self.problem is None


class Catalogue:
    """Folds the records of the model, status and prediction topics, each in its order.

    Parameters
    ----------
    trusted : TrustedKeys
    max_bytes : int
        Largest pickle, in bytes, that is put together.
    """

    def __init__(self, trusted: TrustedKeys, max_bytes: int) -> None:
        self._trusted = trusted
        self._assembler = Assembler(max_bytes)
        self._entries: dict[int, Entry] = {}

    def add_model(self, value: bytes | None, headers: Headers) -> None:
        """Take a record of the model topic; one that does not say which model it is, is left out.

        The first whole model of a version that a trusted key signed counts: the predictor serves no
        other, and what a stranger writes changes nothing about it.
        """
        key = problem = None
        try:
            key = verify(value, headers, self._trusted)
        except ModelError as error:
            problem = str(error)
        try:
            part = unpack(value)
        except ModelError:
            return
        entry = self._entry(part.envelope.version)
        if entry.whole or (entry.trusted and key is None):
            return
        entry.envelope = part.envelope
        entry.size = len(part.pickle) + (entry.size if part.part > 1 else 0)
        if key is None:
            signed = any(name == SIGNATURE for name, _ in headers)
            entry.key, entry.problem = "not trusted" if signed else "unsigned", problem
            return
        if part.part == 1 or not entry.trusted:
            entry.problem = "incomplete"
        entry.key, entry.trusted = key, True
        try:
            if self._assembler.add(part):
                entry.problem = None
        except ModelError as error:
            entry.problem = str(error)

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
            Row(entry, _status(entry, serving), entry.version == newest and entry.pinned)
            for _, entry in sorted(self._entries.items())
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
        """Why it was refused or barred; empty where it was not."""
        return self.entry.barred or self.entry.refused or self.entry.problem or ""

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
