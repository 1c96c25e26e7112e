"""The modelgenerator and the predictor on records with names, categories, times and gaps."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import joblib

from stream.records import Cell, Schema, Type
from tests.services import Services, assert_ends, await_line, eventually
from tests.topics import Topics, await_answered

CUSTOMERS = Schema(
    ["age", "plan", "since", "active"],
    "stays",
    "yes",
    types=["number", "category", "time", "number"],
    negative="no",
)
PLANS = ["free", "pro", "team", "trial"]


def customer(id: int, plan: str | None = None) -> dict[str, Any]:
    """A record with named features, some of them missing; it stays if its plan costs something."""
    chance = random.Random(id)
    features: dict[str, Any] = {
        "plan": plan or chance.choice(PLANS),
        "active": chance.random() < 0.5,
        "since": f"20{chance.randrange(10, 26)}-0{chance.randrange(1, 10)}-11T10:00:00Z",
        "age": None if chance.random() < 0.1 else chance.randrange(18, 90),
    }
    if chance.random() < 0.1:
        del features["since"]
    return {"id": id, "features": features, "label": label_of(features)}


def label_of(features: Mapping[str, Any]) -> str:
    """One customer in three stays."""
    return "yes" if features["plan"] == "pro" or features["plan"] == "team" else "no"


def write(topics: Topics, start: int, end: int, *, labels: bool = True) -> None:
    found = [customer(id) for id in range(start, end)]
    if not labels:
        for each in found:
            del each["label"]
    topics.write_values(json.dumps(each).encode() for each in found)


def write_labels(topics: Topics, start: int, end: int) -> None:
    for id in range(start, end):
        value = json.dumps({"id": id, "label": customer(id)["label"]}).encode()
        topics.producer.send(topics.settings.label_topic, value, partition=0)
    topics.producer.flush(30)


def test_records_by_name_with_categories_are_trained_on_served_and_predicted_well(
    topics: Topics, start: Services
) -> None:
    topics.describe(CUSTOMERS)
    write(topics, 0, 300)
    generator = start("modelgenerator")
    predictor = start("predictor")
    ((envelope, pickle),) = eventually(lambda: topics.assembled()[:1])
    assert (envelope.feature_names, envelope.types) == (CUSTOMERS.feature_names, CUSTOMERS.types)
    assert (envelope.positive, envelope.negative) == ("yes", "no")
    assert envelope.accepts_missing
    rows: list[list[Cell]] = [[30.0, "pro", 1e9, 1.0], [30.0, "free", 1e9, 1.0]]
    model = joblib.load(io.BytesIO(pickle))
    assert model.predict(envelope.layout.matrix(rows)).tolist() == [1, 0]
    await_answered(topics, 300)
    write(topics, 300, 800)
    never_seen = [customer(id, plan="never seen") for id in range(800, 820)]
    topics.write_values(json.dumps(each).encode() for each in never_seen)
    await_answered(topics, 820)
    assert topics.rejected() == []
    newest = topics.predictions()[300:]
    right = sum(p["prediction"] == p["label"] for p in newest[:500])
    assert right > 0.95 * 500
    assert [p["label"] for p in newest[500:]] == [0] * 20
    assert {p["prediction"] for p in newest[500:]} <= {0, 1}
    assert_ends(generator)
    assert_ends(predictor)


def test_late_labels_that_are_texts_are_trained_on(topics: Topics, start: Services) -> None:
    topics.describe(CUSTOMERS)
    process = start("modelgenerator")
    await_line(process, "partition=0 from offset=")
    write(topics, 0, 300, labels=False)
    topics.producer.send(topics.settings.label_topic, b'{"id":5,"label":"maybe"}', partition=0)
    write_labels(topics, 0, 250)
    ((envelope, _),) = eventually(topics.assembled)
    assert (envelope.trained_on, envelope.trained_to) == (200, {"0": 199})
    assert envelope.types == CUSTOMERS.types
    assert_ends(process)


def test_a_schema_that_comes_while_running_is_followed_and_other_types_start_over(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    await_line(process, "partition=0 from offset=")
    topics.describe(Schema(["age", "plan"], "stays", "yes", negative="no"))
    topics.write(250)
    eventually(topics.assembled)
    topics.describe(CUSTOMERS)
    await_line(process, ".schema names 4 features, the models have 2; training starts over")
    write(topics, 250, 550)
    eventually(lambda: [e.types for e, _ in topics.assembled()][-1] == CUSTOMERS.types)
    numbers = Schema(CUSTOMERS.feature_names, types=["number", "number", "time", "number"])
    topics.describe(numbers)
    await_line(
        process, ".schema: feature 1 'plan' is now a number, not a category; training starts over"
    )
    count = len(topics.assembled())
    topics.write_values(
        b'{"id":%d,"features":[%d,%d,"2026-01-01",null],"label":%d}' % (n, n, n % 7, n % 2)
        for n in range(250)
    )
    newer, _ = eventually(lambda: topics.assembled()[count:])[0]
    assert newer.types == numbers.types
    assert newer.trained_to == {"0": 749}
    assert_ends(process)
    assert "Traceback" not in process.log()


def test_after_a_restart_a_model_of_other_types_than_the_schemas_is_trained_anew(
    topics: Topics, start: Services
) -> None:
    texts: list[Type] = ["number", "category", "category", "number"]
    topics.describe(replace(CUSTOMERS, types=texts))
    write(topics, 0, 250)
    process = start("modelgenerator")
    eventually(topics.assembled)
    assert_ends(process)
    topics.describe(CUSTOMERS)
    start("modelgenerator")
    found = eventually(lambda: topics.assembled()[1:] and topics.assembled())
    older, newer = (envelope for envelope, _ in found)
    assert (older.types, newer.types) == (texts, CUSTOMERS.types)
    assert older.trained_to == newer.trained_to == {"0": 199}


def test_texts_without_a_schema_are_explained_with_an_example(
    topics: Topics, start: Services
) -> None:
    topics.write_values(b'{"id":%d,"features":["pro",1],"label":1}' % n for n in range(1_500))
    process = start("modelgenerator")
    await_line(
        process,
        "1,500 records read: 0 labelled 0, 0 labelled 1, invalid 1,500, most often features[0]:"
        " expected a number, got 'pro' (1,500 of them, first at partition 0 offset 0)",
    )
    assert_ends(process)
