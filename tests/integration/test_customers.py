"""A table of customers, with categories, dates and gaps: as files, and from a producer."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from examples.make_customers import FORMATS, SCHEMA
from local.process import Process, stop
from modelgenerator.publish import publish
from stream.records import decode_schema
from tests.services import Services, eventually
from tests.topics import Topics, await_answered

ROWS = 5_000
DRIFT = ROWS // 2
"""From this row on, other customers leave than before."""
RETRAIN_EVERY = 500

CATEGORIES = ["plan", "city", "zip"]
FILE = {"LABEL": "churned", "ID": "customer", "TIME": "billed", "TYPES": "zip:category"}

Answers = dict[str, tuple[int, float]]


def notebook(table: Path) -> tuple[Any, pd.DataFrame]:
    """Fit a pipeline to the raw columns of the file, as a notebook does."""
    rows = pd.read_csv(table, sep=";", decimal=",", dtype={"zip": str})
    since = pd.to_datetime(rows["since"], format="%d.%m.%Y")
    rows["since"] = (since - pd.Timestamp(0)) // pd.Timedelta("1s")
    features = rows.drop(columns=["customer", "billed", "country", "churned"])
    encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=20, sparse_output=False)
    columns = make_column_transformer((encoder, CATEGORIES), remainder="passthrough")
    model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=30))
    train = features[:DRIFT]
    return model.fit(train, rows["churned"][:DRIFT] == "yes"), features


class Stream:
    """A stream of its own, with a predictor."""

    def __init__(self, env: dict[str, str], name: str, folder: Path) -> None:
        topics = ("DATA_TOPIC", "MODEL_TOPIC", "PREDICTION_TOPIC", "GROUP_ID")
        own = {each: env[each].replace("t", f"t{name}", 1) for each in topics}
        self.env = env | own | {"LOG_FILE": str(folder / f"{name}.log")}
        self.topics = Topics(self.env)

    def answers(self) -> Answers:
        """Return what was predicted, by id."""
        return {p["id"]: (p["prediction"], p["probability"]) for p in self.topics.predictions()}


@pytest.fixture
def streams(settings_env: dict[str, str], tmp_path: Path) -> Iterator[dict[str, Stream]]:
    with ExitStack() as stack:
        found = {name: Stream(settings_env, name, tmp_path) for name in ("csv", "parquet", "jsonl")}
        for each in found.values():
            stack.enter_context(each.topics)
        yield found


def await_written(topics: Topics) -> None:
    eventually(lambda: len(topics.ids()[0]) == ROWS)


def await_trained(topics: Topics, offset: int, predictor: Process) -> None:
    """Wait until a model serves that was trained on the record at an offset, or a newer one."""

    def serves() -> bool:
        versions = re.findall(r" model (\d+) \(\w+\) serves from the next unit", predictor.log())
        trained_to = {model["version"]: model["trained_to"]["0"] for model in topics.models()}
        return bool(trained_to[int(versions[-1])] >= offset)

    eventually(serves)


def verified(start: Services, env: dict[str, str]) -> str:
    done = start.verify(env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_notebooks_pipeline_predicts_the_same_from_csv_parquet_and_a_producer_with_names(
    streams: dict[str, Stream], start: Services, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"customers.{name}" for name in streams}
    for name, path in files.items():
        path.write_bytes(FORMATS[name]())
    fast = FILE | {"SPEED": "1e9"}
    for name in ("csv", "parquet"):
        start("datagenerator", **streams[name].env, STREAM=str(files[name]), **fast)
    streams["jsonl"].topics.describe(decode_schema(json.dumps(SCHEMA).encode()))
    streams["jsonl"].topics.write_values(files["jsonl"].read_bytes().splitlines())
    model, features = notebook(files["csv"])
    for stream in streams.values():
        await_written(stream.topics)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            publish(model, wait=0, settings=stream.topics.settings)
        start("predictor", **stream.env)
    for stream in streams.values():
        await_answered(stream.topics, ROWS)
    customers = pd.read_csv(files["csv"], sep=";")["customer"]
    expected = dict(zip(customers, model.predict_proba(features)[:, 1], strict=True))
    answers = {name: stream.answers() for name, stream in streams.items()}
    assert answers["csv"] == answers["parquet"] == answers["jsonl"]
    assert {id: p for id, (_, p) in answers["csv"].items()} == pytest.approx(expected)
    for stream in streams.values():
        assert stream.topics.rejected() == []
        assert f"verified: {ROWS} predictions, 0 rejected" in verified(start, stream.env)
    streams["jsonl"].topics.check()


def share(values: Sequence[bool]) -> float:
    """Return the share of the values that hold, if it is a majority, else of the others."""
    return max(mean(values), 1 - mean(values))


def assert_beats_the_majority(predictions: Sequence[dict[str, Any]], accuracy: float) -> None:
    found = mean(p["prediction"] == p["label"] for p in predictions)
    majority = share([p["label"] == 1 for p in predictions])
    print(f"{len(predictions)} customers: accuracy {found:.3f}, majority {majority:.3f}")
    assert majority < 0.65
    assert found > accuracy


def test_the_customers_are_learnt_before_and_after_the_drift(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    table = tmp_path / "customers.csv"
    table.write_bytes(FORMATS["csv"]())
    predictor = start("predictor")
    services = [start("modelgenerator", RETRAIN_EVERY=str(RETRAIN_EVERY), WINDOW="1000"), predictor]
    # A step is predicted by models of the step before it, however slow the machine is.
    for count in (1_000, DRIFT, 4_000, ROWS):
        own = {"STREAM": str(table), "SPEED": "1e9", "COUNT": str(count)}
        source = start("datagenerator", **FILE, **own)
        await_answered(topics, count)
        source.stop()
        await_trained(topics, count - RETRAIN_EVERY, predictor)
    assert topics.rejected() == []
    predictions = topics.predictions()
    assert_beats_the_majority(predictions[1_000:DRIFT], 0.75)
    assert_beats_the_majority(predictions[4_000:], 0.75)
    stop(services)
    topics.check()
    assert f"verified: {ROWS} predictions, 0 rejected" in verified(start, {})


def test_a_schema_that_changes_between_two_models_changes_no_prediction(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    schema = decode_schema(json.dumps(SCHEMA).encode())
    table, records = tmp_path / "customers.csv", FORMATS["jsonl"]().splitlines()[:100]
    table.write_bytes(FORMATS["csv"]())
    topics.describe(schema)
    topics.write_values(records)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        publish(notebook(table)[0], wait=0, settings=topics.settings)
    start("predictor")
    await_answered(topics, 100)
    others = replace(
        schema, types=None, feature_names=schema.feature_names[::-1], positive="no", negative="yes"
    )
    topics.describe(others)
    topics.write_values(records)
    await_answered(topics, 200)
    answers = [(p["prediction"], p["probability"], p["label"]) for p in topics.predictions()]
    assert answers[:100] == answers[100:]
    assert "verified: 200 predictions, 0 rejected" in verified(start, {})
    topics.check()
