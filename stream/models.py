"""The models on the model topic: envelope, parts, signature.

A model is one record, or several consecutive parts if it is larger than a message. Each part is a
JSON object. Its last field holds bytes of the pickle in base64, so that a console shows first what
the model is. Each part has its own signature, over the record's value.

Nothing here unpickles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from stream.decoding import RecordError, reader
from stream.keys import SigningKey, TrustedKeys
from stream.layout import Layout
from stream.records import FEATURES_LIMIT, Cell, Count, Offsets, Probability, Types

SIGNATURE = "signature"
"""Name of the record header that carries the Ed25519 signature."""

PART_BYTES = 600_000
"""Bytes of the pickle in one part: with base64 and envelope it stays below Kafka's 1 MB."""

TEXT_LIMIT = 1_000
"""Most characters of a text in the envelope; log lines and errors quote them."""

Text = Annotated[str, Meta(max_length=TEXT_LIMIT)]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]

Headers = Sequence[tuple[str, bytes | None]]


class ModelError(ValueError):
    """A model that must not be served; the message says which check it failed."""


@dataclass(frozen=True, kw_only=True)
class Former:
    """Where the model of a former concept stands on the model topic: within a published vote.

    Attributes
    ----------
    version : int
        Of the vote.
    after : int
        Its records stand from this offset on.
    recipe : str
        Which member of the vote it is.
    accuracy : float
        How good it was.
    """

    version: Positive
    after: Count
    recipe: Text
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What a model is, without its bytes.

    Attributes
    ----------
    version : int
        Rises by one with every publication.
    recipe : str
        Name of the recipe that made it.
    algorithm : str
        Class of the classifier.
    features : int
        Number of features that it expects.
    feature_names : list of str or None
        Their names, in order, if it knows them.
    classes : list of int
        ``[0, 1]``.
    accepts_missing : bool
        Whether every feature may be null.
    trained_on : int
        Number of records it was trained on.
    trained_to : dict of str to int
        Partition to the highest offset that it was trained on.
    recipe_accuracy : float or None
        Prequential accuracy of its recipe when it was published.
    reason : str
        Why it was published.
    restores : int or None
        The older version that this one brings back.
    created : str
        Time of publication, UTC, ISO 8601.
    sklearn, numpy, python : str
        Versions that it was made with.
    sha256 : str
        Of the whole pickle, in hexadecimal.
    threshold : float or None
        The label is 1 if the probability of label 1 is not below it; ``None``: if it is above one
        half. Older models lack this field and all that follow.
    pinned : bool
        Whether the modelgenerator publishes nothing after it, until it is unpinned.
    after : int or None
        End offset of the model topic when it was published; it shows that a record is a replay.
    probe : list of float or None, or None
        Features that it is probed with before it serves, if it fails on random numbers, as an
        encoder of categories may.
    stream : str or None
        Id of the stream that it was signed for; older models lack it.
    rule : str or None
        ``predict``: the label is what the model's own `predict` says, whatever its probability.
        ``None``: the label comes from the probability, as `threshold` says.
    accepts_missing_in : list of int or None
        Positions of the features that may be null; ``None``: all or none, as `accepts_missing`
        says.
    types : list of str or None
        The type of each feature, as a schema has them; ``None``: all are numbers. They need
        `feature_names`.
    positive, negative : str or None
        The texts of the labels 1 and 0.
    probes : list of rows, or None
        A few real records that it is probed with, where some features are categories.
    standings : dict of str to (float or None), or None
        How good the newest models of each recipe were when it was published, test-then-train.
    archive : list of Former or None
        Models of former concepts that may come back, for a modelgenerator that is restarted.
    """

    version: Positive
    recipe: Text
    algorithm: Text
    features: Annotated[int, Meta(ge=1, le=FEATURES_LIMIT, description=f"1 to {FEATURES_LIMIT}")]
    feature_names: list[str] | None
    classes: list[int]
    accepts_missing: bool
    trained_on: Count
    trained_to: Offsets
    recipe_accuracy: float | None
    reason: Text
    restores: Count | None
    created: Text
    sklearn: Text
    numpy: Text
    python: Text
    sha256: Text = ""
    threshold: Probability = None
    pinned: bool = False
    after: Count | None = None
    probe: list[float | None] | None = None
    stream: Text | None = None
    rule: Text | None = None
    accepts_missing_in: list[Count] | None = None
    types: Types | None = None
    positive: Text | None = None
    negative: Text | None = None
    probes: list[list[Cell]] | None = None
    standings: dict[str, float | None] | None = None
    archive: list[Former] | None = None

    @cached_property
    def layout(self) -> Layout:
        """How records are laid out for the model."""
        return Layout(self.features, self.feature_names, self.types, self.positive, self.negative)

    def wrongly_null(self, features: Sequence[Cell]) -> int | None:
        """Return the position of the first feature that is null and may not be, if there is one."""
        if self.accepts_missing or None not in features:
            return None
        nulls = (index for index, feature in enumerate(features) if feature is None)
        return next((index for index in nulls if index not in self._may_be_null), None)

    @cached_property
    def _may_be_null(self) -> frozenset[int]:
        return frozenset(self.accepts_missing_in or ())

    def trained_on_record(self, partition: int, offset: int) -> bool:
        """Whether the model was trained on the record at this place of the data topic."""
        return offset <= self.trained_to.get(str(partition), -1)


@dataclass(frozen=True)
class Part:
    """One record of the model topic."""

    envelope: Envelope
    part: int
    parts: int
    pickle: bytes


@dataclass(frozen=True)
class Message:
    """One record of the model topic as bytes, ready to be sent."""

    value: bytes
    headers: list[tuple[str, bytes]]


def pack(
    envelope: Envelope, pickle: bytes, key: SigningKey | None, part_bytes: int | None = None
) -> Iterator[Message]:
    """Split a model into signed records.

    Parameters
    ----------
    envelope : Envelope
        Without ``sha256``, which is computed here.
    pickle : bytes
        The model, pickled.
    key : SigningKey or None
        ``None`` leaves the records unsigned.
    part_bytes : int, optional
        Most bytes of the pickle in one record; `PART_BYTES` if not given.

    Yields
    ------
    Message
        The parts in order.
    """
    envelope = replace(envelope, sha256=hashlib.sha256(pickle).hexdigest())
    step = part_bytes or PART_BYTES
    shares = [pickle[i : i + step] for i in range(0, len(pickle), step)] or [b""]
    for number, share in enumerate(shares, start=1):
        numbered = {"part": number, "parts": len(shares), "pickle": share}
        value = msgspec.json.encode(asdict(envelope) | numbered)
        yield Message(value, [(SIGNATURE, key.sign(value))] if key else [])


def verify(value: bytes | None, headers: Headers, trusted: TrustedKeys) -> str:
    """Check the signature of one record, before anything else in it is read.

    Returns
    -------
    str
        Fingerprint of the key that signed it.

    Raises
    ------
    ModelError
        When the record is null, unsigned, signed twice, or not signed by a trusted key.
    """
    if value is None:
        raise ModelError("value: expected a model, got null")
    signatures = [content for name, content in headers if name == SIGNATURE]
    if len(signatures) != 1:
        raise ModelError(f"expected one {SIGNATURE} header, got {'more' if signatures else 'none'}")
    # A Kafka header may have no value.
    fingerprint = trusted.signer(value, signatures[0] or b"")
    if fingerprint is None:
        raise ModelError(f"not signed by a trusted key ({trusted})")
    return fingerprint


def unpack(value: bytes | None) -> Part:
    """Read one record of the model topic.

    Raises
    ------
    ModelError
        When a field is missing, of another type or out of range.
    """
    try:
        share, envelope = _read_share(value), _read_envelope(value)
    except RecordError as error:
        raise ModelError(f"not a model: {error}") from None
    if share.part > share.parts:
        raise ModelError(f"part: expected 1 to {share.parts}, got {share.part}")
    if share.parts > 1 and not share.pickle:
        raise ModelError("pickle: empty")
    return Part(envelope, share.part, share.parts, share.pickle)


class _Share(Struct):
    """The fields of a record of the model topic that are not only its envelope's."""

    sha256: Text  # not optional here
    part: Positive
    parts: Positive
    pickle: Annotated[bytes, Meta(description="base64")]


_read_share = reader(_Share)
_read_envelope = reader(Envelope)
