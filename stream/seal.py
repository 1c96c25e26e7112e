"""The secret that predictors share, and what they write under it.

Statuses, tallies and outputs decide what services do: which model is barred, where counting goes
on. So they carry a seal, an HMAC-SHA-256 (RFC 2104) over topic, value and headers, or over a tally
and where it is committed. It needs no more than one file that is the same for all predictors and
the modelgenerator. Signatures would need a key of each replica and a list of them; and those who
can read the secret could do no more with it than what predictors do anyway.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stream.decoding import RecordError
from stream.key_files import KeyFileError, check_private, create_file, read_file
from stream.service import Fatal, shared_warnings
from stream.settings import ModelLimits

T = TypeVar("T")

HEADER = "seal"
SHORT_HEADER = "short-seal"
SHORT_BYTES = 16
SECRET_BYTES = 32

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Seal:
    """Makes and checks seals; two of the same secret are equal."""

    secret: bytes = field(repr=False)

    def headers(
        self, topic: str, value: bytes, headers: Headers = ()
    ) -> list[tuple[str, bytes | None]]:
        """Return the headers of a record, with its seal behind them."""
        return [*headers, (HEADER, self._digest(topic, value, headers))]

    def holds(self, topic: str, value: bytes | None, headers: Headers) -> bool:
        """Tell whether a record has exactly one seal, as its last header, and it is right."""
        if not headers or value is None:
            return False
        *others, (name, seal) = headers
        return name == HEADER and hmac.compare_digest(
            seal or b"", self._digest(topic, value, others)
        )

    def short(self, *context: str) -> ShortSeal:
        """Return what makes the short seals of records that have a context in common."""
        return ShortSeal(self._begun("short seal", *context))

    def sealed(self, about: str, text: str) -> str:
        """Return a JSON object, as text, with its seal as the last field."""
        digest = self._digest(about, text.encode(), ()).hex()
        return f'{text.removesuffix("}")},"{HEADER}":"{digest}"}}'

    def holds_in(self, about: str, text: str) -> bool:
        """Tell whether a text is what `sealed` returned of the same thing."""
        unsealed = text.rpartition(f',"{HEADER}":')[0] + "}"
        return hmac.compare_digest(self.sealed(about, unsealed).encode(), text.encode())

    def _digest(self, topic: str, value: bytes, headers: Headers) -> bytes:
        found = self._begun(topic)
        _update(found, value)
        for name, content in headers:
            _update(found, name.encode(errors="surrogatepass"))
            _update(found, content or b"")
        return found.digest()

    def _begun(self, *texts: str) -> hmac.HMAC:
        found = hmac.new(self.secret, digestmod="sha256")
        for text in texts:
            _update(found, text.encode())
        return found


class ShortSeal:
    """Makes and checks seals that are cheap enough for each record: the first half of an HMAC.

    It is over the value and a context that is not in the record, such as the name of the group.

    Parameters
    ----------
    begun : hmac.HMAC
        Of the context.
    """

    def __init__(self, begun: hmac.HMAC) -> None:
        self._begun = begun

    def of(self, value: bytes) -> bytes:
        """Return the seal of a value."""
        found = self._begun.copy()
        found.update(value)
        return found.digest()[:SHORT_BYTES]

    def holds(self, value: bytes | None, headers: Headers) -> bool:
        """Tell whether a record has a short seal, and it is right."""
        seal = dict(headers).get(SHORT_HEADER)
        return value is not None and hmac.compare_digest(seal or b"", self.of(value))


def _update(found: hmac.HMAC, text: bytes) -> None:
    found.update(len(text).to_bytes(8))  # so that no byte can move to the next one
    found.update(text)


def decode_sealed(decode: Callable[[bytes | None], T], record: Any, seal: Seal | None) -> T:
    """Return a record decoded, if its seal holds.

    Raises
    ------
    RecordError
        When it does not, or `seal` is ``None``, since there is no secret to check it with.
    """
    if seal is None or not seal.holds(record.topic, record.value, record.headers):
        raise RecordError("seal: it was not made with PREDICTOR_SECRET, so it does not count")
    return decode(record.value)


def read_seal(path: Path, make: bool = False) -> Seal | None:
    """Read the secret, a file of 64 hexadecimal digits.

    Parameters
    ----------
    make : bool
        Whether to make the file, with mode 0600, if there is none.

    Returns
    -------
    Seal or None
        ``None`` if there is none.

    Raises
    ------
    KeyFileError
        When the file holds something else, or others may read it or own it.
    OSError
    """
    if make and not path.exists():
        create_file(path, f"{secrets.token_hex(SECRET_BYTES)}\n".encode(), mode=0o600)
    try:
        content = read_file(path, check_private)
    except FileNotFoundError:
        return None
    try:
        secret = bytes.fromhex(content.decode())
    except ValueError:
        secret = b""
    if len(secret) < SECRET_BYTES:
        raise KeyFileError(f"{path}: expected {2 * SECRET_BYTES} hexadecimal digits or more")
    return Seal(secret)


def own_seal(
    settings: ModelLimits, log: logging.Logger | None = None, make: bool = False
) -> Seal | None:
    """Return the seal of the predictors, as ``PREDICTOR_SECRET`` names it.

    ``None``, with a warning once a minute on `log`, where there is none: then no seal holds.

    Raises
    ------
    Fatal
        When the file cannot be used.
    """
    path = settings.predictor_secret
    reason = "no such file; predictors make it at their first start, copy it from there"
    try:
        if seal := read_seal(path, make):
            return seal
    except KeyFileError as error:
        raise Fatal(f"PREDICTOR_SECRET={error}") from None
    except OSError as error:
        reason = str(error.strerror or error)
    if log:
        shared_warnings(log).warn(
            "secret",
            f"PREDICTOR_SECRET={path}: {reason}; without it, no service goes by what predictors say"
            " of models",
        )
    return None
