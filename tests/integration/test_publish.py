from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from modelgenerator.publish import publish as publish_and_wait
from modelgenerator.publish.__main__ import main as command
from modelgenerator.trial import RECORDS
from stream.models import ModelError
from stream.records import Record, Schema, encode_record
from tests.services import Services, eventually
from tests.topics import Topics, await_serving, regression
from tests.unit.classifiers import Apart, Hanging, Sign

NAMES = ["age", "hours", "zone"]

publish = partial(publish_and_wait, wait=0)
"""Where no predictor runs, nothing is waited for."""


def main(arguments: list[str]) -> int:
    return command([*arguments, "--no-wait"])


@pytest.fixture
def topics(topics: Topics, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Topics that the environment names, too."""
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    return topics


def frame(count: int, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Return records with missing values and a column of categories, and their labels."""
    rng = np.random.default_rng(seed)
    columns = {
        "age": rng.normal(40, 10, count),
        "hours": rng.normal(size=count),
        "zone": rng.integers(0, 4, count).astype(float),
    }
    found = pd.DataFrame(columns)
    labels = (found["hours"] + (found["zone"] == 2) > 0.5).astype(int)
    found.loc[rng.random(count) < 0.1, "age"] = np.nan
    return found, labels


def write(topics: Topics, found: pd.DataFrame, labels: pd.Series) -> None:
    for id, (row, label) in enumerate(zip(found.to_numpy().tolist(), labels, strict=True)):
        features = [None if np.isnan(feature) else feature for feature in row]
        value = encode_record(Record(id, features, int(label)))
        topics.producer.send(topics.settings.data_topic, value, partition=0)
    topics.producer.flush(30)


def by_names(handle_unknown: str) -> Any:
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["hours", "age"]),
                ("zone", OneHotEncoder(handle_unknown=handle_unknown), ["zone"]),
            ]
        ),
        SelectKBest(k=4),
        LogisticRegression(),
    )


PIPELINES: dict[str, Callable[[], Any]] = {
    "columns by their names": lambda: by_names("ignore"),
    "an encoder that raises on what it has not seen": lambda: by_names("error"),
    "imputer, scaler": lambda: make_pipeline(
        SimpleImputer(), StandardScaler(), RandomForestClassifier(20, random_state=0)
    ),
    "without probabilities": lambda: make_pipeline(SimpleImputer(), LinearSVC()),
    "no missing values accepted by itself": lambda: HistGradientBoostingClassifier(max_iter=20),
    "first step without a width": lambda: make_pipeline(
        "passthrough", SimpleImputer(), LinearSVC()
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_fitted_on_a_data_frame_serves_the_stream_unchanged(
    name: str, topics: Topics, start: Services, tmp_path: Path
) -> None:
    found, labels = frame(300)
    model = PIPELINES[name]().fit(found, labels)
    topics.describe(Schema(NAMES, "label", "1"))
    write(topics, found, labels)
    joblib.dump(model, tmp_path / "model.joblib")
    assert main([str(tmp_path / "model.joblib")]) == 0
    (tmp_path / "without" / "pandas").mkdir(parents=True)
    (tmp_path / "without" / "pandas" / "__init__.py").write_text("raise ImportError('no pandas')")
    start("predictor", PYTHONPATH=str(tmp_path / "without"))  # as it is in the image
    eventually(lambda: len(topics.predictions()) == 300, 90)
    assert topics.rejected() == []
    assert [p["prediction"] for p in topics.predictions()] == model.predict(found).tolist()
    assert topics.check().recomputed == 300
    assert topics.models()[0]["feature_names"] in (NAMES, None)
    accepted = topics.models()[0]["accepts_missing"], topics.models()[0]["accepts_missing_in"]
    in_numbers = name == "an encoder that raises on what it has not seen"
    assert accepted == ((False, [0, 1]) if in_numbers else (True, None))


def test_a_record_of_a_category_that_a_model_has_not_seen_is_rejected_alone(
    topics: Topics, start: Services
) -> None:
    found, labels = frame(100)
    model = by_names("error").fit(found, labels)
    topics.describe(Schema(NAMES, "label", "1"))
    with pytest.raises(ModelError, match="unknown categories"):
        publish(model)
    write(topics, found, labels)
    assert publish(model) == 1
    topics.write_values(
        [b'{"id":100,"features":[40,1,77],"label":1}', b'{"id":101,"features":[40,1,null]}']
    )
    start("predictor")
    eventually(lambda: topics.answered() == 102, 90)
    assert len(topics.predictions()) == 100
    unknown, null = (rejected["reason"] for rejected in topics.rejected())
    assert "unknown categories" in unknown
    assert null == "features[2] 'zone': null, and model 1 accepts none there"
    topics.check()


def test_a_threshold_decides_the_labels_from_the_command_to_the_checkers(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.write(400)
    model = regression()
    joblib.dump(model, tmp_path / "model.joblib")
    done = start.python(
        *("-m", "modelgenerator.publish", str(tmp_path / "model.joblib"), "--threshold", "0.2"),
        *("--recipe", "careful", "--reason", "misses cost five times", "--no-wait"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"published {tmp_path}/model.joblib as model 1 (LogisticR")
    assert "pinned: nothing else is published until" in done.stdout
    start("predictor")
    eventually(lambda: len(topics.predictions()) == 400, 90)
    assert {p["prediction"] == (p["probability"] >= 0.2) for p in topics.predictions()} == {True}
    assert any(0.2 <= p["probability"] <= 0.5 for p in topics.predictions())
    assert topics.check().recomputed == 400
    verified = start.verify("--json")
    assert json.loads(verified.stdout)["checked"]["I6"] == 400
    (published,) = topics.models()
    said = {name: published[name] for name in ("threshold", "recipe", "reason", "pinned")}
    assert said == {
        "threshold": 0.2,
        "recipe": "careful",
        "reason": "misses cost five times",
        "pinned": True,
    }


OWN_RULES: list[Any] = [
    GridSearchCV(
        FixedThresholdClassifier(LogisticRegression(), threshold=0.2), {"estimator__C": [0.1, 1]}
    ),
    make_pipeline(
        StandardScaler(),
        TunedThresholdClassifierCV(
            LogisticRegression(),
            scoring=make_scorer(recall_score, pos_label=0),
            response_method="decision_function",
        ),
    ),
    VotingClassifier([("a", LogisticRegression()), ("b", LinearSVC()), ("c", GaussianNB())]),
    SVC(probability=True, gamma=10, random_state=0),
    RandomForestClassifier(4, max_depth=2, random_state=0),
    LogisticRegression(),
]


def test_what_is_served_is_what_the_published_models_predict_says_until_a_threshold_is_given(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    matrix = np.random.default_rng(0).normal(size=(200, 2)).round(1)
    noisy = matrix[:, 0] + np.random.default_rng(1).normal(size=200) > 0
    topics.write(300)
    start("predictor")
    for version, model in enumerate(OWN_RULES, start=1):
        assert publish(model.fit(matrix, noisy), pin=False) == version
        await_serving(topics, version)
    records = {
        topic.offset: orjson.loads(topic.value)
        for topic in topics.records(topics.settings.data_topic)
    }
    for version, model in enumerate(OWN_RULES, start=1):
        served = [p for p in topics.predictions() if p["model"] == version]
        asked = np.array([records[p["source"][1]]["features"] for p in served])
        assert [p["prediction"] for p in served] == model.predict(asked).astype(int).tolist()
    rules = [model["rule"] for model in topics.models()]
    assert rules == ["predict", "predict", None, "predict", "predict", None]

    path = tmp_path / "model.joblib"
    joblib.dump(OWN_RULES[0], path)
    done = start.python(
        "-m", "modelgenerator.publish", str(path), "--threshold", "0.8", "--no-wait"
    )
    said = (
        r"0\.8 or more is label 1, not its own predict: these differ on [1-9]\d* of (\d+) records"
    )
    (count,) = re.findall(said, done.stdout)
    assert int(count) == min(topics.written(), RECORDS) + 8
    await_serving(topics, len(OWN_RULES) + 1)
    served = [p for p in topics.predictions() if p["model"] == len(OWN_RULES) + 1]
    assert {p["prediction"] == (p["probability"] >= 0.8) for p in served} == {True}
    recomputed = topics.check().recomputed
    verified = json.loads(start.verify("--json").stdout)
    assert verified["checked"]["I6"] == recomputed == len(topics.predictions())


def test_a_model_that_answers_by_chance_is_not_published(topics: Topics) -> None:
    topics.write(100)
    with pytest.raises(ModelError, match=r"it answers \d+ of 108 records otherwise"):
        publish(fitted(DummyClassifier(strategy="uniform")))
    assert topics.models() == []


def test_a_null_is_predicted_where_the_model_accepts_it_and_rejected_by_name_elsewhere(
    topics: Topics, start: Services
) -> None:
    found, labels = frame(300)
    columns = ColumnTransformer([("age", SimpleImputer(), ["age"])], remainder="passthrough")
    topics.describe(Schema(NAMES, "label", "1"))
    write(topics, found, labels)
    model = make_pipeline(columns, LogisticRegression()).fit(found, labels)
    assert publish(model, pin=False) == 1
    topics.write_values(
        [
            b'{"id":300,"features":[null,1,2],"label":1}',
            b'{"id":301,"features":[null,null,2],"label":1}',
            b'{"id":302,"features":[40,1,null],"label":1}',
        ]
    )
    start("predictor")
    eventually(lambda: topics.answered() == 303, 90)
    assert [r["reason"] for r in topics.rejected()] == [
        "features[1] 'hours': null, and model 1 accepts none there",
        "features[2] 'zone': null, and model 1 accepts none there",
    ]
    assert topics.predictions()[-1]["source"] == [0, 300]
    published = topics.models()[0]
    assert (published["accepts_missing"], published["accepts_missing_in"]) == (False, [0])
    assert topics.check().recomputed == 301
    assert start.verify().returncode == 0


def test_records_with_nulls_that_a_model_takes_only_alone_are_rejected_and_it_goes_on_serving(
    topics: Topics, start: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.write(100)
    topics.publish(
        1,
        HistGradientBoostingClassifier().fit([[0, 1], [1, 2]] * 20, [0, 1] * 20),
        accepts_missing=True,
    )
    path = tmp_path / "model.joblib"
    joblib.dump(Apart(), path)
    assert main([str(path)]) == 0
    assert "in 2 of 2 features, but not in all of these at once" in capsys.readouterr().out
    topics.write_values([b'{"id":1,"features":[null,null],"label":1}'] * 100)
    topics.write_values([b'{"id":1,"features":[1,null],"label":1}'])
    start("predictor")
    eventually(lambda: topics.answered() == 201, 90)
    assert len(topics.rejected()) == 100
    assert {p["model"] for p in topics.predictions()} == {2}
    assert {s["status"] for s in eventually(topics.statuses)} == {"serving"}
    assert main([str(path), "--backtest", "--dry-run"]) == 0
    assert "101 of the newest 201 labelled records" in capsys.readouterr().err
    topics.check()


def fitted(model: Any, width: int = 2, labels: tuple[Any, Any] = (0, 1)) -> Any:
    matrix = np.random.default_rng(0).normal(size=(100, width))
    return model.fit(matrix, np.array(labels)[(matrix[:, 0] > 0).astype(int)])


class Local:
    """A classifier of the module that the test makes its main one."""

    classes_ = (0, 1)
    n_features_in_ = 2

    def predict(self, matrix: Any) -> Any:
        return np.zeros(len(matrix))


REFUSED: dict[str, tuple[Any, list[str], str]] = {
    "regressor": (
        LinearRegression().fit([[1, 2]], [1]),
        [],
        "a LinearRegression, a regressor, not",
    ),
    "not fitted": (LogisticRegression(), [], "not fitted; call fit(X, y) first"),
    "no model": ({"a": 1}, [], "a dict, not a classifier"),
    "labels": (fitted(LogisticRegression(), 2, ("no", "yes")), [], "classes are ['no', 'yes']"),
    "three columns": (fitted(LogisticRegression(), 3), [], "the stream has 2, the model 3"),
    "no probabilities": (fitted(LinearSVC()), ["--threshold", "0.3"], "gives no probabilities"),
    "unknown category": (
        make_pipeline(OneHotEncoder(), LogisticRegression()).fit([[5, 6], [7, 8]], [0, 1]),
        [],
        "unknown categories",
    ),
}


def test_what_a_predictor_would_refuse_is_not_published_and_one_line_says_why(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.write(10)
    topics.write_values([b'{"id":1,"features":[1,2,3]}', b"garbage"])
    for name, (model, options, message) in REFUSED.items():
        path = tmp_path / f"{name}.joblib"
        joblib.dump(model, path)
        assert main([str(path), *options]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{path}: not published: ")
        assert message in line
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert main([str(tmp_path / "garbage")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not a joblib or pickle file, but a text that begins with 'garbage'" in line
    assert main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}: not published: a directory")
    assert topics.models() == []


def test_features_in_another_order_than_the_schema_are_refused_by_name(topics: Topics) -> None:
    found, labels = frame(100)
    topics.describe(Schema(NAMES, "label", "1"))
    turned = by_names("ignore").fit(found[["hours", "age", "zone"]], labels)
    with pytest.raises(ModelError, match="feature 0 of the stream is 'age', of the model 'hours'"):
        publish(turned)
    with pytest.raises(ModelError, match="the stream has 3, the model 2"):
        publish(regression())
    assert topics.models() == []


@pytest.mark.parametrize(
    ("setting", "value", "model", "message"),
    [
        (
            "MODEL_MAX_BYTES",
            "1000",
            fitted(RandomForestClassifier(20)),
            "larger than 1000 bytes when unpacked",
        ),
        ("MODEL_MAX_MICROSECONDS", "0.001", Sign(), "too slow: .* µs a record in batches of 500"),
        ("MODEL_LOAD_SECONDS", "0.1", Hanging(), "not loaded and probed within"),
    ],
)
def test_a_model_that_costs_more_than_a_predictor_allows_is_refused(
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    model: Any,
    message: str,
) -> None:
    topics.write(1)  # what tells how many features there are
    monkeypatch.setenv(setting, value)
    with pytest.raises(ModelError, match=message):
        publish(model)


def test_code_of_the_notebook_itself_is_refused(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Local, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    with pytest.raises(ModelError, match="a class or function of __main__"):
        publish(Local())
    mixed = make_pipeline(FunctionTransformer(lambda matrix: matrix), LogisticRegression())
    with pytest.raises(ModelError, match="cannot be pickled"):
        publish(fitted(mixed))


def test_a_dry_run_shows_the_envelope_and_publishes_nothing(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.write(10)
    path = tmp_path / "model.joblib"
    joblib.dump(regression(), path)
    assert main([str(path), "--dry-run", "--no-pin", "--trained-to", "0:5"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "pickle" not in shown
    assert (shown["version"], shown["algorithm"]) == (None, "LogisticRegression")
    assert topics.models() == []
    assert main([str(path), "--no-pin", "--trained-to", "0:5"]) == 0
    (published,) = topics.models()
    other = {"version", "created", "after", "stream", "bytes", "parts"}
    assert {n: v for n, v in shown.items() if n not in other} == {
        n: published[n] for n in shown if n not in other
    }
    assert (published["trained_to"], published["pinned"]) == ({"0": 5}, False)


def test_without_a_trusted_key_nothing_is_published(
    topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(regression(), path)
    monkeypatch.setenv("SIGNING_KEY", str(tmp_path / "none.pem"))
    assert main([str(path)]) == 1
    assert "none.pem: no such file" in capsys.readouterr().err
    assert not (tmp_path / "none.pem").exists()
    monkeypatch.setenv("SIGNING_KEY", str(topics_key(tmp_path)))
    assert main([str(path)]) == 1
    assert "is not trusted; trusted in" in capsys.readouterr().err
    assert topics.models() == []


def topics_key(folder: Path) -> Path:
    from stream.keys import signing_key

    signing_key(folder / "other.pem")
    return folder / "other.pem"


def test_a_backtest_leaves_out_what_either_model_was_trained_on_and_compares_the_rest(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.write(1_000)
    topics.write(10, label=False)
    topics.write_values([b'{"id":1,"features":[null,1],"label":1}', b"garbage"])
    path = tmp_path / "model.joblib"
    joblib.dump(regression(), path)
    assert main([str(path), "--backtest", "--no-pin", "--trained-to", "0:99"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        "no model is being served to compare with",
        "backtest on 900 of the newest 1001 labelled records; 100 left out as one of the models"
        " was trained on them, 1 as one of them does not take them",
    ]
    assert printed[2].startswith("this model   accuracy 0.9")

    assert [model["version"] for model in topics.models()] == [1]
    upside_down = fitted(LogisticRegression(), 2, (1, 0))
    joblib.dump(upside_down, path)
    assert main([str(path), "--backtest", "500", "--dry-run"]) == 0
    warning, ours, theirs, test = capsys.readouterr().err.splitlines()[1:]
    assert warning.startswith("this model does not say what it was trained on: if these records")
    assert ours.startswith("this model   accuracy 0.0")
    assert theirs.startswith("model 1      accuracy 0.9")
    assert "p = " in test
    assert float(test.rsplit(" ", 1)[1]) < 1e-9

    assert main([str(path), "--backtest", "--dry-run", "--trained-to", "0:2000"]) == 0
    assert "nothing to compare on" in capsys.readouterr().err


def test_settings_can_be_handed_over_from_python(
    settings_env: dict[str, str],
) -> None:
    with Topics(settings_env) as topics:
        assert publish(regression(), pin=False, settings=topics.settings) == 1
        assert topics.models()[0]["pinned"] is False
