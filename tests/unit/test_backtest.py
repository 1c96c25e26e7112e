from __future__ import annotations

import pytest

from modelgenerator.publish.backtest import difference, outcomes, score
from modelgenerator.publish.newest import Found
from quality.scores import Scores
from stream.classifier import Model
from stream.records import Record
from tests.unit.classifiers import model
from tests.unit.customers import NAMES, SCHEMA, customers, fitted, records


def marks(correct: int, n: int) -> list[bool]:
    return [True] * correct + [False] * (n - correct)


def marks_of(model: Model, found: list[Found]) -> list[bool | None]:
    return [None if each is None else each.right for each in outcomes(model, found)]


@pytest.mark.parametrize(
    ("correct", "n", "interval"),
    [
        (0, 10, "0.0000 to 0.2775"),
        (10, 10, "0.7225 to 1.0000"),
        (9, 10, "0.5958 to 0.9821"),
        (90, 100, "0.8256 to 0.9448"),
    ],
)
def test_the_accuracy_has_wilsons_interval(correct: int, n: int, interval: str) -> None:
    line = score("a", marks(correct, n))
    assert line == f"a            accuracy {correct / n:.4f}  95 % interval {interval}"


@pytest.mark.parametrize(
    ("only", "other", "p"),
    [(9, 1, "0.02148"), (1, 9, "0.02148"), (5, 5, "1"), (0, 7, "0.01562"), (0, 0, "1")],
)
def test_the_paired_test_is_mcnemars_exact_one(only: int, other: int, p: str) -> None:
    both = [True] * 3
    right, other_right = both + [True] * only, both + [False] * only
    assert difference("a", right + [False] * other, "b", other_right + [True] * other) == (
        f"only a has {only} right, only b {other}: McNemar's exact p = {p}"
    )


def test_each_model_reads_the_records_by_its_own_layout() -> None:
    frame, labels = customers()
    sent = [
        *records(frame, labels)[:3],
        *records(frame, labels, by_name=True)[3:50],
        Record(50, {"plan": 1, "age": 30}, "yes"),
        Record(51, {"plan": "pro"}, "maybe"),
        Record(52, [1.0, 2.0], 1),
    ]
    found = [Found(0, offset, 0, record) for offset, record in enumerate(sent)]
    classifier, _ = fitted("one-hot", frame, labels)
    of_customers = model(
        classifier=classifier,
        features=len(NAMES),
        feature_names=NAMES,
        types=SCHEMA.types,
        positive="yes",
        negative="no",
        accepts_missing=True,
    )
    right = (classifier.predict(frame) == labels)[:50].tolist()
    assert marks_of(of_customers, found) == [*right, None, None, None]
    assert marks_of(model(), found) == [None] * 52 + [True]
    assert marks_of(model(), found[:3]) == [None] * 3


def test_outcomes_tell_whether_a_label_is_that_before_it_of_the_same_partition() -> None:
    places = [(0, 1), (0, 1), (1, 0), (0, 0), (1, 0)]
    found = [
        Found(partition, offset, 0, Record(offset, [1.0, 0.0], label))
        for offset, (partition, label) in enumerate(places)
    ]
    scores = Scores()
    for outcome in outcomes(model(), found):
        assert outcome
        scores.add(outcome)
    assert (scores.n, scores.correct, scores.no_change) == (5, 2, 2 / 3)
