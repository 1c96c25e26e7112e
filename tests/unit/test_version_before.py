"""Records as commit fb45d49 wrote them are read as they are. Their bytes are never regenerated."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from predictor.outputs import last_own
from predictor.tally import Tally
from stream.keys import TrustedKeys
from stream.model_topic import ModelIndex, put_together
from stream.models import SIGNATURE, Envelope, unpack, verify
from stream.records import (
    Numbers,
    Prediction,
    Rejected,
    Schema,
    Status,
    decode_prediction,
    decode_record,
    decode_rejected,
    decode_schema,
    decode_status,
)

WRITTEN: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "version_before.json").read_text()
)
TOPIC_ID = "Zm9vYmFyYmF6cXV4MTIzNA"

ENVELOPE = Envelope(
    version=7,
    recipe="linear_2000",
    algorithm="Pipeline",
    features=2,
    feature_names=["age", "hours"],
    classes=[0, 1],
    accepts_missing=True,
    trained_on=2000,
    trained_to={"0": 1011, "3": 1007},
    recipe_accuracy=0.75,
    reason="cadence",
    restores=None,
    created="2026-11-23T20:00:01.123Z",
    sklearn="1.9.1",
    numpy="2.4.6",
    python="3.13",
    sha256="b21db146f2d6c63c433dc22cc976991829dea72c016287d750769a288c70d686",
    threshold=0.5,
    pinned=True,
    after=17,
    probe=[0.5, None],
)


@pytest.fixture
def trusted(tmp_path: Path) -> TrustedKeys:
    (tmp_path / "key.pem").write_text(WRITTEN["key"])
    return TrustedKeys(tmp_path)


@pytest.mark.parametrize(
    ("topic", "decode", "expected"),
    [
        (
            "data",
            decode_record,
            [Numbers(17, [0.12, -3.5, 2, None], 1), Numbers("größe/7", [-3.4e38], None)],
        ),
        ("schema", decode_schema, [Schema(["age", "hours"], "income", ">50K")]),
        (
            "status",
            decode_status,
            [
                Status(7, "serving", {"0": 5120}, None, "one"),
                Status(8, "barred", {}, "model error: ValueError: x", "one"),
            ],
        ),
        (
            "rejected",
            decode_rejected,
            [Rejected((0, 5121), "value: not JSON", 12, '{"id": 18, \ufffd')],
        ),
        (
            "tally",
            lambda value: Tally.from_metadata(value.decode()),
            [
                Tally(1, 2, 3, 4, 5, 6, 7, 8),
                Tally(1, 2, 3, 4, 5, 6, 7, 8, (100, 90), TOPIC_ID),
            ],
        ),
    ],
)
def test_a_record_of_the_version_before_is_read(topic: str, decode: Any, expected: Any) -> None:
    assert [decode(value.encode()) for value in WRITTEN[topic]] == expected


def test_predictions_of_the_version_before_are_found_by_their_group_with_the_id_of_the_topic() -> (
    None
):
    records = [
        SimpleNamespace(
            value=each["value"].encode(),
            headers=[(name, content.encode()) for name, content in each["headers"]],
        )
        for each in WRITTEN["prediction"]
    ]
    assert [decode_prediction(record.value) for record in records] == [
        Prediction(17, 1, 0.87, 1, 1234, 1100, 7, (0, 5120)),
        Prediction("a", 0, None, None, 0, 0, 7, (0, 5122), True),
    ]
    found = last_own(decode_prediction, "predictors", None, records)
    assert found is not None
    assert (found.content.source, found.incarnation) == ((0, 5122), TOPIC_ID)
    assert last_own(decode_prediction, "others", None, records) is None


def test_a_model_in_parts_of_the_version_before_is_verified_and_put_together(
    trusted: TrustedKeys,
) -> None:
    index = ModelIndex()
    parts = []
    for offset, record in enumerate(WRITTEN["model"]):
        value = record["value"].encode()
        signer = verify(value, [(SIGNATURE, bytes.fromhex(record["signature"]))], trusted)
        parts.append((offset, unpack(value)))
        found = index.add(*parts[-1], signer)
        assert (found is not None) == (offset == 2)
    assert found is not None
    envelope, model = put_together(found, parts, max_bytes=1_000)
    assert envelope == ENVELOPE
    assert pickle.loads(model) == {"coef": [0.5, -1.5], "classes": [0, 1]}
