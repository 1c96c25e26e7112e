"""Records with categories, times and names, and labels that are texts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from stream.layout import Layout
from stream.records import Record, Schema, Type
from tests.mutations import environment
from tests.services import Services, await_line, eventually
from tests.topics import Topics, await_answered, await_serving

TYPES: dict[str, Type] = {
    "age": "number",
    "weight": "number",
    "plan": "category",
    "since": "time",
}
PLANS = ["pro", "free", "Zürich", None]


def schema(*names: str) -> Schema:
    types = [TYPES[name] for name in names]
    return Schema([*names], positive="yes", negative="no", types=types)


def customers(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make customers; the weight goes first, as no schema has it."""
    rng = np.random.default_rng(seed)
    return [
        {
            "weight": float(rng.normal(70, 10)),
            "age": float(rng.normal(40, 10)) if rng.random() < 0.9 else None,
            "plan": PLANS[rng.integers(4)],
            "since": f"20{rng.integers(10, 26)}-0{rng.integers(1, 9)}-11",
        }
        for _ in range(count)
    ]


def is_positive(customer: dict[str, Any]) -> bool:
    return customer["plan"] == "pro" or (customer["age"] or 0) > 45


def publish(topics: Topics, version: int, *names: str, **changes: Any) -> None:
    """Publish a pipeline that was fitted on a data frame with these columns."""
    training = customers(400, seed=9)
    layout = Layout(len(names), names, [TYPES[name] for name in names])
    records = [Record(0, [customer[name] for name in names]) for customer in training]
    rows = [[*layout.read(record).features] for record in records]
    model = make_pipeline(
        ColumnTransformer(
            [("plan", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["plan"])],
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(max_iter=20),
    )
    labels = [int(is_positive(customer)) for customer in training]
    model.fit(pd.DataFrame(layout.matrix(rows)), labels)
    said: dict[str, Any] = {
        "features": len(names),
        "feature_names": [*names],
        "types": [TYPES[name] for name in names],
        "positive": "yes",
        "negative": "no",
        "accepts_missing": True,
        "probes": rows[:8],
    }
    topics.publish(version, model, **said | changes)


def value(id: int, features: Any, label: Any = None) -> bytes:
    return msgspec.json.encode({"id": id, "features": features, "label": label})


def await_all(topics: Topics, count: int) -> list[dict[str, Any]]:
    await_answered(topics, count)
    return topics.predictions()


def assert_clean(topics: Topics, start: Services) -> None:
    """Both checks recompute everything, and find nothing."""
    report = topics.check()
    assert not report.not_checked
    assert report.recomputed == report.predictions
    verified = start.verify()
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "not checked" not in verified.stdout


def test_objects_and_lists_are_predicted_the_same_also_when_the_schema_changes_meanwhile(
    topics: Topics, start: Services
) -> None:
    before, after = ("age", "weight", "plan", "since"), ("weight", "since", "plan", "age")
    topics.describe(schema(*before))
    publish(topics, 1, *before)
    found = customers(50)
    listed = [[customer[name] for name in before] for customer in found]
    labels = ["yes" if is_positive(customer) else "no" for customer in found]
    topics.write_values(map(value, range(50), listed, labels))
    topics.write_values(map(value, range(50), found, labels))
    start("predictor")
    predictions = await_all(topics, 100)
    topics.describe(schema(*after))
    topics.write_values(map(value, range(50), found, labels))
    predictions = await_all(topics, 150)
    assert {p["model"] for p in predictions} == {1}
    publish(topics, 2, *after)
    eventually(lambda: _write_until(topics, found, 2), 60)
    await_answered(topics, len(topics.records(topics.settings.data_topic)))
    predictions = topics.predictions()
    columns = ("prediction", "probability", "label")
    first, second, third = (
        [[p[column] for column in columns] for p in predictions[at : at + 50]]
        for at in (0, 50, 100)
    )
    assert first == second == third
    assert sorted({p["label"] for p in predictions}) == [0, 1]
    assert predictions[149]["accuracy"] > 0.85
    assert topics.rejected() == []
    assert_clean(topics, start)


def _write_until(topics: Topics, found: list[dict[str, Any]], version: int) -> bool:
    topics.write_values([value(7, found[0], "yes")])
    assert topics.rejected() == []
    return any(p["model"] == version for p in topics.predictions()[-50:])


def test_a_value_of_another_type_is_rejected_with_feature_value_and_type(
    topics: Topics, start: Services
) -> None:
    topics.describe(schema("age", "plan", "since"))
    publish(topics, 1, "age", "plan", "since")
    wrong: list[tuple[Any, Any, str]] = [
        (["39", "pro", None], 1, "features[0] 'age': expected a number, got '39'"),
        ([39, 7, None], 1, "features[1] 'plan': expected a text of at most 256 bytes, got 7"),
        ({"since": 7}, 1, "features[2] 'since': expected a time in ISO 8601, such as"),
        ({"plna": "pro"}, 1, "features: the stream has no 'plna'; nearest is 'plan'"),
        ({"age": [1]}, 1, "features 'age': expected one value, got several"),
        ([39, "pro"], 1, "features: expected 3 features, got 2"),
        ([39, "pro", None], "maybe", "label: expected 0 or 1, true or false, 'no' or 'yes', got"),
    ]
    topics.write_values(value(1, features, label) for features, label, _ in wrong)
    topics.write_values([value(2, {"plan": "never seen before"}, True)])
    start("predictor")
    await_answered(topics, len(wrong) + 1)
    for found, (*_, reason) in zip(topics.rejected(), wrong, strict=True):
        assert found["reason"].startswith(reason)
    (prediction,) = topics.predictions()
    assert (prediction["label"], prediction["n"]) == (1, 1)
    assert_clean(topics, start)


def test_labels_that_are_texts_are_counted_once_also_over_kill_9_with_some_held(
    topics: Topics, start: Services
) -> None:
    publish(topics, 1, "age", "plan")
    topics.write_values(value(id, [id, "pro"]) for id in range(40))
    predictor = start("predictor", LABEL_EARLY_SECONDS="3600")
    await_answered(topics, 40)
    for id in range(20):
        topics.label("yes" if id % 2 else "no", id)
    topics.label("maybe", 21)
    for id in (50, 51):  # these are not there yet
        topics.label("yes", id)
    topics.producer.flush(30)
    eventually(lambda: len(topics.outcomes()) == 20)
    eventually(lambda: len(topics.rejected_labels()) == 1)
    eventually(lambda: json.loads(start.verify("--json").stdout)["held_labels"] == 2)
    predictor.kill()
    topics.write_values(value(id, [id, "free"]) for id in range(50, 52))
    topics.write_values([value(52, [52, "free"], "no")])
    start("predictor", LABEL_EARLY_SECONDS="3600")
    eventually(lambda: len(topics.outcomes()) == 22, 90)
    await_answered(topics, 43 + 22)  # predictions and outcomes
    assert [o["label"] for o in topics.outcomes()] == [id % 2 for id in range(20)] + [1, 1]
    assert max(p["n"] for p in topics.predictions()) == 23
    (rejected,) = topics.rejected_labels()
    assert rejected["reason"].endswith("'no' or 'yes', got 'maybe'")
    assert_clean(topics, start)


def test_a_label_that_is_a_text_waits_for_a_model_inside_a_record_and_on_its_topic(
    topics: Topics, start: Services
) -> None:
    topics.write_values(value(id, {"age": id, "plan": "pro"}, "yes") for id in range(10))
    topics.write_values([value(10, {"age": 1, "plan": "pro"})])
    topics.label("no", 10)
    topics.producer.flush(30)
    predictor = start("predictor", LABEL_EARLY_SECONDS="3600")
    reason = "features: an object needs a schema with the names of the features"
    await_line(predictor, f"11 records wait, invalid: 11, most often {reason}")
    assert (topics.answered(), topics.rejected_labels()) == (0, [])
    publish(topics, 1, "age", "plan")
    await_answered(topics, 12)
    eventually(lambda: len(topics.outcomes()) == 1)
    assert [p["label"] for p in topics.predictions()] == [1] * 10 + [None, 0]
    assert_clean(topics, start)


def test_a_wrong_prediction_of_named_features_is_found_by_both_checks(
    topics: Topics, start: Services
) -> None:
    publish(topics, 1, "age", "weight", "plan", "since")
    topics.write_values(value(id, customer) for id, customer in enumerate(customers(50)))
    start("predictor", **environment("named features are taken in the order of the sender"))
    await_answered(topics, 50)
    with pytest.raises(AssertionError, match="I6 prediction partition 0"):
        topics.check()
    verified = start.verify()
    assert verified.returncode != 0
    assert "I6" in verified.stdout + verified.stderr


def test_texts_without_a_schema_are_named_in_the_line_about_what_waits(
    topics: Topics, start: Services
) -> None:
    topics.write_values(value(id, [1.0, 2.0], "1") for id in range(1_500))
    predictor = start("predictor")
    reason = "label: expected 0 or 1, true or false; a text needs positive and negative in the"
    await_line(
        predictor, f"1,500 records wait, invalid: 1,500, most often {reason} schema, got '1'"
    )
    assert topics.answered() == 0
    topics.publish(1)
    await_serving(topics, 1)
    await_answered(topics, 1_500 + topics.written())
    assert len(topics.rejected()) == 1_500
    topics.check()
