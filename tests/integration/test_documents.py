from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from stream.records import Schema
from tests.services import ROOT, Services, eventually
from tests.topics import Topics, regression

COLUMNS = ["age", "hours", "zone"]


def example(document: str, number: int = 0) -> str:
    """Return the Python of a document; of the first example, if no other is asked for."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.S)
    return str(found[number])


def run(source: str, start: Services, folder: Path) -> str:
    done = start.python("-c", source, cwd=folder, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_model_of_the_document_serves_its_stream(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    people = pd.DataFrame(rng.integers(0, 60, size=(200, 3)), columns=COLUMNS).astype(float)
    people["income"] = np.where(people["hours"] > 40, ">50K", "<=50K")
    people.loc[::7, "age"] = np.nan
    people.to_csv(tmp_path / "people.csv", index=False)
    topics.describe(Schema(COLUMNS, "income", ">50K"))
    source = example("your-own-model.md")
    assert len([line for line in source.split("\n\n", 1)[1].splitlines() if line]) <= 10
    assert run(without_waiting(source), start, tmp_path) == "published as model 1\n"
    topics.write_values([b'{"id":1,"features":[null,50,2]}', b'{"id":2,"features":[30,10,77]}'])
    start("predictor")
    eventually(lambda: len(topics.predictions()) == 2, 90)
    assert [p["prediction"] for p in topics.predictions()] == [1, 0]
    topics.check()


def without_waiting(source: str) -> str:
    assert source.count("publish(model, ") == 1
    return source.replace("publish(model, ", "publish(model, wait=0, ")


def test_the_document_trains_on_records_of_the_stream(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.describe(Schema(COLUMNS, "income", ">50K"))
    rng = np.random.default_rng(0)
    rows = enumerate(rng.integers(0, 60, size=(80, 3)).tolist())
    topics.write_values(
        [
            json.dumps({"id": i, "features": row, "label": int(row[1] > 40)}).encode()
            for i, row in rows
        ]
    )
    done = start.python("-m", "modelgenerator.labelled", str(tmp_path / "train.csv"))
    assert done.returncode == 0, done.stderr
    source = without_waiting(example("your-own-model.md", 1)).replace("< 50000", "< 60")
    assert run(source, start, tmp_path) == "published as model 1\n"
    assert topics.models()[0]["trained_to"] == {"0": 59}


def test_the_producer_of_late_labels_of_the_document_is_counted(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    source = example("your-own-data.md", 1)
    assert len([line for line in source.splitlines() if line]) <= 20
    run(source, start, tmp_path)
    matrix = np.random.default_rng(0).normal(size=(50, 3))
    topics.publish(1, regression().fit(matrix, matrix[:, 0] > 0), features=3)
    start("predictor")
    outcomes = eventually(lambda: [p for p in topics.predictions() if p.get("outcome")][2:], 90)
    assert outcomes[-1]["n"] == 3
    assert [p["label"] for p in topics.predictions()] == [None] * 3 + [1, 0, 1]
    assert all(p["delay"] >= 0.9 for p in topics.predictions()[3:])
    topics.check()


def test_the_producer_of_the_document_is_predicted(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    run(example("your-own-data.md"), start, tmp_path)
    matrix = np.random.default_rng(0).normal(size=(50, 3))
    model = regression().fit(matrix, matrix[:, 0] > 0)
    topics.publish(1, model, features=3, feature_names=COLUMNS)
    start("predictor")
    eventually(lambda: topics.answered() == 3, 90)
    assert [p["id"] for p in topics.predictions()] == [0, 2]
    (rejected,) = topics.rejected()
    assert "accepts none there" in rejected["reason"]
