from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from stream.keys import TrustedKeys
from stream.models import (
    PART_BYTES,
    SIGNATURE,
    Envelope,
    Message,
    ModelError,
    pack,
    unpack,
    verify,
)
from tests.unit.classifiers import LARGE, STRANGER, envelope, new_key

KEY = new_key()


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedKeys:
    KEY.share(tmp_path)
    return TrustedKeys(tmp_path)


def packed(version: int, pickle: bytes) -> list[Message]:
    return list(pack(envelope(version), pickle, KEY))


def with_digest(version: int, pickle: bytes) -> Envelope:
    return replace(envelope(version), sha256=hashlib.sha256(pickle).hexdigest())


@pytest.mark.parametrize(
    ("pickle", "parts"),
    [
        (b"", 1),
        (b"x", 1),
        (bytes(PART_BYTES), 1),
        (bytes(PART_BYTES + 1), 2),
        (LARGE, 3),
    ],
)
def test_a_model_of_any_size_round_trips(pickle: bytes, parts: int, trusted: TrustedKeys) -> None:
    messages = packed(3, pickle)
    assert len(messages) == parts
    assert all(len(m.value) + 500 < 2**20 for m in messages)  # Kafka's default limit
    assert {verify(m.value, m.headers, trusted) for m in messages} == {KEY.fingerprint}
    found = [unpack(message.value) for message in messages]
    assert [(p.part, p.parts) for p in found] == [(n, parts) for n in range(1, parts + 1)]
    assert {p.envelope.sha256 for p in found} == {hashlib.sha256(pickle).hexdigest()}
    assert b"".join(p.pickle for p in found) == pickle


def test_every_field_round_trips() -> None:
    full = envelope(
        7,
        feature_names=["age", "größe"],
        accepts_missing=True,
        trained_to={"0": 5119, "11": 2},
        recipe_accuracy=0.93,
        restores=4,
        threshold=0.3,
        pinned=True,
        rule="predict",
        accepts_missing_in=[1],
    )
    (message,) = pack(full, b"pickle", KEY)
    part = unpack(message.value)
    assert replace(part.envelope, sha256="") == full
    assert (part.part, part.parts, part.pickle) == (1, 1, b"pickle")


def test_a_console_shows_what_the_model_is_before_its_bytes() -> None:
    assert list(orjson.loads(packed(1, b"x")[0].value))[-1] == "pickle"


def test_fields_that_a_reader_does_not_know_are_ignored() -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    part = unpack(orjson.dumps({**fields, "later": 1}))
    assert part.envelope == with_digest(1, b"x")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("other", b"x")],
        [("Signature", KEY.sign(b"value"))],
        [(SIGNATURE, KEY.sign(b"value")), (SIGNATURE, KEY.sign(b"value"))],
        [(SIGNATURE, b"stray"), (SIGNATURE, KEY.sign(b"value"))],
    ],
    ids=["none", "another", "case", "twice", "stray and good"],
)
def test_a_record_needs_exactly_one_signature(
    trusted: TrustedKeys, headers: list[tuple[str, bytes]]
) -> None:
    with pytest.raises(ModelError, match="expected one signature header"):
        verify(b"value", headers, trusted)


@pytest.mark.parametrize("signature", [None, b"", bytes(64), b"short"])
def test_a_signature_without_content_is_refused(
    trusted: TrustedKeys, signature: bytes | None
) -> None:
    with pytest.raises(ModelError, match="not signed by a trusted key"):
        verify(b"value", [(SIGNATURE, signature)], trusted)


def test_a_null_record_is_refused_though_it_carries_a_signature(trusted: TrustedKeys) -> None:
    with pytest.raises(ModelError, match="got null"):
        verify(None, [(SIGNATURE, KEY.sign(b""))], trusted)


def test_a_flipped_bit_anywhere_breaks_the_signature(trusted: TrustedKeys) -> None:
    (message,) = packed(1, b"pickle")
    ((name, signature),) = message.headers
    for index in range(len(message.value)):
        value = bytearray(message.value)
        value[index] ^= 1 << index % 8
        with pytest.raises(ModelError, match="not signed by a trusted key"):
            verify(bytes(value), message.headers, trusted)
    for index in range(len(signature)):
        flipped = bytearray(signature)
        flipped[index] ^= 1 << index % 8
        with pytest.raises(ModelError, match="not signed by a trusted key"):
            verify(message.value, [(name, bytes(flipped))], trusted)


def test_a_strangers_model_is_refused_and_the_trusted_keys_are_named(trusted: TrustedKeys) -> None:
    (message,) = pack(envelope(1), b"pickle", STRANGER)
    with pytest.raises(ModelError, match=KEY.fingerprint):
        verify(message.value, message.headers, trusted)


def test_the_signature_of_one_part_does_not_fit_another(trusted: TrustedKeys) -> None:
    first, second, _ = packed(1, LARGE)
    with pytest.raises(ModelError, match="not signed by a trusted key"):
        verify(first.value, second.headers, trusted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 0),
        ("version", -1),
        ("version", 1.0),
        ("version", True),
        ("version", None),
        ("recipe", 1),
        ("features", "2"),
        ("feature_names", [1]),
        ("feature_names", "ab"),
        ("classes", None),
        ("accepts_missing", 1),
        ("trained_to", {"0": "1"}),
        ("trained_to", {"0": None}),
        ("trained_to", [1]),
        ("recipe_accuracy", "0.9"),
        ("restores", 1.5),
        ("threshold", "0.3"),
        ("threshold", True),
        ("threshold", -0.1),
        ("threshold", 30),
        ("pinned", 1),
        ("pinned", None),
        ("probe", 1.0),
        ("probe", [1.0, "2"]),
        ("probe", [True, 1.0]),
        ("rule", 1),
        ("accepts_missing_in", [-1]),
        ("accepts_missing_in", ["age"]),
        ("accepts_missing_in", 1),
        ("sha256", None),
        ("part", 0),
        ("part", 2),
        ("parts", 0),
        ("pickle", None),
        ("pickle", "not base64!"),
        ("pickle", "eA"),
        ("pickle", "größe"),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: Any) -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    with pytest.raises(ModelError, match=r"\w"):
        unpack(orjson.dumps({**fields, field: value}))


ADDED = {"threshold", "pinned", "after", "probe", "stream", "rule", "accepts_missing_in"}
ADDED |= {"types", "positive", "negative", "probes", "standings", "archive"}


def test_a_model_of_before_a_field_was_added_is_read() -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    old = {name: value for name, value in fields.items() if name not in ADDED}
    assert unpack(orjson.dumps(old)).envelope == with_digest(1, b"x")


@pytest.mark.parametrize("field", sorted(orjson.loads(packed(1, b"x")[0].value).keys() - ADDED))
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    del fields[field]
    with pytest.raises(ModelError, match=f"{field}: missing"):
        unpack(orjson.dumps(fields))


@pytest.mark.parametrize("value", [None, b"", b"null", b"[]", b"7", b"\xff\x00garbage", b'{"a":'])
def test_garbage_is_no_model(value: bytes | None) -> None:
    with pytest.raises(ModelError, match=r"not a model|missing"):
        unpack(value)


def test_a_record_counts_as_trained_on_up_to_the_highest_offset_of_its_partition() -> None:
    model = envelope(1, trained_to={"0": 10, "2": 0})
    places = [(0, 10), (0, 9), (0, 11), (1, 0), (2, 0), (2, 1)]
    assert [model.trained_on_record(*place) for place in places] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("accepted", "features", "expected"),
    [
        ({}, [1.0, None], 1),
        ({}, [1.0, 2.0], None),
        ({"accepts_missing": True}, [None, None], None),
        ({"accepts_missing_in": [1]}, [1.0, None], None),
        ({"accepts_missing_in": [1]}, [None, None], 0),
        ({"accepts_missing_in": [1, 0]}, [None, None], None),
        ({"accepts_missing_in": []}, [None, None], 0),
    ],
)
def test_a_null_is_wrong_where_the_envelope_does_not_accept_it(
    accepted: dict[str, Any], features: list[float | None], expected: int | None
) -> None:
    assert envelope(**accepted).wrongly_null(features) == expected


OTHERS: dict[str, Any] = {
    "version": 2,
    "recipe": "other",
    "algorithm": "Other",
    "features": 3,
    "feature_names": ["a", "b"],
    "classes": [1, 0],
    "accepts_missing": True,
    "trained_on": 201,
    "trained_to": {"0": 1},
    "recipe_accuracy": 0.5,
    "reason": "other",
    "restores": 1,
    "created": "2026-11-23T20:00:00.001Z",
    "sklearn": "1.0.0",
    "numpy": "1.0.0",
    "python": "3.12",
    "sha256": "0" * 64,
    "threshold": 0.3,
    "pinned": True,
    "after": 5,
    "probe": [0.5, None],
    "stream": "another",
    "rule": "predict",
    "accepts_missing_in": [1],
    "types": ["number", "category"],
    "positive": "yes",
    "negative": "no",
    "probes": [[0.5, "pro"]],
    "standings": {"sgd": 0.5},
    "archive": [{"version": 1, "after": 0, "recipe": "sgd", "accuracy": 0.5}],
    "part": 2,
    "parts": 2,
    "pickle": base64.b64encode(b"other").decode(),
}


@pytest.mark.parametrize("field", orjson.loads(packed(1, b"x")[0].value))
def test_no_field_can_be_changed_under_its_signature(field: str, trusted: TrustedKeys) -> None:
    (message,) = packed(1, b"x")
    fields = orjson.loads(message.value)
    assert orjson.dumps(fields) == message.value
    assert fields[field] != OTHERS[field]
    with pytest.raises(ModelError, match="not signed by a trusted key"):
        verify(orjson.dumps({**fields, field: OTHERS[field]}), message.headers, trusted)


@pytest.mark.parametrize(
    ("field", "claim", "refusal"),
    [
        ("features", 10**9, "features: expected 1 to 100000, got 1000000000"),
        ("features", 10**30, "not a model|expected int"),
        ("version", 10**30, "not a model|expected int"),
        ("parts", 10**30, "not a model|expected int"),
        ("part", 10**9, "part: expected 1 to 1"),
    ],
)
def test_a_claim_of_gigabytes_reserves_nothing(field: str, claim: int, refusal: str) -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    value = json.dumps({**fields, field: claim}).encode()
    with pytest.raises(ModelError, match=refusal):
        unpack(value)


def test_a_part_without_content_is_refused_so_that_parts_do_not_add_up_for_ever() -> None:
    fields = orjson.loads(packed(1, b"x")[0].value)
    with pytest.raises(ModelError, match="pickle: empty"):
        unpack(orjson.dumps({**fields, "pickle": "", "parts": 1_000}))


@pytest.mark.parametrize("opening", [b"[", b'{"version":'])
def test_deep_nesting_is_refused_and_not_recursed_into(opening: bytes) -> None:
    with pytest.raises(ModelError, match="not a model"):
        unpack(b'{"recipe":' + opening * 200_000)


def test_of_a_doubled_key_the_last_counts() -> None:
    (message,) = packed(1, b"x")
    more = message.value.replace(b'{"version":1', b'{"version":9,"pickle":"eQ==","version":1')
    assert unpack(more) == unpack(message.value)
    evil = message.value[:-1] + b',"pickle":"eQ=="}'
    assert unpack(evil) == replace(unpack(message.value), pickle=b"y")
