from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from stream.classifier import Model, check, load
from stream.models import ModelError
from stream.records import Schema
from tests.unit.classifiers import envelope, pickled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 2))
Y = (X[:, 0] > 0).astype(int)


def test_a_classifier_gives_the_label_and_the_probability_of_label_1() -> None:
    model = load(envelope(), pickled(LogisticRegression().fit(X, Y)))
    labels, probabilities = model.predict(X)
    assert labels == model.classifier.predict(X).tolist()
    assert probabilities == model.classifier.predict_proba(X)[:, 1].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_with_a_threshold_the_label_is_1_from_there_on_as_in_scikit_learn(
    threshold: float,
) -> None:
    classifier = DecisionTreeClassifier(max_depth=2).fit(X, (Y + (X[:, 1] > 1)) > 0)
    probabilities = classifier.predict_proba(X)[:, 1]
    fixed = FixedThresholdClassifier(FrozenEstimator(classifier), threshold=threshold).fit(X, Y)
    model = load(envelope(threshold=threshold), pickled(classifier))
    assert model.predict(X)[0] == fixed.predict(X).tolist()
    assert model.predict(X)[1] == probabilities.tolist()


def test_a_probability_that_is_the_threshold_gives_label_1_and_one_half_gives_0_without() -> None:
    assert Model(envelope(threshold=0.5), Undecided()).predict(X[:1])[0] == [1]
    assert Model(envelope(), Undecided()).predict(X[:1])[0] == [0]


class Undecided:
    def predict_proba(self, matrix: Any) -> Any:
        return np.full((len(matrix), 2), 0.5)


def test_a_threshold_needs_probabilities() -> None:
    with pytest.raises(ModelError, match="threshold: a LinearSVC gives no probabilities"):
        load(envelope(threshold=0.3), pickled(LinearSVC().fit(X, Y)))


def test_missing_features_reach_a_model_that_accepts_them() -> None:
    model = load(
        envelope(accepts_missing=True), pickled(HistGradientBoostingClassifier().fit(X, Y))
    )
    assert model.predict(np.array([[np.nan, 1.0]]))[0] in ([0], [1])


def test_a_model_that_claims_to_accept_missing_features_is_probed_with_one() -> None:
    with pytest.raises(ModelError, match="NaN"):
        load(envelope(accepts_missing=True), pickled(LogisticRegression().fit(X, Y)))


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"garbage", "cannot be unpickled"),
        (pickled({"a": 1}), "a dict is no classifier"),
        (pickled(LinearRegression().fit(X, Y)), "does not tell label 0 from label 1"),
        (pickled(LogisticRegression().fit(X, Y + 1)), "does not tell label 0 from label 1"),
        (pickled(LogisticRegression().fit(X[:, :1], Y)), "features"),
        (pickled(LogisticRegression()), "does not tell label 0 from label 1"),
        (
            pickled(DecisionTreeClassifier().fit(X, np.column_stack([Y, Y]))),
            "does not tell label 0 from label 1",
        ),
    ],
)
def test_what_is_no_classifier_of_this_stream_is_not_loaded(pickle: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(envelope(), pickle)


class NotFinite:
    classes_ = (0, 1)

    def predict(self, matrix: Any) -> Any:
        return np.zeros(len(matrix))

    def predict_proba(self, matrix: Any) -> Any:
        return np.full((len(matrix), 2), np.nan)


def test_a_probability_that_is_not_finite_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="not finite"):
        Model(envelope(), NotFinite()).predict(X)


SCHEMA = Schema(["age", "hours"], "income", ">50K")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sklearn": "0.24.2"}, "made with scikit-learn 0.24.2"),
        ({"classes": [0, 1, 2]}, "classes: expected"),
        ({"features": 3}, "features: the stream has 2, the model 3"),
        ({"feature_names": ["age", "height"]}, "feature 1 of the stream is 'hours'"),
        ({"feature_names": ["hours", "age"]}, "feature 0 of the stream is 'age'"),
        ({"feature_names": ["age"]}, "2, but 1 feature_names"),
    ],
)
def test_a_model_that_does_not_fit_the_stream_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check(envelope(**changes), SCHEMA, 2)


def test_without_a_schema_the_model_being_served_tells_the_number_of_features() -> None:
    check(envelope(features=3), None, None)
    with pytest.raises(ModelError, match="the stream has 2, the model 3"):
        check(envelope(features=3), None, 2)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_the_malicious_pickle_of_these_tests_does_run_code_when_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(ModelError):
        load(envelope(), pickled(Malicious(marker)))
    assert marker.exists()
