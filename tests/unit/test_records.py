from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from stream.decoding import MAX_BYTES
from stream.models import pack, unpack
from stream.records import (
    FEATURE_LIMIT,
    ID_LIMIT_BYTES,
    REJECTED_VALUE_BYTES,
    Prediction,
    Record,
    RecordError,
    Rejected,
    Schema,
    Status,
    decode_label,
    decode_prediction,
    decode_record,
    decode_rejected,
    decode_schema,
    decode_status,
    encode_label,
    encode_prediction,
    encode_record,
    encode_rejected,
    encode_schema,
    encode_status,
    parse,
    reject,
)

FEATURES = (
    "expected a list of 1 to 100000 numbers, texts, true, false or null, or an object of them"
)
LABELS = "expected 0 or 1, true or false, or a text of the schema"
EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "records").glob("*.json"))


def _model_again(value: bytes) -> bytes:
    part = unpack(value)
    (message,) = pack(part.envelope, part.pickle, None)
    return message.value


AGAIN: dict[str, Callable[[bytes], bytes]] = {
    "label": lambda value: encode_label(decode_label(value)),
    "data": lambda value: encode_record(decode_record(value)),
    "schema": lambda value: encode_schema(decode_schema(value)),
    "model": _model_again,
    "status": lambda value: encode_status(decode_status(value)),
    "prediction": lambda value: encode_prediction(decode_prediction(value)),
    "rejected": lambda value: encode_rejected(decode_rejected(value)),
}
"""Topic to reading and writing a record of it; examples are <topic>.json or <topic>-….json."""

ints = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
ids = ints | texts.filter(lambda text: len(text.encode()) <= ID_LIMIT_BYTES)
numbers = st.floats(-FEATURE_LIMIT, FEATURE_LIMIT) | ints
labels = st.sampled_from([0, 1, None])
sources = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
records = st.builds(Record, ids, st.lists(numbers | st.none(), min_size=1), labels)
counts = st.integers(0, 2**53)
statuses = st.builds(
    Status,
    st.integers(1),
    st.sampled_from(["serving", "refused", "barred"]),
    st.dictionaries(st.integers(0, 99).map(str), counts),
    st.none() | texts,
    texts,
).filter(lambda status: status.version < 2**63)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    n = draw(counts)
    return Prediction(
        draw(ids),
        draw(st.sampled_from([0, 1])),
        draw(st.none() | st.floats(0, 1)),
        draw(labels),
        n,
        draw(st.integers(0, n)),
        draw(st.integers(1, 2**31)),
        draw(sources),
        draw(st.booleans()),
    )


def value_of(**fields: Any) -> bytes:
    """Encode a record of the data topic with some fields changed, or left out as ``...``."""
    found = {"id": 17, "features": [0.5, 1], "label": 1} | fields
    return json.dumps({k: v for k, v in found.items() if v is not ...}).encode()


def test_every_topic_has_an_example() -> None:
    assert {path.stem.partition("-")[0] for path in EXAMPLES} == set(AGAIN)


def pairs(value: bytes) -> list[Any]:
    """Return the fields of a record in their order."""
    return list(json.loads(value, object_pairs_hook=list))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_comes_back_with_the_same_fields_in_the_same_order(path: Path) -> None:
    value = path.read_bytes()
    assert pairs(AGAIN[path.stem.partition("-")[0]](value)) == pairs(value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_fields_that_are_not_known_are_ignored(path: Path) -> None:
    value = path.read_bytes()
    more = orjson.dumps({"since_tomorrow": [1, {}]} | orjson.loads(value))
    assert pairs(AGAIN[path.stem.partition("-")[0]](more)) == pairs(value)


def test_a_records_field_order_is_the_contracts() -> None:
    assert encode_record(Record(17, [0.12, None], 1)) == (
        b'{"id":17,"features":[0.12,null],"label":1}'
    )


@given(records)
def test_a_record_comes_back_as_it_went(record: Record) -> None:
    features = [None if feature is None else float(feature) for feature in record.features]
    expected = {"id": record.id, "features": features, "label": record.label}
    assert asdict(decode_record(encode_record(record))) == expected


@given(predictions())
def test_a_prediction_comes_back_as_it_went(prediction: Prediction) -> None:
    value = encode_prediction(prediction)
    assert decode_prediction(value) == prediction
    accuracy = json.loads(value)["accuracy"]
    assert accuracy == (prediction.correct / prediction.n if prediction.n else None)
    assert ("seen" in json.loads(value)) == prediction.seen


@given(st.builds(Rejected, sources, texts, counts, texts))
def test_a_rejected_record_comes_back_as_it_went(rejected: Rejected) -> None:
    assert decode_rejected(encode_rejected(rejected)) == rejected


@given(statuses)
def test_a_status_comes_back_as_it_went(status: Status) -> None:
    assert decode_status(encode_status(status)) == status


@given(st.builds(Schema, st.lists(texts, min_size=1), texts, texts))
def test_a_schema_comes_back_as_it_went(schema: Schema) -> None:
    assert decode_schema(encode_schema(schema)) == schema


@given(st.none() | st.binary(), sources)
def test_any_bytes_can_be_rejected_and_read_again(
    value: bytes | None, source: tuple[int, int]
) -> None:
    rejected = reject(source, value, "reason")
    assert rejected.size == len(value or b"")
    assert decode_rejected(encode_rejected(rejected)) == rejected


def test_a_rejected_batch_ends_where_it_begins_or_later() -> None:
    batch = Rejected((0, 5), "reason", 99, "", until=7)
    assert (batch.last, decode_rejected(encode_rejected(batch))) == (7, batch)
    assert reject((0, 5), b"", "reason").last == 5
    with pytest.raises(RecordError, match="until: expected 8 or more, got 7"):
        decode_rejected(encode_rejected(Rejected((0, 8), "reason", 99, "", until=7)))


def test_a_rejected_record_keeps_the_first_1000_bytes() -> None:
    rejected = reject((0, 1), b"x" * 900_000, "too wide")
    assert (rejected.size, rejected.value) == (900_000, "x" * REJECTED_VALUE_BYTES)


def test_a_character_cut_in_two_is_left_out_of_a_rejected_record() -> None:
    value = "é".encode() * REJECTED_VALUE_BYTES
    assert reject((0, 1), b"x" + value, "r").value == "x" + "é" * 499


@given(st.binary(max_size=1_200) | st.text(max_size=1_200).map(str.encode))
@example(bytes(1_000))
@example(b"\xff" * 1_000)
@example(b'"' * 1_000)
def test_what_a_rejected_record_keeps_takes_at_most_1000_bytes_as_written(value: bytes) -> None:
    rejected = reject((0, 1), value, "r")
    without = len(encode_rejected(replace(rejected, value="")))
    kept = len(encode_rejected(rejected)) - without
    assert kept <= REJECTED_VALUE_BYTES
    assert value.decode(errors="replace").startswith(rejected.value)
    assert kept >= min(len(value), REJECTED_VALUE_BYTES - 12) or len(value) > REJECTED_VALUE_BYTES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "value: expected a JSON object, got null"),
        (b"", "value: not JSON"),
        (b"not json", "value: not JSON"),
        (b"[1]", "value: expected a JSON object, got array"),
        (b"\xff{}", "value: not JSON"),
        (b'{"id": 1, "features": [NaN]}', "value: not JSON"),
        (b'{"id": 1, "features": [Infinity]}', "value: not JSON"),
        (
            b'{"id": 1, "features": [1e39], "label": 1}',
            r"features\[0\]: expected a number <= 3.4e\+38",
        ),
        (value_of(features=[0.1, -3.5e38]), r"features\[1\]: expected a number >= -3.4e\+38"),
        (value_of(features=[0.1, ["2"]]), r"features\[1\]: .* got array"),
        (value_of(features=[[1]]), r"features\[0\]: .* got array"),
        (value_of(features=[]), f"features: {FEATURES}, got a list of 0"),
        (value_of(features={}), f"features: {FEATURES}, got an object"),
        (value_of(features=7), f"features: {FEATURES}, got 7"),
        (
            value_of(features={"a": 1, "b\n": [1]}),
            r"features 'b\\n': expected one value, got several",
        ),
        (value_of(features={"a": {}}), "features 'a': expected one value, got several"),
        (value_of(features={"a": 1e39}), "features 'a': expected a number within ±3.4e38"),
        (value_of(features=...), "features: missing"),
        (value_of(id=...), "id: missing"),
        (value_of(id=1.5), "id: expected a 64-bit integer or a string, got 1.5"),
        (value_of(id=True), "id: .* got true"),
        (value_of(id=None), "id: .* got null"),
        (value_of(id=2**70), "id: .* got 1180591620717411303424"),
        (value_of(id="x" * 257), "id: at most 256 bytes, got 257"),
        (value_of(id="é" * 129), "id: at most 256 bytes, got 258"),
        (value_of(id="x" * 2**20), "id: at most 256 bytes, got 1048576"),
        (value_of(label=2), f"label: {LABELS}, got 2"),
        (value_of(label=1.0), f"label: {LABELS}, got 1.0"),
        (value_of(label=[1]), f"label: {LABELS}, got a list of 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:60],
)
def test_a_record_that_breaks_the_contract_names_the_field_and_what_is_allowed(
    value: bytes | None, message: str
) -> None:
    with pytest.raises(RecordError, match=f"^{message}"):
        decode_record(value)


@pytest.mark.parametrize("id", ["x" * 256, "é" * 128, "", 0, -1, 2**63])
def test_an_id_of_up_to_256_bytes_is_allowed(id: int | str) -> None:
    assert decode_record(value_of(id=id)).id == id


@pytest.mark.parametrize("feature", [3.4e38, -3.4e38, 0, 2**53, 5e-324, None])
def test_a_feature_up_to_the_limit_is_allowed(feature: float | None) -> None:
    assert decode_record(value_of(features=[feature])).features == [feature]


@pytest.mark.parametrize("label", [None, ...])
def test_a_label_that_is_null_or_absent_is_none(label: Any) -> None:
    assert decode_record(value_of(label=label)).label is None


@pytest.mark.parametrize(
    "text", ["[" * 1_000, '\\"[' * 1_000, '\\\\"'], ids=["plain", "quotes", "end"]
)
def test_brackets_in_a_string_are_not_nesting(text: str) -> None:
    other = "[" * 1_000 + "]" * 1_000
    value = json.dumps({"id": 1, "features": [1], "note": text, "other": other}).encode()
    assert decode_record(value).id == 1


@pytest.mark.parametrize("depth", [499, 500])
def test_json_is_read_up_to_a_depth_that_does_not_depend_on_the_stack(depth: int) -> None:
    value = b'{"id":1,"features":[1],"note":%b}' % (b"[" * depth + b"]" * depth)
    if depth < 500:  # the record itself is a level
        assert decode_record(value).id == 1
    else:
        with pytest.raises(RecordError, match="nested deeper than 500 levels"):
            decode_record(value)


def test_a_value_of_more_than_16_mib_is_refused_before_it_is_read() -> None:
    largest = b'{"id":1,"features":[1]}'.ljust(MAX_BYTES)
    assert decode_record(largest).id == 1
    with pytest.raises(RecordError, match="value: at most 16777216 bytes, got 16777217"):
        decode_record(largest + b" ")


def test_a_number_too_large_for_a_double_is_no_feature() -> None:
    with pytest.raises(RecordError):
        decode_record(b'{"id": 1, "features": [1e400], "label": 1}')
    assert math.isinf(float("1e400"))


def test_an_object_is_read_whole_or_not_at_all() -> None:
    with pytest.raises(RecordError, match="not JSON"):
        parse(b'{"id": 1} {"id": 2}')
