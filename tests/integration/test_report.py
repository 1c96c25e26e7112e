"""A model's report, from the topics as services have written them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
from kafka import TopicPartition
from msgspec.structs import replace as changed
from sklearn.linear_model import LogisticRegression

from modelgenerator.publish import publish
from stream.models import pack
from stream.records import encode_record
from tests.integration.test_models_command import models
from tests.services import Services, await_line, eventually
from tests.topics import Topics, await_answered, await_serving, regression
from tests.unit.classifiers import STRANGER, Malicious, envelope, pickled
from tests.unit.customers import SCHEMA, customers, fitted, records
from tests.unit.test_report import EVIL, Structure, text_of

COUNT = 600


def report(env: dict[str, str], *arguments: str) -> str:
    """Return what one reads in a report, which is one sound HTML file."""
    status, html, errors = models(env, "report", "--output", "-", *arguments)
    assert (status, errors) == (0, "")
    structure = Structure(html)
    assert not {"script", "img"} & {*structure.seen}
    assert not {"src", "href", "onerror"} & structure.attributes
    return text_of(html)


def rated(predictions: list[dict[str, object]]) -> str:
    """Return records and accuracy as a report has them."""
    right = sum(p["prediction"] == p["label"] for p in predictions)
    return f"{len(predictions)} {right / len(predictions):.4f}"


def test_a_served_model_has_its_accuracy_by_category_and_the_models_before_it(
    topics: Topics, start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    frame, labels = customers(COUNT)
    topics.describe(SCHEMA)
    sent = records(frame, labels, by_name=True)
    of_evil = records(frame.assign(city=EVIL), labels, by_name=True)
    evil = [changed(each, id=f"{EVIL}{each.id}") for each in of_evil]
    topics.write_values(map(encode_record, sent[:1]))
    classifier, _ = fitted("one-hot", frame, labels)
    assert publish(classifier, wait=0, settings=topics.settings, reason=EVIL) == 1
    predictor = start("predictor")
    topics.write_values(map(encode_record, sent[1:]))
    await_answered(topics, COUNT)
    assert publish(classifier, wait=0, settings=topics.settings) == 2
    await_line(predictor, "model 2 (by_hand) serves from the next unit")
    topics.write_values(map(encode_record, evil))
    await_answered(topics, 2 * COUNT)

    made = {n: [p for p in topics.predictions() if p["model"] == n] for n in (1, 2)}
    first = report(settings_env, "1")
    assert first.startswith("Model 1 Model 1 LogisticRegression, replaced")
    right = sum(p["prediction"] == p["label"] for p in made[1])
    assert f"Accuracy {right / COUNT:.4f}" in first
    city = [p for p, name in zip(made[1], frame["city"], strict=True) if name == "Łódź"]
    assert f"city Łódź {rated(city)}" in first.replace(" different", "")
    assert "city missing" in first
    assert "None that served is known." in first

    path = tmp_path / "report.html"
    assert models(settings_env, "report", "2", "--output", str(path))[0] == 0
    status, _, errors = models(settings_env, "report", "2", "--output", str(path))
    assert (status, errors) == (1, f"{path}: exists already; --force overwrites it\n")
    second = report(settings_env, "2")
    assert text_of(path.read_text()) == second
    assert f"{rated(made[2])} " in second
    assert "1 LogisticRegression model 2: by hand" in second
    assert r"&lt;script&gt;" in second
    assert "2, this one LogisticRegression serving" in second

    place = TopicPartition(topics.settings.data_topic, 0)
    topics.admin.delete_records({place: 2 * COUNT})
    expired = report(settings_env, "1")
    assert "The data topic no longer has these records" in expired
    assert f"Accuracy {right / COUNT:.4f}" in expired


def test_a_vote_of_the_modelgenerator_is_reported_with_its_weights(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    start("modelgenerator")
    start("predictor")
    topics.write(200)

    def later() -> list[int]:
        topics.write(50)
        return [s["version"] for s in topics.statuses() if s["version"] > 2]

    version = str(eventually(later)[0])
    await_answered(topics)
    found = report(settings_env, version)
    assert re.search(r"Calibration a line through \d+ points: of the vote, 0.1 becomes 0.", found)
    weights = re.findall(r"(\w+) (\w*Classifier|LogisticRegression) ([01]\.\d{4}) ", found)
    assert {name for name, *_ in weights} <= {"sgd", "rff", "knn", "linear", "hgb_since"}
    assert sum(float(weight) for *_, weight in weights) == pytest.approx(1, abs=0.001)
    assert f"{version}, this one Vote" in found


def test_labels_that_come_later_count_for_the_model_that_predicted(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    start("predictor")
    topics.write(100, label=False)
    await_answered(topics)
    assert "nothing is known of its quality" in report(settings_env, "1")
    topics.publish(2)
    await_serving(topics, 2)  # it writes records with labels
    topics.label_ids(*range(100))
    eventually(lambda: len(topics.outcomes()) == 100)
    found = report(settings_env, "1")
    late = topics.outcomes()
    counted = [p for p in topics.predictions() if p["model"] == 1 and p["label"] is not None]
    assert {o["model"] for o in late} == {1}
    right = sum(p["prediction"] == p["label"] for p in counted)
    assert f"Accuracy {right / len(counted):.4f}" in found
    assert f"on {len(counted)} records" in found
    assert "No feature is a category." in found


def test_a_model_before_it_is_served_and_a_file_are_tried_on_the_newest_records(
    topics: Topics, settings_env: dict[str, str], tmp_path: Path
) -> None:
    topics.write(300)
    topics.publish_next(envelope(trained_to={"0": 99}))
    topics.await_decided()
    found = report(settings_env, "1")
    assert "Model 1 Sign, waiting" in found
    assert "It made 0 predictions" in found
    assert "--on 2000" in found
    found = report(settings_env, "1", "--on", "250")
    assert "backtest on 200 of the newest 250 labelled records" in found
    assert "on 200 records" in found

    path = tmp_path / "my model.joblib"
    joblib.dump(regression(), path)
    found = report(settings_env, str(path))
    assert found.startswith("my model.joblib my model.joblib LogisticRegression, not published")
    assert "backtest on" in found
    assert "only this model has" in found
    assert topics.versions() == [1]


def test_what_cannot_be_reported_is_named_in_one_line_and_nothing_is_unpickled(
    topics: Topics, settings_env: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "malicious code ran"
    topics.publish(1)
    evil = pickled(Malicious(marker))
    for version, key in ((2, None), (3, STRANGER)):
        topics.send(pack(envelope(version), evil, key))
    (signed,) = pack(envelope(4), pickled(LogisticRegression()), topics.key)
    (other,) = pack(envelope(4), evil, topics.key)
    topics.send([replace(signed, value=other.value)])
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    expected = {
        "2": "model 2 cannot be loaded: expected one signature header, got none",
        "3": "model 3 cannot be loaded: not signed by a trusted key",
        "4": "model 4 cannot be loaded: not signed by a trusted key",
        "9": "no model 9; it has 1 to 4",
        str(tmp_path / "none.joblib"): "No such file",
        str(tmp_path / "table.csv"): "not a joblib or pickle file, but a table such as CSV",
    }
    for given, reason in expected.items():
        output = tmp_path / "report.html"
        status, said, errors = models(settings_env, "report", given, "--output", str(output))
        assert (status, said, len(errors.splitlines())) == (1, "", 1), errors
        assert reason in errors
        assert not output.exists()
    assert not marker.exists()


@pytest.mark.parametrize(
    "given", [["0.5", "--on", "0"], ["1", "--on", "x"], ["1", "--predictions"]]
)
def test_a_wrong_option_of_a_report_ends_with_status_2(given: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        models({}, "report", *given)
    assert caught.value.code == 2
