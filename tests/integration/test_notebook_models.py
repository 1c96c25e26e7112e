"""Models of a notebook on a stream with categories, times and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder

from modelgenerator.labelled.__main__ import main as labelled
from modelgenerator.publish import publish
from modelgenerator.publish.__main__ import main as command
from stream.models import ModelError
from stream.records import Record, encode_record
from tests.services import Services, eventually
from tests.topics import Topics, await_answered
from tests.unit.customers import MODELS, NAMES, SCHEMA, customers, encoded, fitted, records

FRAME, LABELS = customers()


@pytest.fixture
def topics(topics: Topics, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Topics that the environment names, too, with a schema."""
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    topics.describe(SCHEMA)
    return topics


def write(topics: Topics, by_name: bool = False) -> None:
    """Write all customers once more, as lists or as objects by name."""
    topics.write_values(encode_record(each) for each in records(FRAME, LABELS, by_name))


def test_what_a_notebook_fitted_on_its_columns_is_served_unchanged(
    topics: Topics, start: Services
) -> None:
    write(topics, by_name=True)
    predictor = start("predictor")
    expected: list[list[float]] = []
    for name in MODELS:
        model, given = fitted(name, FRAME, LABELS)
        expected.append(model.predict_proba(given)[:, 1].tolist())
        assert publish(model, wait=0, pin=False) == len(expected)
        eventually(lambda: serves(topics, len(expected)), 90, predictor.tail)
    await_answered(topics, len(topics.records(topics.settings.data_topic)))
    assert topics.rejected() == []
    for made in topics.predictions():
        row = made["source"][1] % len(FRAME)
        # How the last digit is rounded depends on how many records are predicted at once.
        same = pytest.approx(expected[made["model"] - 1][row], rel=1e-12)
        assert made["probability"] == same, MODELS
        assert made["label"] == LABELS[row]
    assert {made["model"] for made in topics.predictions()} == set(range(1, len(MODELS) + 1))
    written = len(topics.predictions())
    assert topics.check().recomputed == written
    verified = start.verify("--json")
    assert json.loads(verified.stdout)["checked"]["I6"] == written


def serves(topics: Topics, version: int) -> bool:
    write(topics, by_name=version % 2 == 0)
    return any((s["version"], s["status"]) == (version, "serving") for s in topics.statuses())


def test_a_category_that_an_encoder_raises_on_is_rejected_alone(
    topics: Topics, start: Services
) -> None:
    whole = FRAME.notna().all(axis=1)
    model = encoded(OneHotEncoder()).fit(FRAME[whole], LABELS[whole])
    with pytest.raises(ModelError, match=r"no record on the data topic.*send records first"):
        publish(model)
    sent = records(FRAME[whole], LABELS[whole])
    topics.write_values(encode_record(each) for each in sent)
    assert publish(model, wait=0) == 1
    others: list[dict[str, Any]] = [
        {"age": 30, "plan": "gold", "city": "Oslo"},
        {"plan": "pro", "since": "2024-02-29"},
        {"plan": "pro", "city": "Łódź", "active": True},
        {"plan": 1, "city": "Łódź"},
        {"plan": "pro", "town": "Łódź"},
    ]
    topics.write_values(encode_record(Record(n, each)) for n, each in enumerate(others))
    predictor = start("predictor")
    eventually(lambda: topics.answered() == len(sent) + len(others), 90, predictor.tail)
    assert len(topics.predictions()) == len(sent) + 1
    unknown, null, number, name = (rejected["reason"] for rejected in topics.rejected())
    assert "Found unknown categories ['gold'] in column 0" in unknown
    assert null == "features[2] 'city': null, and model 1 accepts none there"
    assert "'plan': expected a text" in number
    assert "no 'town'" in name
    assert topics.check().recomputed == len(sent) + 1
    assert start.verify().returncode == 0


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_a_notebook_reads_of_the_stream_is_what_its_model_is_given(
    ending: str, topics: Topics, start: Services, tmp_path: Path, capsys: Any
) -> None:
    write(topics)
    write(topics, by_name=True)
    topics.write_values(
        [b'{"id":1,"features":["x"],"label":1}', b'{"id":2,"features":[1,2,3,4,5]}']
    )
    path = tmp_path / f"train.{ending}"
    assert labelled([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 that do not fit the stream, 1 unlabelled" in printed
    train = read(path, printed)
    assert list(train["label"]) == [*LABELS, *LABELS]
    pd.testing.assert_frame_equal(
        train[NAMES].astype(FRAME.dtypes), pd.concat([FRAME, FRAME], ignore_index=True)
    )
    model, given = fitted("by dtype", train[NAMES], train["label"])
    expected = model.predict_proba(given)[:, 1].tolist()
    joblib.dump(model, tmp_path / "model.joblib")
    assert command([str(tmp_path / "model.joblib"), "--backtest", "--no-wait"]) == 0
    assert f"backtest on {len(train)} of the newest {len(train) + 1} " in capsys.readouterr().out
    predictor = start("predictor")
    eventually(lambda: topics.answered() == len(train) + 2, 90, predictor.tail)
    # How the last digit is rounded depends on how many records are predicted at once.
    assert [made["probability"] for made in topics.predictions()] == pytest.approx(
        expected, rel=1e-12
    )
    topics.check()


def read(path: Path, printed: str) -> pd.DataFrame:
    """Read a table as a notebook does, CSV as the command says."""
    if path.suffix == ".parquet":
        return duckdb.read_parquet(str(path)).df().fillna(np.nan)
    said = "keep_default_na=False, na_values='', dtype=dict.fromkeys(['plan', 'city'], str)"
    assert f"in pandas: read_csv({str(path)!r}, {said})\n" in printed
    return pd.read_csv(
        path, keep_default_na=False, na_values="", dtype=dict.fromkeys(["plan", "city"], str)
    )
