"""Reading JSON objects: decoded and checked by msgspec, refused with the field named first."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar, get_type_hints

import msgspec

T = TypeVar("T")

MAX_DEPTH = 500
"""Deepest nesting that is read. msgspec's own limit depends on Python's stack, so the same record
could be read by one service and refused by another."""

MAX_BYTES = 16 * 2**20
"""Longest value that is read. A compressed batch may hold longer ones than the brokers' limits say,
and a list of numbers takes ten times its size in memory."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_WORDS = {
    "Expected": "expected",
    "Integer": "integer",
    "Number": "number",
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a JSON object",
    "str": "a string",
    "|": "or",
}
"""msgspec's words, and what messages say instead."""


class RecordError(ValueError):
    """A record that does not keep the contract; the message names the field and what is allowed."""


def reader(kind: type[T], first: type[T] | None = None) -> Callable[[bytes | None], T]:
    """Return a function that reads a JSON object as a `kind` and ignores fields it does not know.

    Parameters
    ----------
    kind : type
        A msgspec struct, a dataclass or a dict. Where a field's annotation has a description,
        messages say it as what is allowed.
    first : type, optional
        A subclass with narrower fields, which is decoded faster: what it accepts is read as one.

    Returns
    -------
    callable
        Takes the bytes of a record. Raises `RecordError` where they are null, not JSON (NaN and
        Infinity are not), not an object, or where a field is missing, of another type or out of
        range.
    """
    decoder = msgspec.json.Decoder(kind)
    narrower = msgspec.json.Decoder(first) if first else None
    allowed = {
        field: meta.description
        for field, hint in get_type_hints(kind, include_extras=True).items()
        for meta in getattr(hint, "__metadata__", ())
        if meta.description
    }

    def read(value: bytes | None) -> T:
        if value is None:
            raise RecordError("value: expected a JSON object, got null")
        if len(value) > MAX_BYTES:
            raise RecordError(f"value: at most {MAX_BYTES} bytes, got {len(value)}")
        if len(value) > MAX_DEPTH and _too_deep(value):
            raise RecordError(f"value: not JSON: nested deeper than {MAX_DEPTH} levels")
        try:
            if narrower:
                try:  # suppress() takes half a microsecond, for each record
                    return narrower.decode(value)
                except msgspec.ValidationError:
                    pass
            try:
                return decoder.decode(value)
            except msgspec.ValidationError as error:
                raise RecordError(_explain(str(error), allowed, value)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            what = str(error).removeprefix("JSON is malformed: ")
            raise RecordError(f"value: not JSON: {what}") from None

    return read


def _explain(error: str, allowed: dict[str, str], value: bytes) -> str:
    """Say msgspec's error with the field first, what is allowed there, and what was found."""
    what, _, path = error.partition(" - at `$.")
    if what.startswith("Object missing"):
        return f"{what.split('`')[1]}: missing"
    field = path.rstrip("`").removesuffix("[...]")
    expected, _, found = what.replace("`", "").partition(", got ")
    if field in allowed:
        expected = f"expected {allowed[field]}"
    else:
        expected = re.sub(r"\w+|\|", lambda word: _WORDS.get(word[0], word[0]), expected)
    if field.isidentifier():
        found = _shown(msgspec.json.decode(value, type=dict[str, msgspec.Raw])[field])
    return f"{field or 'value'}: {expected}{found and ', got ' + found}"


def _shown(value: msgspec.Raw) -> str:
    """Show what stands in a field in few words, however large or deep it is."""
    try:
        found = msgspec.json.decode(value)
    except msgspec.ValidationError:
        return "a number too large"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    if isinstance(found, dict):
        return "an object"
    return repr(found[:40]) if isinstance(found, str) else bytes(value)[:40].decode()


def _too_deep(value: bytes) -> bool:
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    without_escapes = value.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = re.sub(rb'"[^"]*"', b"", without_escapes).translate(None, _NO_BRACKETS)
    depths = accumulate(1 if bracket in b"[{" else -1 for bracket in brackets)
    return max(depths, default=0) > MAX_DEPTH
