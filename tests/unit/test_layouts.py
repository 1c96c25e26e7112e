from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import layout as module
from stream.layout import LOOKED_AT, Layout
from stream.records import (
    FEATURES_LIMIT,
    ModelInput,
    Numbers,
    Record,
    RecordError,
    Schema,
    Type,
    decode_record,
    encode_record,
)

CAFE, CAFE_IN_TWO = "caf\u00e9", "cafe\u0301"
NAMES = ["age", "plan", "since"]
TYPES: list[Type] = ["number", "category", "time"]
LAYOUT = Layout(3, NAMES, TYPES, "yes", "no")
TEXT = "a text of at most 256 bytes"
TIME = "a time in ISO 8601, such as 2026-12-31 or 2026-12-31T10:00:00Z"


def sent(features: Any, label: Any = None) -> Record:
    """What a producer sends, decoded."""
    return decode_record(msgspec.json.encode({"id": 1, "features": features, "label": label}))


def row(features: Any, layout: Layout = LAYOUT) -> list[Any]:
    return [*layout.read(sent(features)).features]


def refusal(features: Any, label: Any = None, layout: Layout = LAYOUT) -> str:
    with pytest.raises(RecordError) as error:
        layout.read(sent(features, label))
    return str(error.value)


def test_a_list_is_laid_out_in_its_order_and_an_object_by_its_names() -> None:
    expected = [39.0, "pro", 0.0]
    assert row([39, "pro", "1970-01-01"]) == expected
    assert row({"since": "1970-01-01", "age": 39, "plan": "pro"}) == expected


def test_a_name_that_is_missing_is_null() -> None:
    assert row({"plan": "pro"}) == [None, "pro", None]


def test_true_and_false_are_numbers() -> None:
    assert row([True, None, None]) == [1.0, None, None]
    assert row({"a": False}, Layout(1, ["a"])) == [0.0]
    assert row([True, 0.5, None], Layout()) == [1.0, 0.5, None]


def test_numbers_alone_are_taken_as_they_were_decoded() -> None:
    record = sent([1, 2.5, None], 1)
    assert type(record) is Numbers
    assert Layout(3).read(record) is record
    assert Layout().read(record) is record


def test_numbers_with_a_text_or_true_as_label_are_laid_out_too() -> None:
    layout = Layout(2, ["a", "b"], None, "yes", "no")
    assert layout.read(sent([1, None], "yes")) == ModelInput(1, [1.0, None], 1)
    assert layout.read(sent([1, None], False)) == ModelInput(1, [1.0, None], 0)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["39", "pro", None], "features[0] 'age': expected a number, got '39'"),
        ([39, 7, None], f"features[1] 'plan': expected {TEXT}, got 7"),
        ([39, 8010001, None], f"features[1] 'plan': expected {TEXT}, got 8010001"),
        ([39, True, None], f"features[1] 'plan': expected {TEXT}, got true"),
        ([39, "pro", 1.5], f"features[2] 'since': expected {TIME}, got 1.5"),
        ([39, "pro", False], f"features[2] 'since': expected {TIME}, got false"),
        ([39, "pro", "31.12.2026"], f"features[2] 'since': expected {TIME}, got '31.12.2026'"),
        ([39, "pro", ""], f"features[2] 'since': expected {TIME}, got ''"),
        ({"plan": 7}, f"features[1] 'plan': expected {TEXT}, got 7"),
        ([39, "x" * 257, None], f"features[1] 'plan': expected {TEXT}, got '{'x' * 40}…'"),
        ([39, "a\n\x1b" + "x" * 300, None], f"expected {TEXT}, got 'a\\n\\x1b{'x' * 37}…'"),
        ([39, "pro"], "features: expected 3 features, got 2"),
        ({"plna": "pro"}, "features: the stream has no 'plna'; nearest is 'plan'"),
        ({"Age": 39}, "features: the stream has no 'Age'; nearest is 'age'"),
        ({"a\nge": 39}, "features: the stream has no 'a\\nge'; nearest is 'age'"),
        ({"s" * 500: 39}, f"features: the stream has no '{'s' * 40}…'; nearest is 'since'"),
        ({CAFE: 1, CAFE_IN_TWO: 2}, "features: a name is given twice, in two forms of Unicode"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:40],
)
def test_what_does_not_fit_is_named_with_its_value_and_its_type(
    features: Any, message: str
) -> None:
    assert refusal(features).endswith(message)


@pytest.mark.parametrize(
    ("layout", "features", "message"),
    [
        (Layout(2), [1.0], "features: expected 2 numbers, got 1"),
        (Layout(2), [1.0, "2"], "features[1]: expected a number, got '2'"),
        (Layout(), ["2"], "features[0]: expected a number, got '2'"),
        (
            Layout(),
            {"a": 1},
            "features: an object needs a schema with the names of the features",
        ),
        (Layout(2, ["a", "a"]), {"a": 1}, "features: the schema names 'a' twice; send a list"),
        (Layout(2, ["a", "a"]), {}, ""),
    ],
)
def test_numbers_that_do_not_fit_are_named(layout: Layout, features: Any, message: str) -> None:
    if not message:  # an object without a name is no record
        with pytest.raises(RecordError, match="features: expected a list of 1 to"):
            sent(features)
        return
    assert refusal(features, layout=layout) == message


def test_names_categories_and_labels_compare_in_one_form_of_unicode() -> None:
    layout = Layout(1, [CAFE_IN_TWO], ["category"], CAFE_IN_TWO, "no")
    found = layout.read(sent({CAFE: CAFE_IN_TWO}, CAFE))
    assert found == ModelInput(1, [CAFE], 1)
    assert layout.read(sent({CAFE_IN_TWO: CAFE}, "no")) == ModelInput(1, [CAFE], 0)


def test_a_model_gets_columns_with_the_names_that_it_was_fitted_with() -> None:
    frame = Layout(1, [CAFE_IN_TWO], ["category"]).matrix([["x"]])
    assert [*frame.columns] == [CAFE_IN_TWO]


@pytest.mark.parametrize("text", ["x" * 256, "é" * 128, "\U0001f600" * 64, "", " ", "null"])
def test_a_category_is_any_text_of_up_to_256_bytes(text: str) -> None:
    assert row([None, text, None])[1] == text


@pytest.mark.parametrize("text", ["é" * 129, "\U0001f600" * 65, "a\u0301" * 100])
def test_a_category_is_measured_in_bytes_as_it_is_sent(text: str) -> None:
    assert refusal([None, text, None]).startswith(f"features[1] 'plan': expected {TEXT}, got ")


def test_a_text_that_would_take_minutes_to_normalize_is_refused_at_once() -> None:
    marks = "\u0301\u0316" * 1_000_000
    assert refusal([None, marks, None]).startswith(f"features[1] 'plan': expected {TEXT}, got ")
    assert refusal({marks: 1}).startswith("features: the stream has no ")
    assert refusal([None, None, None], marks).startswith("label: expected 0 or 1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0.0),
        ("1970-01-02", 86_400.0),
        ("1970-01-01T00:00:01", 1.0),
        ("1970-01-01 00:00:01", 1.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:01+01:00", 1.0),
        ("1969-12-31T19:00:00-05:00", 0.0),
        ("1970-01-01T00:00:00.25", 0.25),
        ("1970-01-01T00:00:00.250000Z", 0.25),
        ("19700101T000001Z", 1.0),
        ("0001-01-01", -62_135_596_800.0),
        ("0001-01-01T00:00:00+10:00", -62_135_632_800.0),
        ("9999-12-31", 253_402_214_400.0),
        ("9999-12-31T23:59:59-10:00", 253_402_336_799.0),
    ],
)
def test_a_time_is_seconds_since_1970(text: str, seconds: float) -> None:
    assert row([None, None, text])[2] == seconds


@pytest.mark.parametrize("text", ["0000-01-01", "10000-01-01", "2026-02-30", "now", "x" * 100_000])
def test_what_is_no_time_of_the_years_1_to_9999_is_refused(text: str) -> None:
    assert refusal([None, None, text]).startswith(f"features[2] 'since': expected {TIME}, got ")


@pytest.mark.parametrize(
    ("label", "expected"), [(0, 0), (1, 1), (True, 1), (False, 0), ("yes", 1), ("no", 0)]
)
def test_a_label_is_0_or_1_true_or_false_or_one_of_two_texts(label: Any, expected: int) -> None:
    found = LAYOUT.read(sent([None, None, None], label)).label
    assert found == expected
    assert type(found) is int


def test_a_text_that_is_no_label_is_refused_with_those_that_are() -> None:
    nothing: list[Any] = [None, None, None]
    expected = "label: expected 0 or 1, true or false, 'no' or 'yes', got 'Yes'"
    assert refusal(nothing, "Yes") == expected
    expected = "label: expected 0 or 1, true or false; a text needs positive and negative in the"
    assert refusal([1], "1", Layout()) == f"{expected} schema, got '1'"
    with_positive_alone = Layout(1, ["a"], None, "yes")
    assert refusal([1], "yes", with_positive_alone) == f"{expected} schema, got 'yes'"


@pytest.mark.parametrize("features", [b'["\\ud800"]', b'{"\\udc00":1}', b'["\\ud800\\ud800"]'])
def test_half_a_surrogate_pair_is_no_json(features: bytes) -> None:
    with pytest.raises(RecordError, match="value: not JSON"):
        decode_record(b'{"id":1,"features":' + features + b"}")


def test_the_nearest_name_is_looked_for_among_the_first_of_very_many() -> None:
    names = [f"x{number}" for number in range(FEATURES_LIMIT)]
    layout = Layout(len(names), names)
    assert row({"x99999": 1}, layout)[-1] == 1.0
    assert len(row([1] * FEATURES_LIMIT, layout)) == FEATURES_LIMIT
    assert refusal({"x17_": 1}, layout=layout) == (
        "features: the stream has no 'x17_'; nearest is 'x17'"
    )
    assert len(layout._pairs) == LOOKED_AT


def test_rows_of_numbers_become_a_matrix_and_rows_with_categories_a_data_frame() -> None:
    matrix = Layout(2, NAMES[:2], ["number", "time"]).matrix([[1.0, None], [2.0, 3.0]])
    assert matrix.dtype == np.float64
    assert np.isnan(matrix[0, 1])
    frame = LAYOUT.matrix([[1.0, "pro", None], [None, None, 2.0]])
    assert [str(kind) for kind in frame.dtypes] == ["float64", "object", "float64"]
    assert frame["plan"].tolist()[0] == "pro"
    assert all(math.isnan(frame[name].tolist()[at]) for name, at in (("plan", 1), ("age", 1)))
    empty = LAYOUT.matrix([])
    assert (empty.shape, [*empty.columns]) == ((0, 3), NAMES)


def test_layouts_are_equal_where_a_row_of_one_is_a_row_of_the_other() -> None:
    assert Layout(3, NAMES, TYPES) == Layout(3, NAMES, TYPES, "yes", "no")
    assert Layout(1, ["a"]) == Layout(1, ["a"], ["number"])
    assert Layout(1, ["a"]) != Layout(1, ["b"])
    assert Layout(3, NAMES, TYPES) != Layout(3, NAMES)
    assert Layout(2) != Layout(3)


def test_a_schema_says_how_records_are_laid_out_and_without_one_all_are_lists() -> None:
    schema = Schema(NAMES, positive="yes", negative="no", types=TYPES)
    assert module.of(schema).read(sent([1, "a", None], "no")) == ModelInput(1, [1.0, "a", None], 0)
    assert module.of(None) == Layout()
    assert Layout().read(sent([1] * 7)).features == [1.0] * 7


values = st.fixed_dictionaries(
    {
        "age": st.none() | st.booleans() | st.floats(-1e9, 1e9),
        "plan": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=64),
        "since": st.none() | st.datetimes().map(lambda time: time.isoformat()),
    }
)


@given(values, st.randoms())
def test_an_object_in_any_order_gives_the_row_of_the_list_and_a_frame_has_it(
    given_values: dict[str, Any], random: Any
) -> None:
    names = [*given_values]
    random.shuffle(names)
    named = decode_record(encode_record(Record(1, {name: given_values[name] for name in names})))
    listed = decode_record(encode_record(Record(1, [given_values[name] for name in NAMES])))
    cells = LAYOUT.read(listed).features
    assert LAYOUT.read(named).features == cells
    frame = LAYOUT.matrix([cells])
    found = [None if pd.isna(cell) else cell for cell in frame.iloc[0].tolist()]
    assert found == [*cells]
