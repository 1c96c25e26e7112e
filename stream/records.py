"""The records on each topic but the models': how they are written and how they are read.

One JSON object a record. Readers ignore fields they do not know; fields are added, never changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import orjson

FEATURE_LIMIT = 3.4e38
"""A feature's largest absolute value: beyond it a forest's float32 overflows."""

FEATURES_LIMIT = 100_000
"""Most features that a record or a model may have."""

ID_LIMIT_BYTES = 256
REJECTED_VALUE_BYTES = 1_000

LARGEST_VERSION = 2**53
"""Nobody signs the status topic: a larger version there is a mistake that JSON could not carry."""

_NUMBERS_OR_NULL = {int, float, type(None)}


class RecordError(ValueError):
    """A record that does not keep the contract; the message names the field and what is allowed."""


class Record(NamedTuple):
    """A record of the data topic.

    Attributes
    ----------
    id : int or str
        At most 256 bytes; the producer's own name for the record.
    features : list of float or None
        Numbers within ±3.4e38, ``None`` for a missing one.
    label : int or None
        0 or 1; ``None`` where the record carries no label.
    """

    id: int | str
    features: list[float | None]
    label: int | None


class Prediction(NamedTuple):
    """A record of the prediction topic: one prediction and the running counts after it.

    Attributes
    ----------
    id : int or str
        The id of the record predicted.
    prediction : int
        0 or 1.
    probability : float or None
        Probability of label 1; ``None`` when the model gives none.
    label : int or None
        The record's label, looked at after the prediction.
    n, correct : int
        Counted predictions of this partition so far, and how many of them were right.
    model : int
        Version of the model that predicted.
    source : tuple of int
        Partition and offset of the record on the data topic.
    seen : bool
        Whether the model had been trained on this very record; it is not counted then.
    """

    id: int | str
    prediction: int
    probability: float | None
    label: int | None
    n: int
    correct: int
    model: int
    source: tuple[int, int]
    seen: bool = False

    @property
    def accuracy(self) -> float | None:
        """Running accuracy, ``None`` before the first counted prediction."""
        return self.correct / self.n if self.n else None


@dataclass(frozen=True)
class Rejected:
    """A record of the rejected topic: where it stood, why it was not predicted, how it began."""

    source: tuple[int, int]
    reason: str
    size: int
    value: str


@dataclass(frozen=True)
class Schema:
    """The record of the schema topic: what the features and the label are called."""

    feature_names: list[str]
    label: str
    positive: str


@dataclass(frozen=True)
class Status:
    """A record of the status topic: what a predictor did with a model.

    Attributes
    ----------
    version : int
        The model's version.
    status : str
        ``serving``, ``refused`` (never served) or ``barred`` (taken out of service).
    since : dict of str to int
        Partition to the offset of the first record that the model predicted there.
    reason : str or None
        Why it was refused or barred.
    replica : str
        The predictor's ``REPLICA``.
    """

    version: int
    status: str
    since: dict[str, int]
    reason: str | None
    replica: str


def parse(value: bytes | None) -> dict[str, Any]:
    """Read one JSON object.

    Raises
    ------
    RecordError
        When `value` is null, not JSON (NaN and Infinity are not), or not an object.
    """
    if value is None:
        raise RecordError("value: expected a JSON object, got null")
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"value: not JSON: {str(error)[:120]}") from None
    if type(fields) is not dict:
        raise RecordError(f"value: expected a JSON object, got {type(fields).__name__}")
    return fields


def encode_record(record: Record) -> bytes:
    """Write a record of the data topic; the label is left out where there is none."""
    fields: dict[str, Any] = {"id": record.id, "features": record.features}
    if record.label is not None:
        fields["label"] = record.label
    return orjson.dumps(fields)


def decode_record(value: bytes | None) -> Record:
    """Read a record of the data topic.

    Raises
    ------
    RecordError
        When it does not keep the contract; the message starts with the field's name.
    """
    fields = parse(value)
    return Record(_id(fields), _features(fields), _label(fields))


def encode_prediction(prediction: Prediction) -> bytes:
    """Write a record of the prediction topic; ``seen`` stands there only when true."""
    fields: dict[str, Any] = {
        "id": prediction.id,
        "prediction": prediction.prediction,
        "probability": prediction.probability,
        "label": prediction.label,
        "n": prediction.n,
        "correct": prediction.correct,
        "accuracy": prediction.accuracy,
        "model": prediction.model,
        "source": prediction.source,
    }
    if prediction.seen:
        fields["seen"] = True
    return orjson.dumps(fields)


def decode_prediction(value: bytes | None) -> Prediction:
    """Read a record of the prediction topic.

    Raises
    ------
    RecordError
        When a field is missing or of another type.
    """
    fields = parse(value)
    n = integer(fields, "n")
    return Prediction(
        _id(fields),
        integer(fields, "prediction", 0, 1),
        _probability(fields),
        _label(fields),
        n,
        integer(fields, "correct", 0, n),
        integer(fields, "model"),
        _source(fields),
        fields.get("seen") is True,
    )


def reject(source: tuple[int, int], value: bytes | None, reason: str) -> Rejected:
    """Describe a record that cannot be predicted, keeping its first 1,000 bytes."""
    value = value or b""
    start = value[:REJECTED_VALUE_BYTES].decode("utf-8", errors="replace")
    return Rejected(source, reason, len(value), start)


def encode_rejected(rejected: Rejected) -> bytes:
    """Write a record of the rejected topic."""
    return orjson.dumps(rejected)


def decode_rejected(value: bytes | None) -> Rejected:
    """Read a record of the rejected topic.

    Raises
    ------
    RecordError
        When a field is missing or of another type.
    """
    fields = parse(value)
    return Rejected(
        _source(fields), text(fields, "reason"), integer(fields, "size"), text(fields, "value")
    )


def encode_schema(schema: Schema) -> bytes:
    """Write the record of the schema topic."""
    return orjson.dumps(schema)


def decode_schema(value: bytes | None) -> Schema:
    """Read the record of the schema topic.

    Raises
    ------
    RecordError
        When a field is missing or of another type.
    """
    fields = parse(value)
    names = fields.get("feature_names")
    if type(names) is not list or not names or set(map(type, names)) != {str}:
        raise RecordError("feature_names: expected a list of names")
    if len(names) > FEATURES_LIMIT:
        raise RecordError(f"feature_names: at most {FEATURES_LIMIT}, got {len(names)}")
    return Schema(names, text(fields, "label", "label"), text(fields, "positive", "1"))


def encode_status(status: Status) -> bytes:
    """Write a record of the status topic."""
    return orjson.dumps(asdict(status))


def decode_status(value: bytes | None) -> Status:
    """Read a record of the status topic.

    Raises
    ------
    RecordError
        When a field is missing or of another type.
    """
    fields = parse(value)
    since = fields.get("since") or {}
    if type(since) is not dict:
        raise RecordError(f"since: expected partition to offset, got {type(since).__name__}")
    return Status(
        integer(fields, "version"),
        text(fields, "status"),
        {partition: integer(since, partition) for partition in since},
        None if fields.get("reason") is None else text(fields, "reason"),
        text(fields, "replica", ""),
    )


def integer(fields: dict[str, Any], name: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a field that is an integer from `least` to `most`.

    Raises
    ------
    RecordError
    """
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise RecordError(f"{name[:40]}: expected an integer of {least} to {most}, {_got(value)}")
    return value


def text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return a field that is a string; `default` where there is none.

    Raises
    ------
    RecordError
    """
    value = fields.get(name, default)
    if type(value) is not str:
        raise RecordError(f"{name}: expected a string, {_got(value)}")
    return value


def _got(value: object) -> str:
    """Say what a value is, in few words however large or deep it is."""
    if isinstance(value, str):
        return f"got {value[:40]!r}"
    return f"got {type(value).__name__ if isinstance(value, list | dict) else value}"


def _source(fields: dict[str, Any]) -> tuple[int, int]:
    source = fields.get("source")
    if type(source) is not list or len(source) != 2:
        raise RecordError("source: expected partition and offset")
    place = {"partition": source[0], "offset": source[1]}
    return integer(place, "partition"), integer(place, "offset")


def _probability(fields: dict[str, Any]) -> float | None:
    value = fields.get("probability")
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
        raise RecordError(f"probability: expected 0 to 1 or null, {_got(value)}")
    return value


def _id(fields: dict[str, Any]) -> int | str:
    if "id" not in fields:
        raise RecordError("id: missing")
    id: int | str = fields["id"]
    if type(id) is str:
        # Four bytes a character at most: only a long one is worth encoding to be measured.
        if len(id) > ID_LIMIT_BYTES // 4 and len(id.encode()) > ID_LIMIT_BYTES:
            raise RecordError(f"id: at most {ID_LIMIT_BYTES} bytes, got {len(id.encode())}")
    elif type(id) is not int:
        raise RecordError(f"id: expected a 64-bit integer or a string, got {type(id).__name__}")
    return id


def _features(fields: dict[str, Any]) -> list[float | None]:
    if "features" not in fields:
        raise RecordError("features: missing")
    features: list[float | None] = fields["features"]
    if type(features) is not list or not features:
        raise RecordError("features: expected a list of numbers")
    if len(features) > FEATURES_LIMIT:
        raise RecordError(f"features: at most {FEATURES_LIMIT}, got {len(features)}")
    if not set(map(type, features)) <= _NUMBERS_OR_NULL:
        index, feature = next(
            (i, f) for i, f in enumerate(features) if type(f) not in _NUMBERS_OR_NULL
        )
        raise RecordError(
            f"features[{index}]: expected a number or null, got {type(feature).__name__}"
        )
    numbers = [f for f in features if f is not None]
    if numbers and not (max(numbers) <= FEATURE_LIMIT and min(numbers) >= -FEATURE_LIMIT):
        index = next(i for i, f in enumerate(features) if f is not None and abs(f) > FEATURE_LIMIT)
        raise RecordError(f"features[{index}]: expected a number within ±{FEATURE_LIMIT:g}")
    return features


def _label(fields: dict[str, Any]) -> int | None:
    label = fields.get("label")
    if label is None:
        return None
    if type(label) is not int or label not in (0, 1):
        raise RecordError(f"label: expected 0 or 1, {_got(label)}")
    return label
