"""The models on the model topic: envelope, parts, signature.

A model travels as one record, or as consecutive parts where it is larger than a message. Each
part is a JSON object whose last field is its share of the pickle in base64, so that a console
shows what the model is before its bytes; each is signed by itself, over the record's value.

Nothing here unpickles.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from stream.keys import KeySet, SigningKey, TrustedKeys
from stream.records import FEATURES_LIMIT, RecordError, parse

SIGNATURE = "signature"
"""Name of the record header that carries the Ed25519 signature."""

PART_BYTES = 600_000
"""Share of the pickle in one part: with base64 and envelope it stays under Kafka's 1 MB."""

TEXT_LIMIT = 1_000
"""Most characters of a text in the envelope; what is said of a model quotes them."""

Headers = Sequence[tuple[str, bytes | None]]


class ModelError(ValueError):
    """A model that must not be served; the message says which check it failed."""


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
        Number of features it expects.
    feature_names : list of str or None
        Their names, in order, where it knows them.
    classes : list of int
        ``[0, 1]``.
    accepts_missing : bool
        Whether a feature may be null.
    trained_on : int
        Number of records it was trained on.
    trained_to : dict of str to int
        Partition to the highest offset it was trained on.
    recipe_accuracy : float or None
        Prequential accuracy of its recipe when it was published.
    reason : str
        Why it was published.
    restores : int or None
        The older version that this one brings back.
    created : str
        Time of publication, UTC, ISO 8601.
    sklearn, numpy, python : str
        Versions it was made with.
    sha256 : str
        Of the whole pickle, in hexadecimal.
    threshold : float or None
        The label is 1 where the probability of label 1 is not below it; ``None``: where that is
        above one half. Absent in records of old.
    pinned : bool
        Whether the modelgenerator publishes nothing after it, until it is unpinned. Absent in
        records of old.
    after : int or None
        Where the model topic ended when this was published, so that a replayed record tells by
        itself that it stood elsewhere first. Absent in records of old.
    probe : list of float or None, or None
        Features that it is tried on before it serves, where it answers no random numbers: an
        encoder may raise on categories that it has not seen. Absent in records of old.
    """

    version: int
    recipe: str
    algorithm: str
    features: int
    feature_names: list[str] | None
    classes: list[int]
    accepts_missing: bool
    trained_on: int
    trained_to: dict[str, int]
    recipe_accuracy: float | None
    reason: str
    restores: int | None
    created: str
    sklearn: str
    numpy: str
    python: str
    sha256: str = ""
    threshold: float | None = None
    pinned: bool = False
    after: int | None = None
    probe: list[float | None] | None = None

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

    def stood_at(self, offset: int) -> int:
        """Return the least offset that this record, found at `offset`, may first have stood at.

        Versions rise along the topic. So whoever has read everything from there on has seen all
        later versions, even if all that he has read was replayed.
        """
        after = self.envelope.after
        return offset if after is None else min(offset, after + self.part - 1)


@dataclass(frozen=True)
class Message:
    """One record of the model topic as bytes, ready to be sent."""

    value: bytes
    headers: list[tuple[str, bytes]]


def now() -> str:
    """Return the time as the topics carry it: UTC, ISO 8601, milliseconds, ``Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pack(envelope: Envelope, pickle: bytes, key: SigningKey | None) -> Iterator[Message]:
    """Split a model into signed records.

    Parameters
    ----------
    envelope : Envelope
        Its ``sha256`` is filled in here.
    pickle : bytes
        The model, pickled.
    key : SigningKey or None
        ``None`` leaves the records unsigned.

    Yields
    ------
    Message
        The parts in order.
    """
    envelope = replace(envelope, sha256=hashlib.sha256(pickle).hexdigest())
    shares = [pickle[i : i + PART_BYTES] for i in range(0, len(pickle), PART_BYTES)] or [b""]
    for number, share in enumerate(shares, start=1):
        value = orjson.dumps(
            {
                **{field.name: getattr(envelope, field.name) for field in fields(Envelope)},
                "part": number,
                "parts": len(shares),
                "pickle": base64.b64encode(share).decode(),
            }
        )
        yield Message(value, [(SIGNATURE, key.sign(value))] if key else [])


def verify(value: bytes | None, headers: Headers, trusted: TrustedKeys | KeySet) -> str:
    """Check the signature of one record before anything in it is believed.

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
    # Kafka allows a header without content.
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
        found = parse(value)
        envelope = Envelope(**{field.name: _field(found, field.name) for field in fields(Envelope)})
        part, parts = _field(found, "part"), _field(found, "parts")
        if not 1 <= part <= parts:
            raise ModelError(f"part: expected 1 to {parts}, got {part}")
        if parts > 1 and not _field(found, "pickle"):
            raise ModelError("pickle: empty")
        pickle = _field(found, "pickle").encode()  # as bytes: b64decode raises else on non-ASCII
        return Part(envelope, part, parts, base64.b64decode(pickle, validate=True))
    except (RecordError, binascii.Error) as error:
        raise ModelError(f"not a model: {error}") from None


class Assembler:
    """Puts consecutive parts together again, holding at most one model of a bounded size.

    Parameters
    ----------
    max_bytes : int
        Largest pickle, in bytes, that is put together.
    given_up : callable, optional
        Told of each model whose rest did not come before something else did: its envelope, and
        which part is missing. A model that begins again is not given up.
    """

    def __init__(
        self, max_bytes: int, given_up: Callable[[Envelope, str], None] = lambda *_: None
    ) -> None:
        self._max_bytes = max_bytes
        self._given_up = given_up
        self._last: Part | None = None
        self._shares: list[bytes] = []
        self._size = 0

    def add(self, part: Part) -> tuple[Envelope, bytes] | None:
        """Take the next part in the order of the topic.

        Returns
        -------
        tuple of Envelope and bytes, or None
            The model, once its last part is here.

        Raises
        ------
        ModelError
            When this part's model is larger than allowed, or its digest is wrong. The next part 1
            starts afresh.
        """
        last = self._last
        if last and (part.envelope, part.parts, part.part) != (
            last.envelope,
            last.parts,
            last.part + 1,
        ):
            self._start_again()
            if (part.part, part.envelope) != (1, last.envelope):
                missing = f"part {last.part + 1} of {last.parts} of model {last.envelope.version}"
                self._given_up(last.envelope, f"{missing} is missing")
        if part.part > 1 and not self._last:
            return None  # the rest of a model whose beginning was not read or not accepted
        self._size += len(part.pickle)
        if max(self._size, part.parts) > self._max_bytes:
            size = max(self._size, part.parts)  # a part has a byte at least
            self._start_again()
            raise ModelError(f"larger than {self._max_bytes} bytes (at least {size})")
        self._shares.append(part.pickle)
        self._last = replace(part, pickle=b"")
        if part.part < part.parts:
            return None
        pickle = b"".join(self._shares)
        self._start_again()
        if hashlib.sha256(pickle).hexdigest() != part.envelope.sha256:
            raise ModelError("sha256: not the digest of the pickle")
        return part.envelope, pickle

    def _start_again(self) -> None:
        self._last, self._shares, self._size = None, [], 0


_TYPES: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "recipe": (str,),
    "algorithm": (str,),
    "features": (int,),
    "feature_names": (list, type(None)),
    "classes": (list,),
    "accepts_missing": (bool,),
    "trained_on": (int,),
    "trained_to": (dict,),
    "recipe_accuracy": (float, int, type(None)),
    "reason": (str,),
    "restores": (int, type(None)),
    "created": (str,),
    "sklearn": (str,),
    "numpy": (str,),
    "python": (str,),
    "sha256": (str,),
    "threshold": (float, int, type(None)),
    "pinned": (bool,),
    "after": (int, type(None)),
    "probe": (list, type(None)),
    "part": (int,),
    "parts": (int,),
    "pickle": (str,),
}


_ADDED: dict[str, Any] = {"threshold": None, "pinned": False, "after": None, "probe": None}
"""Fields that came later, with what their absence means."""


def _field(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        if name in _ADDED:
            return _ADDED[name]
        raise ModelError(f"{name}: missing")
    value = found[name]
    if type(value) not in _TYPES[name]:
        allowed = " or ".join("null" if t is type(None) else t.__name__ for t in _TYPES[name])
        raise ModelError(f"{name}: expected {allowed}, got {type(value).__name__}")
    if name == "version" and value < 1:
        raise ModelError(f"version: expected 1 or more, got {value}")
    if name == "features" and not 1 <= value <= FEATURES_LIMIT:
        raise ModelError(f"features: expected 1 to {FEATURES_LIMIT}, got {value}")
    if name == "threshold" and value is not None and not 0 <= value <= 1:
        raise ModelError(f"threshold: expected 0 to 1, got {value}")
    if name == "trained_to" and not all(type(offset) is int for offset in value.values()):
        raise ModelError("trained_to: expected partition to offset")
    if name == "feature_names" and value is not None and not set(map(type, value)) <= {str}:
        raise ModelError("feature_names: expected names")
    if name == "classes" and not set(map(type, value)) <= {int}:
        raise ModelError("classes: expected integers")
    if name == "probe" and value and not set(map(type, value)) <= {int, float, type(None)}:
        raise ModelError("probe: expected numbers or null")
    if type(value) is str and name != "pickle" and len(value) > TEXT_LIMIT:
        raise ModelError(f"{name}: at most {TEXT_LIMIT} characters, got {len(value)}")
    return value
