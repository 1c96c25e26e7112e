"""The records of every topic but the model topic: how they are written and read.

One JSON object a record. Readers ignore fields they do not know; fields are added, never changed.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from stream.decoding import RecordError as RecordError
from stream.decoding import reader
from stream.quoting import shown

FEATURE_LIMIT = 3.4e38
"""A feature's largest absolute value: beyond it a forest's float32 overflows."""

FEATURES_LIMIT = 100_000
"""Most features that a record or a model may have."""

NORMAL_CHARACTERS = 256
"""Longest text that is brought into the one Unicode form."""

ID_LIMIT_BYTES = 256
CATEGORY_BYTES = 256
"""Longest category, in UTF-8, as it is sent."""

REJECTED_VALUE_BYTES = 1_000

LARGEST_VERSION = 2**53
"""Largest version that a status may name; many readers of JSON round larger integers."""

Id = Annotated[int | str, Meta(description="a 64-bit integer or a string")]
Number = Annotated[float, Meta(ge=-FEATURE_LIMIT, le=FEATURE_LIMIT)] | None
Feature = Number | str | bool
"""A feature as a producer sends it."""
Cell = float | str | None
"""A feature as a model takes it: a number, a category, or nothing where it is missing."""
ZeroOrOne = Annotated[int, Meta(ge=0, le=1, description="0 or 1")]
OptionalLabel = Annotated[ZeroOrOne | None, Meta(description="0 or 1")]
_LABELS = Meta(description="0 or 1, true or false, or a text of the schema")
GivenLabel = Annotated[ZeroOrOne | bool | str, _LABELS]
OptionalGivenLabel = Annotated[ZeroOrOne | bool | str | None, _LABELS]
Probability = Annotated[
    Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="0 to 1 or null")
]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Source = Annotated[tuple[Count, Count], Meta(description="partition and offset")]
Milliseconds = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Type = Literal["number", "category", "time"]
Types = Annotated[list[Type], Meta(description="a list of number, category and time")]
OutcomeKind = Literal["labelled", "revised", "assumed"]
Offsets = Annotated[dict[str, Count], Meta(description="partition to offset")]


def normal(text: str) -> str:
    r"""Return a text in the one Unicode form (NFC) in which names, categories and labels compare.

    A text of more than 256 characters stays as it is: the time to normalize one grows with the
    square of its length.

    Examples
    --------
    >>> normal("Zu\u0308rich") == "Zürich"
    True
    """
    return unicodedata.normalize("NFC", text) if len(text) <= NORMAL_CHARACTERS else text


_ONE_TO_LIMIT = Meta(min_length=1, max_length=FEATURES_LIMIT)


def _list_of(what: str) -> Meta:
    return Meta(description=f"a list of 1 to {FEATURES_LIMIT} {what}")


# Structs, not dataclasses, where there is one for each record: they are made much faster.


class Record(Struct, frozen=True, omit_defaults=True, gc=False):
    """A record of the data topic, as a producer sends it.

    Attributes
    ----------
    id : int or str
        At most 256 bytes; the producer's own name for the record.
    features : list or dict
        Numbers within ±3.4e38, texts, true or false, ``None`` for a missing one; in the order of
        the schema, or by the names that it gives.
    label : int, bool, str or None
        0 or 1, or what the schema says for them; ``None`` where the record carries no label.
    """

    id: Id
    features: Annotated[
        Annotated[Sequence[Feature], _ONE_TO_LIMIT]
        | Annotated[Mapping[str, Feature], _ONE_TO_LIMIT],
        _list_of("numbers, texts, true, false or null, or an object of them"),
    ]
    label: OptionalGivenLabel = None


class ModelInput(Record, frozen=True, omit_defaults=True, gc=False):
    """A record as a model takes it, from `stream.layout.Layout`.

    Attributes
    ----------
    features : list of float, str or None
        In the order of the model's features.
    label : int or None
        0 or 1.
    """

    features: Sequence[Cell]
    label: OptionalLabel = None


class Numbers(ModelInput, frozen=True, omit_defaults=True, gc=False):
    """A record of numbers alone, whose label is 0 or 1: what most streams have, read fastest."""

    features: Annotated[Sequence[Number], _ONE_TO_LIMIT]
    label: OptionalLabel = None


class Label(Struct, frozen=True, omit_defaults=True, gc=False):
    """A record of the label topic: the label of a record that was sent without one.

    Attributes
    ----------
    label : int, bool or str
        0 or 1, or what the schema says for them.
    id : int, str or None
        The id of the record; the newest prediction of that id that waits is meant.
    source : tuple of int or None
        Partition and offset of the record on the data topic: exact where ids repeat. One of `id`
        and `source` is given; with both, they have to be of the same record.
    revises : bool
        Whether this corrects a label that was given before.
    """

    label: GivenLabel
    id: Annotated[Id | None, Meta(description="a 64-bit integer or a string")] = None
    source: Annotated[Source | None, Meta(description="partition and offset")] = None
    revises: bool = False


class Prediction(Struct, frozen=True, gc=False):
    """A record of the prediction topic: one prediction and the running counts after it.

    With an `outcome`, it is a prediction that was made before and that now meets its label.

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
    time : int or None
        Timestamp of the record in ms since 1970; ``None`` where it has none.
    outcome : str or None
        ``labelled`` by a label that came later, ``revised`` by a label that corrects one, or
        ``assumed`` since no label came (``LABEL_ASSUME``). ``None`` when the prediction is made.
    labelled : tuple of int or None
        Partition and offset of the label on the label topic.
    delay : float or None
        Seconds from the record's timestamp to the label's.
    """

    id: Id
    prediction: ZeroOrOne
    probability: Probability
    label: OptionalLabel
    n: Count
    correct: Count
    model: Count
    source: Source
    seen: bool = False
    time: Milliseconds | None = None
    outcome: OutcomeKind | None = None
    labelled: Annotated[Source | None, Meta(description="partition and offset")] = None
    delay: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Running accuracy, ``None`` before the first counted prediction."""
        return self.correct / self.n if self.n else None

    @property
    def counts(self) -> bool:
        """Whether `n` rises by one with this record."""
        return self.label is not None and not self.seen and self.outcome in (None, "labelled")


class Rejected(Struct, frozen=True, omit_defaults=True, gc=False):
    """A record of a topic of rejected records: where it stood, why it was rejected, how it began.

    Attributes
    ----------
    source : tuple of int
        Partition and offset of the record on the data topic, or of the label on the label topic; of
        a batch that cannot be decoded, the first offset.
    size : int
        Bytes of the value, or of the batch.
    value : str
        How the value begins, in at most 1,000 bytes as they are written; empty for a batch.
    until : int or None
        The last offset of a batch that cannot be decoded: all from `source` on are rejected.
    """

    source: Source
    reason: str
    size: Count
    value: str
    until: Count | None = None

    @property
    def last(self) -> int:
        """The last offset that is rejected."""
        return self.source[1] if self.until is None else self.until


@dataclass(frozen=True)
class Schema:
    """The record of the schema topic: what the features and the label are called.

    Attributes
    ----------
    positive, negative : str or None
        The texts of the labels 1 and 0.
    types : list of str or None
        The type of each feature: ``number``, ``category`` or ``time``; ``None``: all are numbers.
    file_columns : dict of str to str
        How the datagenerator reads each column of its file, or why it leaves it out; others ignore
        it.
    """

    feature_names: Annotated[list[str], _ONE_TO_LIMIT, _list_of("names")]
    label: str = "label"
    positive: str = "1"
    file_columns: dict[str, str] = field(default_factory=dict, compare=False)
    types: Types | None = None
    negative: str | None = None


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

    version: Count
    status: str
    since: Offsets = field(default_factory=dict)
    reason: str | None = None
    replica: str = ""


parse = reader(dict)
"""Read one JSON object without checking its fields."""

_read_record = reader(Record, first=Numbers)
_read_label = reader(Label)
_read_prediction = reader(Prediction)
_read_rejected = reader(Rejected)

_read_schema = reader(Schema)

decode_status = reader(Status)
"""Read a record of the status topic."""


def encode(record: Record | Label | Rejected | Status) -> bytes:
    """Write a record; the label of a data record is left out where there is none."""
    return msgspec.json.encode(record)


encode_record = encode_label = encode_rejected = encode_status = encode


def encode_schema(schema: Schema) -> bytes:
    """Write the record of the schema topic; fields that say nothing are left out."""
    given = {name: value for name, value in asdict(schema).items() if value not in (None, {})}
    return msgspec.json.encode(given)


def decode_schema(value: bytes | None) -> Schema:
    """Read the record of the schema topic.

    Raises
    ------
    RecordError
        When it does not keep the contract; the message starts with the field's name.
    """
    schema = _read_schema(value)
    names = Counter(map(normal, schema.feature_names))
    if schema.types and len(schema.types) != names.total():
        raise RecordError(f"types: expected {names.total()}, one each, got {len(schema.types)}")
    if schema.types and len(names) < names.total():
        twice = shown(names.most_common(1)[0][0])
        raise RecordError(f"feature_names: {twice} is there twice; types need one each")
    if schema.negative is not None and normal(schema.negative) == normal(schema.positive):
        raise RecordError(f"negative: {shown(schema.negative)}, as positive is")
    return replace(schema, feature_names=[normal(name) for name in schema.feature_names])


def decode_record(value: bytes | None) -> Record:
    """Read a record of the data topic.

    Raises
    ------
    RecordError
        When it does not keep the contract; the message starts with the field's name.
    """
    try:
        record = _read_record(value)
    except RecordError as error:
        raise _of_feature(value) or error from None
    _check_id(record.id)
    return record


def decode_label(value: bytes | None) -> Label:
    """Read a record of the label topic.

    Raises
    ------
    RecordError
        When it does not keep the contract; the message starts with the field's name.
    """
    label = _read_label(value)
    if label.id is not None:
        _check_id(label.id)
    elif label.source is None:
        raise RecordError("id: missing, and so is source; one of them has to be given")
    return label


def decode_prediction(value: bytes | None) -> Prediction:
    """Read a record of the prediction topic.

    Raises
    ------
    RecordError
        When a field is missing, of another type or out of range.
    """
    prediction = _read_prediction(value)
    _check_id(prediction.id)
    if prediction.correct > prediction.n:
        raise RecordError(f"correct: expected 0 to {prediction.n}, got {prediction.correct}")
    if prediction.outcome and prediction.label is None:
        raise RecordError(f"label: missing, and outcome is {prediction.outcome}")
    if (prediction.labelled is None) != (prediction.outcome in (None, "assumed")):
        raise RecordError(f"labelled: does not fit the outcome {prediction.outcome}")
    if prediction.labelled is None and prediction.delay is not None:
        raise RecordError("delay: given, and labelled is not")
    return prediction


def encode_prediction(prediction: Prediction) -> bytes:
    """Write a record of the prediction topic; fields that do not apply are left out."""
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
    if prediction.time is not None:
        fields["time"] = prediction.time
    if prediction.outcome:
        fields["outcome"] = prediction.outcome
        if prediction.labelled:
            fields |= {"labelled": prediction.labelled, "delay": prediction.delay}
    return msgspec.json.encode(fields)


def decode_rejected(value: bytes | None) -> Rejected:
    """Read a record of a topic of rejected records.

    Raises
    ------
    RecordError
        When a field is missing, of another type or out of range.
    """
    rejected = _read_rejected(value)
    if rejected.last < (first := rejected.source[1]):
        raise RecordError(f"until: expected {first} or more, got {rejected.until}")
    return rejected


def reject(source: tuple[int, int], value: bytes | None, reason: str) -> Rejected:
    """Describe a record that cannot be used, and keep how its value begins."""
    value = value or b""
    start = value[:REJECTED_VALUE_BYTES].decode("utf-8", errors="replace")
    if _written(start) > REJECTED_VALUE_BYTES:
        lengths = range(len(start))
        fitting = bisect(lengths, REJECTED_VALUE_BYTES, key=lambda n: _written(start[:n]))
        start = start[: fitting - 1]
    return Rejected(source, reason, len(value), start)


def _written(text: str) -> int:
    """Return how many bytes a text takes as JSON, where a control character takes six."""
    return len(msgspec.json.encode(text)) - len('""')


def _of_feature(value: bytes | None) -> RecordError | None:
    """Name the feature that is at fault where features come by name: msgspec does not."""
    with suppress(RecordError):
        features = parse(value).get("features")
        for name, feature in features.items() if isinstance(features, dict) else ():
            if isinstance(feature, list | dict):
                return RecordError(f"features {shown(name)}: expected one value, got several")
            if isinstance(feature, float | int) and abs(feature) > FEATURE_LIMIT:
                return RecordError(f"features {shown(name)}: expected a number within ±3.4e38")
    return None


def _check_id(id: int | str) -> None:
    if isinstance(id, int):
        if not -(2**63) <= id < 2**64:
            raise RecordError(f"id: expected a 64-bit integer or a string, got {str(id)[:40]}")
    # Four bytes a character at most: only a long one is worth encoding to be measured.
    elif len(id) > ID_LIMIT_BYTES // 4 and (size := len(id.encode())) > ID_LIMIT_BYTES:
        raise RecordError(f"id: at most {ID_LIMIT_BYTES} bytes, got {size}")
