from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from examples.make_customers import FORMATS
from stream.records import Schema
from tests.services import ROOT, Services, eventually
from tests.topics import Topics, regression

PEOPLE = Schema(
    ["age", "hours", "job"],
    "income",
    ">50K",
    types=["number", "number", "category"],
    negative="<=50K",
)
DOCS = ROOT / "docs"
CUSTOMERS = Schema(
    ["age", "plan", "active", "since"],
    "churned",
    "yes",
    types=["number", "category", "number", "time"],
    negative="no",
)
"""The schema of docs/your-own-data.md."""


def example(document: str, number: int = 0) -> str:
    """Return the Python of a document; of the first example, if no other is asked for."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / document).read_text(), re.S)
    return str(found[number])


def run(source: str, start: Services, folder: Path) -> str:
    done = start.python("-c", source, cwd=folder, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def people(count: int) -> pd.DataFrame:
    """Return people of the schema of docs/your-own-model.md."""
    rng = np.random.default_rng(0)
    found = pd.DataFrame(rng.integers(0, 60, size=(count, 2)), columns=["age", "hours"])
    found["job"] = rng.choice(["sales", "crafts", "care"], count)
    found["income"] = np.where(found["hours"] > 40, ">50K", "<=50K")
    return found


def write(topics: Topics, found: pd.DataFrame) -> None:
    """Send people, named features and all."""
    topics.describe(PEOPLE)
    rows = enumerate(found.to_dict("records"))
    values = [{"id": id, "label": row.pop("income"), "features": row} for id, row in rows]
    topics.write_values(json.dumps(value).encode() for value in values)


def test_the_model_of_the_document_serves_its_stream(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    found = people(200)
    write(topics, found[:20])
    found.loc[::7, "age"] = np.nan
    found.to_csv(tmp_path / "people.csv", index=False)
    source = example("your-own-model.md")
    assert len([line for line in source.split("\n\n", 1)[1].splitlines() if line]) <= 10
    assert run(without_waiting(source), start, tmp_path) == "published as model 1\n"
    topics.write_values(
        [b'{"id":1,"features":[null,50,"care"]}', b'{"id":2,"features":{"hours":10,"job":"new"}}']
    )
    start("predictor")
    eventually(lambda: len(topics.predictions()) == 22, 90)
    assert [p["prediction"] for p in topics.predictions()[20:]] == [1, 0]
    topics.check()


def without_waiting(source: str) -> str:
    assert source.count("publish(model, ") == 1
    return source.replace("publish(model, ", "publish(model, wait=0, ")


def test_the_document_trains_on_records_of_the_stream(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    write(topics, people(80))
    done = start.python("-m", "modelgenerator.labelled", str(tmp_path / "train.csv"))
    assert done.returncode == 0, done.stderr
    source = without_waiting(example("your-own-model.md", 1)).replace("< 50000", "< 60")
    assert run(source, start, tmp_path) == "published as model 1\n"
    assert topics.models()[0]["trained_to"] == {"0": 59}


def test_the_recipes_of_the_document_are_a_table(start: Services, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example("your-own-model.md", 2))
    table = "from modelgenerator.training.recipes import recipes\nfound = recipes('mine:MINE')\n"
    shown = run(f"{table}print([each.name for each in found])", start, tmp_path)
    assert shown == "['sgd', 'rff', 'knn', 'linear', 'hgb_since', 'bayes']\n"


def test_the_producer_of_late_labels_of_the_document_is_counted(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    source = example("your-own-data.md", 1)
    assert len([line for line in source.splitlines() if line]) <= 21
    topics.describe(CUSTOMERS)
    run(source, start, tmp_path)
    publish_for_customers(topics)
    start("predictor")
    outcomes = eventually(lambda: [p for p in topics.predictions() if p.get("outcome")][2:], 90)
    assert outcomes[-1]["n"] == 3
    assert [p["label"] for p in topics.predictions()] == [None] * 3 + [0, 1, 1]
    assert all(p["delay"] >= 0.9 for p in topics.predictions()[3:])
    topics.check()


def publish_for_customers(topics: Topics) -> None:
    """Publish a model of the schema that the document describes."""
    rows = pd.DataFrame(
        [[39.0, "pro", 1.0, 0.0], [np.nan, "free", 0.0, 1.0]], columns=CUSTOMERS.feature_names
    )
    plans = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["plan"]))
    said = {"feature_names": CUSTOMERS.feature_names, "types": CUSTOMERS.types}
    texts = {"positive": CUSTOMERS.positive, "negative": CUSTOMERS.negative}
    topics.publish(
        1,
        make_pipeline(plans, regression()).fit(rows, [0, 1]),
        **(said | texts),
        features=4,
        accepts_missing=True,
        probes=[[39.0, "pro", 1.0, 0.0]],
    )


def test_what_the_document_says_is_rejected_is_rejected_in_these_words(
    topics: Topics, start: Services
) -> None:
    rows = re.findall(r"^\| `(\".*)` \| `(.*)` \|$", (DOCS / "your-own-data.md").read_text(), re.M)
    assert len(rows) == 7
    (shown,) = re.findall(r'^{"id": 17, .*}$', (DOCS / "your-own-data.md").read_text(), re.M)
    records = []
    for changed, _ in rows:
        record, members = json.loads(shown), json.loads(f"{{{changed}}}")
        (record if {"features", "label"} & {*members} else record["features"]).update(members)
        records.append(json.dumps(record).encode())
    topics.describe(CUSTOMERS)
    publish_for_customers(topics)
    topics.write_values([shown.encode(), *records])
    start("predictor")
    eventually(lambda: topics.answered() == 1 + len(rows), 90)
    assert [p["label"] for p in topics.predictions()] == [1]
    assert [r["reason"] for r in topics.rejected()] == [reason for _, reason in rows]
    topics.check()


def test_the_document_shows_how_the_table_of_customers_is_understood(
    start: Services, tmp_path: Path
) -> None:
    (tmp_path / "customers.csv").write_bytes(FORMATS["csv"]())
    document = (DOCS / "your-own-data.md").read_text()
    line, shown = re.findall(
        r"^    (.*) python -m datagenerator.look customers.csv\n\n```\n(.*?)\n```$",
        document,
        re.M | re.S,
    )[0]
    settings = dict(word.split("=") for word in line.split())
    done = start.python(
        "-m",
        "datagenerator.look",
        "customers.csv",
        cwd=tmp_path,
        env=settings | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout.strip(), done.stderr) == (shown, "")
