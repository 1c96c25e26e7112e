"""Whatever comes from outside: a sound value or the documented error, soon and small."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from predictor.accuracy_log import AccuracyLog
from predictor.consumed import Consumed
from predictor.predictor import predict_unit
from predictor.tally import Tally
from stream.classifier import check
from stream.layout import Rows
from stream.models import Envelope, ModelError, Part, unpack
from stream.records import (
    Numbers,
    Prediction,
    RecordError,
    decode_prediction,
    decode_record,
    decode_rejected,
    decode_schema,
    decode_status,
    encode_prediction,
    encode_rejected,
    encode_status,
)
from stream.settings import SettingsError, StreamSettings, read
from tests.unit.classifiers import envelope
from tests.unit.states import states

RECORDS = Path(__file__).resolve().parents[1] / "records"
LARGE = 2**17
ERROR_LENGTH = 1_000


def tally(value: bytes) -> Tally:
    """Read a tally as a broker hands it over: as text."""
    return Tally.from_metadata(value.decode(errors="replace"))


READERS: dict[str, Callable[[bytes], object]] = {
    "data": decode_record,
    "schema": decode_schema,
    "model": unpack,
    "status-barred": decode_status,
    "prediction": decode_prediction,
    "rejected": decode_rejected,
    "tally": tally,
}

WRITERS: dict[str, Callable[[Any], object]] = {
    "status-barred": encode_status,
    "prediction": encode_prediction,
    "rejected": encode_rejected,
    "tally": Tally.to_metadata,
}
"""What reads a field as a number has to be able to write it again: JSON's integers have 64 bits."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)

LITERALS = [
    b"1" + b"0" * 400,
    b"-1" + b"0" * 400,
    b"1e308",
    b"1e309",
    b"-1e-400",
    b"1e99999999999999999999",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0." + b"1" * LARGE,
    b"1" * LARGE,
    b"NaN",
    b"Infinity",
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"' + b"9" * 5_000 + b'"',
    b'"' + b"x" * LARGE + b'"',
    b"[" * 1_000 + b"]" * 1_000,
    b"[" * LARGE,
    b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    b"[" + b"1," * LARGE + b"1]",
    b"[" + b'"a",' * 20_000 + b'"a"]',
    b"{" + b",".join(b'"%d":%d' % (i, i) for i in range(5_000)) + b"}",
    b'[{"a":1},{"a":1}]',
    b"-1",
    b"1.5",
    b"true",
    b"null",
    b"",
]
"""Values of a field that have broken readers of JSON."""


def example(name: str) -> dict[str, Any]:
    """Return the fields of the example record of a topic, or of a tally."""
    if name == "tally":
        return dict(orjson.loads(Tally(1, 2, 3, 4, 5, 6, 7, 8, (9, 8), "a").to_metadata()))
    return dict(orjson.loads((RECORDS / f"{name}.json").read_bytes()))


def read_or_refuse(name: str, value: bytes) -> object | None:
    """Read a record; it may be refused, with a message of bounded length, and nothing else."""
    try:
        return READERS[name](value)
    except (RecordError, ModelError) as error:
        message = str(error)
    assert len(message) < ERROR_LENGTH
    return None


def with_field(name: str, field: str, literal: bytes) -> bytes:
    """Return the example of a topic with the value of a field written as `literal`."""
    marked = orjson.dumps(example(name) | {field: "MARK"})
    return marked.replace(b'"MARK"', literal)


@pytest.mark.parametrize("name", READERS)
def test_no_literal_in_any_field_breaks_a_reader_and_what_was_read_can_be_written(
    name: str,
) -> None:
    for field in example(name):
        for literal in LITERALS:
            found = read_or_refuse(name, with_field(name, field, literal))
            if found is not None and name in WRITERS:
                WRITERS[name](found)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=20)
@given(st.data())
def test_a_record_with_any_fields_changed_or_left_out_is_read_or_refused(
    name: str, data: st.DataObject
) -> None:
    found = example(name)
    names = st.sampled_from(sorted(found))
    for field in data.draw(st.lists(names, max_size=3), label="left out"):
        found.pop(field, None)
    found |= data.draw(st.dictionaries(names | st.text(max_size=5), json_values, max_size=3))
    read_again = read_or_refuse(name, orjson.dumps(found))
    if read_again is not None and name in WRITERS:
        WRITERS[name](read_again)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=20)
@given(st.binary(max_size=200), st.integers(0, 500), st.integers(0, 20))
def test_a_record_with_bytes_overwritten_is_read_or_refused(
    name: str, junk: bytes, place: int, length: int
) -> None:
    value = orjson.dumps(example(name))
    read_or_refuse(name, value[:place] + junk[:length] + value[place + length :])
    read_or_refuse(name, junk)


def test_of_a_field_that_is_given_twice_the_last_counts() -> None:
    record = decode_record(b'{"id":1,"id":2,"features":[9],"features":[1],"label":0,"label":1}')
    assert record == Numbers(2, [1], 1)


@pytest.mark.parametrize("name", READERS)
def test_reading_takes_memory_in_proportion_to_the_record(name: str) -> None:
    for literal in LITERALS:
        for field in ("features", "id", "label", "since", "pickle", "tp", "reason"):
            if field not in example(name):
                continue
            value = with_field(name, field, literal)
            tracemalloc.start()
            read_or_refuse(name, value)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2**20 + 40 * len(value), (field, literal[:40])


class Predicts:
    """Stands in for a model of three features: every record is a 1."""

    version = 7
    envelope = envelope(
        7,
        features=3,
        trained_to={},
        feature_names=["a", "b", "c"],
        types=["number", "category", "time"],
        positive="yes",
        negative="no",
        accepts_missing=True,
    )
    layout = envelope.layout

    def predict(self, rows: Rows) -> tuple[list[int], list[float | None]]:
        assert self.layout.matrix(rows).shape == (len(rows), 3)
        return [1] * len(rows), [0.75] * len(rows)


@settings(max_examples=20)
@given(
    st.lists(
        st.sampled_from([b'{"id":1,"features":[1,"x","2026-11-23"],"label":1}', b"", b"{}", None])
        | json_values.map(lambda value: orjson.dumps({"id": 1, "features": value, "label": 0}))
        | json_values.map(lambda v: orjson.dumps({"id": 1, "features": {"a": 1}, "label": v}))
        | json_values.map(lambda v: orjson.dumps({"id": 1, "features": {"a": v, "b": v, "c": v}}))
        | st.binary(max_size=40),
        max_size=12,
    ),
    st.lists(st.sampled_from(LITERALS[:8] + LITERALS[17:19]), max_size=3),
)
def test_whatever_a_unit_holds_each_record_is_predicted_or_rejected_and_the_counts_add_up(
    values: list[bytes | None], literals: list[bytes]
) -> None:
    values += [b'{"id":1,"features":{"b":"x"},"label":' + literal + b"}" for literal in literals]
    unit = [Consumed(0, offset, None, value) for offset, value in enumerate(values)]
    before = Tally(tp=5)
    result = predict_unit(unit, Predicts(), None, states(before))  # type: ignore[arg-type] # a stand-in
    sources = [p.source for p, _ in result.predictions] + [r.source for r in result.rejected]
    assert sorted(sources) == [(0, offset) for offset in range(len(values))]
    if values:
        after = result.states[0].tally
        assert after.rejected == len(result.rejected)
        assert after.n == 5 + len(result.counted)
        assert after.n + after.unlabelled == 5 + len(result.predictions)
        assert Tally.from_metadata(after.to_metadata()) == after
    for rejected in result.rejected:
        assert len(encode_rejected(rejected)) < 10_000
    for prediction, _ in result.predictions:
        assert decode_prediction(encode_prediction(prediction)) == prediction


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from([f.name for f in fields(Envelope)]), json_values))
def test_an_envelope_with_any_content_is_checked_or_refused(changes: dict[str, Any]) -> None:
    value = orjson.dumps(example("model") | changes)
    found = read_or_refuse("model", value)
    if isinstance(found, Part):
        message = ""
        try:
            check(found.envelope, None, None)
        except ModelError as error:
            message = str(error)
        assert len(message) < ERROR_LENGTH


@settings(max_examples=20)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.builds(
            lambda p, n: f"x partition={p} n={n} accuracy=0.5 model=1\n".encode(),
            st.integers(0, 3),
            st.sampled_from([0, 10, 20, 30, 10**17, 10**18, 10**400, int("9" * 4_300)]),
        ),
        max_size=8,
    )
)
def test_a_log_file_with_any_content_is_read_and_written_on(chunks: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictor.log"
        path.write_bytes(b"".join(chunks))
        log = AccuracyLog(path, 10_000, history)
        log.append([counted(10)])
        log.append([counted(20)])
        assert path.read_bytes().endswith(b" n=20 accuracy=0.500000 model=1\n")


def history(partition: int, after: int, upto: int) -> list[tuple[Prediction, int]]:
    """Return predictions as the topic would have them."""
    return [(counted(n), 0) for n in range(after + 1, upto + 1)]


def counted(n: int) -> Prediction:
    """Return the prediction of the example with another count."""
    found = decode_prediction((RECORDS / "prediction.json").read_bytes())
    return replace(found, n=n, correct=n // 2, model=1, source=(0, n))


@settings(max_examples=20)
@given(
    st.dictionaries(
        st.sampled_from([name.upper() for name in StreamSettings.model_fields]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
        | st.sampled_from(["1" * 5_000, "-1", "1e400", "nan", "x" * 100_000]),
        max_size=3,
    )
)
def test_a_wrong_setting_is_one_line_that_names_it_and_never_shows_a_password(
    env: dict[str, str],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in StreamSettings.model_fields:
            patch.delenv(name.upper(), raising=False)
        for name, value in env.items():
            patch.setenv(name, value)
        try:
            read(StreamSettings)
        except SettingsError as error:
            line = str(error)
            assert len(line) < ERROR_LENGTH
            assert "\n" not in line
            assert any(name in line for name in (*env, "KAFKA_SASL_", "KAFKA_SECURITY_PROTOCOL"))
            for name, value in env.items():
                if name.endswith("PASSWORD") and len(value) > 12:
                    assert value not in line
