"""The part of `tests/checker.py` that lays records out for a model, as its envelope says."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

Row = list[Any]


def label_of(text: str, envelope: dict[str, Any]) -> int | None:
    """Return what the text of a label means; ``None`` if the model has another text for each."""
    if envelope.get("negative") is None or envelope.get("positive") is None:
        return None
    texts = [_nfc(envelope["negative"]), _nfc(envelope["positive"])]
    return texts.index(_nfc(text)) if _nfc(text) in texts else None


def row_of(where: str, record: dict[str, Any], envelope: dict[str, Any]) -> Row:
    """Return the features of a record that was predicted, in the model's order."""
    given, width = record["features"], envelope["features"]
    if isinstance(given, dict):
        names = [_nfc(name) for name in envelope["feature_names"]]
        assert len(set(names)) == width, f"{where}: an object, and names that repeat"
        by_name = {_nfc(name): value for name, value in given.items()}
        assert by_name.keys() <= set(names), f"{where}: {given} has other names than {names}"
        given = [by_name.get(name) for name in names]
    assert len(given) == width, f"{where}: {len(given)} features, the model has {width}"
    return [
        _cell(f"{where}: feature {at}", value, kind)
        for at, (value, kind) in enumerate(zip(given, _types(envelope), strict=True))
    ]


def matrix_of(rows: list[Row], envelope: dict[str, Any]) -> Any:
    """Return rows as the model was given them: a data frame where there are categories."""
    types = _types(envelope)
    if "category" not in types:
        return np.array(rows, dtype=float)
    frame = pd.DataFrame(rows, columns=envelope["feature_names"], dtype=object)
    for at, kind in enumerate(types):
        name = frame.columns[at]
        if kind == "category":
            frame[name] = frame[name].where(frame[name].notna(), np.nan)
        else:
            frame[name] = frame[name].astype(float)
    return frame


def _types(envelope: dict[str, Any]) -> list[str]:
    return envelope.get("types") or ["number"] * envelope["features"]


def _cell(where: str, value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "number":
        assert isinstance(value, int | float), f"{where}: {value!r} is no number"
        return float(value)
    assert isinstance(value, str), f"{where}: {value!r} is no text"
    if kind == "category":
        assert len(value.encode()) <= 256, f"{where}: {value!r} is too long"
        return _nfc(value)
    time = datetime.fromisoformat(value)
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
