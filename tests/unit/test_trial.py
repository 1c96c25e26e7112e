from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from modelgenerator import trial
from modelgenerator.training.recipes import Columns, recipes
from modelgenerator.trial import tried
from stream.classifier import Model, check, load
from stream.layout import Matrix
from stream.models import ModelError
from tests.unit.classifiers import envelope, pickled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2)).round(1)
Y = (X[:, 0] + RNG.normal(size=300) > 0.3).astype(int)
NEWEST = X.tolist()


def own(threshold: float = 0.3, **options: Any) -> FixedThresholdClassifier:
    return FixedThresholdClassifier(LogisticRegression(), threshold=threshold, **options)


def several() -> list[tuple[str, Any]]:
    return [("a", LogisticRegression()), ("b", GaussianNB()), ("c", SVC(random_state=0))]


class Cautious:
    """Predicts 1 where the first feature is above one, and gives even probabilities."""

    def fit(self, matrix: Matrix, labels: Any) -> Cautious:
        self.classes_ = np.unique(labels)
        self.n_features_in_ = matrix.shape[1]
        return self

    def predict(self, matrix: Matrix) -> Any:
        return self.classes_[(matrix[:, 0] > 1).astype(int)]

    def predict_proba(self, matrix: Matrix) -> Any:
        return np.full((len(matrix), 2), 0.5)


class Turned(Cautious):
    """Names its classes the other way round."""

    def fit(self, matrix: Matrix, labels: Any) -> Turned:
        super().fit(matrix, labels)
        self.classes_ = np.array([1, 0])
        return self

    def predict(self, matrix: Matrix) -> Any:
        return (matrix[:, 0] > 1).astype(float)

    def predict_proba(self, matrix: Matrix) -> Any:
        return np.column_stack([np.full(len(matrix), 0.9), np.full(len(matrix), 0.1)])


MODELS: dict[str, Any] = {
    "threshold in a search": GridSearchCV(own(), {"estimator__C": [0.1, 1]}),
    "search in a threshold": FixedThresholdClassifier(
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}), threshold=0.2
    ),
    "threshold in a pipeline": make_pipeline(StandardScaler(), own()),
    "threshold of one half": own(0.5),
    "threshold of label 0": own(pos_label=0),
    "threshold of the decision function": own(1.0, response_method="decision_function"),
    "tuned": TunedThresholdClassifierCV(LogisticRegression(), scoring="recall"),
    "tuned on label 0": TunedThresholdClassifierCV(
        LogisticRegression(), response_method="decision_function"
    ),
    "hard vote": VotingClassifier(several()),
    "hard vote in a search": GridSearchCV(VotingClassifier(several()), {"a__C": [0.1, 1]}),
    "soft vote": VotingClassifier(several()[:2], voting="soft", weights=[0.1, 0.2]),
    "stack": StackingClassifier(several()[:2], own()),
    "calibrated": CalibratedClassifierCV(LinearSVC()),
    "calibrated threshold": CalibratedClassifierCV(own()),
    "SVC": SVC(probability=True, random_state=0, C=100, gamma=10),
    "process": GaussianProcessClassifier(),
    "forest": RandomForestClassifier(7, max_depth=3, random_state=0),
    "neighbours": KNeighborsClassifier(4, weights="distance"),
    "boosted": AdaBoostClassifier(n_estimators=5),
    "discriminant": LinearDiscriminantAnalysis(),
    "prior": DummyClassifier(),
    "ridge": RidgeClassifier(),
    "linear SVC": make_pipeline(StandardScaler(), LinearSVC()),
    "hinge": SGDClassifier(),
    "a class of one's own": Cautious(),
    "classes turned round": Turned(),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("labels", [Y, Y.astype(bool)], ids=["numbers", "booleans"])
def test_what_is_served_is_what_the_models_own_predict_says(name: str, labels: Any) -> None:
    model = MODELS[name].fit(X, labels)
    found, _ = tried(model, envelope(), NEWEST)
    check(found, None, None)
    served, probabilities = load(found, pickled(model)).predict(X)
    assert served == model.predict(X).astype(int).tolist()
    if hasattr(model, "predict_proba"):
        expected = model.predict_proba(X)[:, list(model.classes_).index(1)]
        assert probabilities == pytest.approx(expected.tolist())
    else:
        assert set(probabilities) == {None}


@pytest.mark.parametrize("name", ["linear", "hgb_since"])
def test_the_recipes_are_served_by_one_call_and_accept_every_null(name: str) -> None:
    (recipe,) = [recipe for recipe in recipes() if recipe.name == name]
    found, remarks = tried(recipe.make(Columns(X.shape[1])).fit(X, Y), envelope(), NEWEST)
    assert (found.rule, found.accepts_missing, found.accepts_missing_in) == (None, True, None)
    assert remarks == []


def test_a_class_that_is_known_goes_by_its_rule_where_it_differs_all_the_same() -> None:
    model = LogisticRegression().fit(X, Y)
    model.coef_[:], model.intercept_[:] = 0, 1e-17  # above 0, yet expit gives one half
    found, remarks = tried(model, envelope(), NEWEST)
    assert found.rule == "predict"
    assert remarks[-1].endswith("these differ on 308 of 308 records tried")
    assert set(Model(found, model).predict(X)[0]) == {1}


def test_how_many_records_differ_is_said_for_a_threshold_too() -> None:
    model = own(0.3).fit(X, Y)
    plain = LogisticRegression().fit(X, Y)
    assert tried(plain, envelope(threshold=0.6), NEWEST) == (envelope(threshold=0.6), [])
    found, remarks = tried(model, envelope(threshold=0.6), NEWEST)
    both = model.predict(X) != (model.predict_proba(X)[:, 1] >= 0.6)
    assert found.rule is None
    assert remarks[-1].startswith("a probability of 0.6 or more is label 1, not its own predict")
    assert int(both.sum()) <= int(remarks[-1].split()[-5]) <= int(both.sum()) + 8


class Chancy(Cautious):
    """Predicts by chance."""

    def predict(self, matrix: Matrix) -> Any:
        return np.random.default_rng().integers(0, 2, len(matrix))


class Ranking(Cautious):
    """Predicts 1 for the upper half of the records that it is given."""

    def predict(self, matrix: Matrix) -> Any:
        return (matrix[:, 0] > np.median(matrix[:, 0])).astype(int)


class Counting(Cautious):
    """Predicts 1 for each second record that it is given."""

    def predict(self, matrix: Matrix) -> Any:
        return np.arange(len(matrix)) % 2


CHANGING: list[Any] = [
    Chancy(),
    Ranking(),
    Counting(),
    DummyClassifier(strategy="stratified"),
    DummyClassifier(strategy="uniform", random_state=0),
]


@pytest.mark.parametrize("model", CHANGING, ids=lambda model: type(model).__name__)
def test_a_model_that_does_not_answer_the_same_again_is_refused(model: Any) -> None:
    with pytest.raises(ModelError, match=r"in another order, it answers \d+ of 308 .*random_state"):
        tried(model.fit(X, Y), envelope(), NEWEST)


class Wrong(Cautious):
    """Predicts something else than one label for each record."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def predict(self, matrix: Matrix) -> Any:
        labels = super().predict(matrix)
        kinds = {
            "strings": labels.astype(str),
            "a column": labels[:, None],
            "too few": labels[1:],
            "shares": labels / 2 + 0.25,
            "nothing": None,
            "not a number": labels * np.nan,
        }
        return kinds[self.kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("strings", "a label that is neither 0 nor 1"),
        ("a column", r"labels of shape \(8, 1\) for 8 records"),
        ("too few", r"labels of shape \(7,\) for 8 records"),
        ("shares", "a label that is neither 0 nor 1"),
        ("nothing", r"labels of shape \(\)"),
        ("not a number", "a label that is neither 0 nor 1"),
    ],
)
def test_a_predict_that_gives_no_labels_is_refused_unless_a_threshold_takes_its_place(
    kind: str, message: str
) -> None:
    model = Wrong(kind).fit(X, Y)
    with pytest.raises(ModelError, match=f"model error: {message}.*; with a threshold, its prob"):
        tried(model, envelope(), NEWEST)
    with pytest.raises(ModelError, match=f"model error: {message}"):
        load(envelope(rule="predict"), pickled(model))
    found, _ = tried(model, envelope(threshold=0.5), NEWEST)
    assert set(load(found, pickled(model)).predict(X)[0]) == {1}


class Voting(Cautious):
    """Has a predict_proba that always raises."""

    def predict_proba(self, matrix: Matrix) -> Any:
        raise AttributeError("predict_proba is not available when voting='hard'")


def test_a_predict_proba_that_always_raises_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"not available when .*; its predict can serve without"):
        tried(Voting().fit(X, Y), envelope(), NEWEST)


def test_a_slow_model_is_tried_on_fewer_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    _, remarks = tried(Cautious().fit(X, Y), envelope(), 4 * NEWEST)
    assert int(remarks[-1].split()[-3]) <= 500


def test_nulls_are_accepted_by_column() -> None:
    columns = make_column_transformer((SimpleImputer(), [1]), remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression()).fit(X, Y)
    found, remarks = tried(model, envelope(), NEWEST)
    assert (found.accepts_missing, found.accepts_missing_in) == (False, [1])
    assert remarks == ["null is accepted in 1 of 2 features"]
    assert load(found, pickled(model)).predict(np.array([[1.0, np.nan]]))


def test_a_model_that_answers_no_random_numbers_is_tried_without_features_of_a_record() -> None:
    columns = make_column_transformer((SimpleImputer(), [0]), (OneHotEncoder(), [1]))
    zones = np.column_stack([X[:, 0], RNG.integers(5, 9, len(X))])
    model = make_pipeline(columns, LogisticRegression()).fit(zones, Y)
    found, _ = tried(model, envelope(), [[1.0, 77.0], [None, 6.0], [2.0, 7.0]])
    assert (found.probe, found.accepts_missing_in) == ([2.0, 7.0], [0])
    load(found, pickled(model))


class Wide(Cautious):
    """Answers nulls but in some features, and not with more than so many of them."""

    def __init__(self, refused: Any = (), most: int = 2**30) -> None:
        self.refused = list(refused)
        self.most = most
        self.calls = 0

    def predict_proba(self, matrix: Matrix) -> Any:
        self.calls += 1
        null = np.isnan(matrix)
        if null[:, self.refused].any():
            raise ValueError("a null in a feature that takes none")
        found = np.full((len(matrix), 2), 0.5)
        found[null.sum(axis=1) > self.most] = np.nan
        return found


def wide(width: int, **options: Any) -> Wide:
    model = Wide(**options)
    model.fit(np.zeros((2, width)), [0, 1])
    return model


@pytest.mark.parametrize("refused", [[], [0], [4_999, 9_999], range(0, 10_000, 1_000)])
def test_ten_thousand_features_are_tried_in_a_few_hundred_calls(refused: Any) -> None:
    model = wide(10_000, refused=refused)
    found, _ = tried(model, envelope(features=10_000), [])
    expected = sorted({*range(10_000)} - {*refused})
    assert found.accepts_missing == (not refused)
    assert found.accepts_missing_in == (expected if refused else None)
    assert model.calls < 400


def test_what_is_not_tried_within_a_thousand_calls_is_not_accepted_and_that_is_said() -> None:
    model = wide(10_000, refused=range(0, 10_000, 2))
    found, remarks = tried(model, envelope(features=10_000), [])
    assert model.calls < 1_100
    assert found.accepts_missing_in is not None
    assert {index % 2 for index in found.accepts_missing_in} == {1}
    tail = f"{len(found.accepts_missing_in)} of 10000 features; "
    assert tail in remarks[0]
    assert remarks[0].endswith("were not tried")


def test_the_envelope_lists_ten_thousand_features_at_most() -> None:
    model = wide(20_000, refused=[0])
    found, remarks = tried(model, envelope(features=20_000), [])
    assert found.accepts_missing_in == list(range(1, 10_001))
    assert remarks[0] == "null is accepted in 10000 of 20000 features"


def test_features_that_may_be_null_alone_and_not_together_are_accepted_alone() -> None:
    model = wide(3, most=1)
    found, remarks = tried(model, envelope(features=3), [])
    assert (found.accepts_missing, found.accepts_missing_in) == (False, [0, 1, 2])
    assert remarks[0] == "null is accepted in 3 of 3 features, but not in all of these at once"
    loaded = load(found, pickled(model))
    answers = loaded.answers(np.array([[np.nan, 0, 0], [np.nan, np.nan, 0], [0, 0, np.nan]]))
    assert [isinstance(answer, str) for answer in answers] == [False, True, False]


def test_a_model_that_accepts_no_null_and_one_that_accepts_all_say_so() -> None:
    found, remarks = tried(LogisticRegression().fit(X, Y), envelope(), NEWEST)
    assert (found.accepts_missing, found.accepts_missing_in) == (False, None)
    assert remarks == []
    every = HistGradientBoostingClassifier(max_iter=5).fit(X, Y)
    assert tried(every, replace(found, accepts_missing=False), NEWEST)[0].accepts_missing
