from __future__ import annotations

import io
import pickle
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from modelgenerator.envelope import pickled as published_as
from stream.classifier import Model, check, load
from stream.models import ModelError
from stream.records import Schema
from tests.unit.classifiers import Malicious, Slow, envelope, pickled

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


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_with_the_rule_predict_the_label_is_what_the_model_says_and_the_probability_stays(
    threshold: float | None,
) -> None:
    own = FixedThresholdClassifier(LogisticRegression(), threshold=0.3).fit(X, Y)
    model = load(envelope(rule="predict", threshold=threshold), pickled(own))
    assert model.predict(X) == (own.predict(X).tolist(), own.predict_proba(X)[:, 1].tolist())
    assert model.predict(X)[0] != Model(envelope(), own).predict(X)[0]


class Undecided:
    classes_ = (0, 1)

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
    with pytest.raises(ModelError, match="NaN"):
        load(envelope(accepts_missing_in=[1]), pickled(LogisticRegression().fit(X, Y)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "cannot be unpickled"),
        (pickled({"a": 1}), "a dict is not a classifier"),
        (pickled(LinearRegression().fit(X, Y)), "does not predict the labels 0 and 1"),
        (pickled(LogisticRegression().fit(X, Y + 1)), "does not predict the labels 0 and 1"),
        (pickled(LogisticRegression().fit(X[:, :1], Y)), "features"),
        (pickled(LogisticRegression()), "does not predict the labels 0 and 1"),
        (
            pickled(DecisionTreeClassifier().fit(X, np.column_stack([Y, Y]))),
            "does not predict the labels 0 and 1",
        ),
    ],
)
def test_what_is_no_classifier_of_this_stream_is_not_loaded(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(envelope(), content)


class NotFinite:
    classes_ = (0, 1)

    def predict(self, matrix: Any) -> Any:
        return np.zeros(len(matrix))

    def predict_proba(self, matrix: Any) -> Any:
        return np.full((len(matrix), 2), np.nan)


class Beyond(NotFinite):
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def predict_proba(self, matrix: Any) -> Any:
        return np.tile([1 - self.probability, self.probability], (len(matrix), 1))


@pytest.mark.parametrize("classifier", [NotFinite(), Beyond(1.3), Beyond(-0.1)])
def test_a_probability_that_is_not_within_0_and_1_is_a_model_error(classifier: Any) -> None:
    with pytest.raises(ModelError, match="not within 0 and 1"):
        Model(envelope(), classifier).predict(X)


def test_a_probability_that_is_rounded_beyond_1_is_1() -> None:
    assert Model(envelope(), Beyond(1.0000000000000002)).predict(X[:1]) == ([1], [1.0])


SCHEMA = Schema(["age", "hours"], "income", ">50K")
TYPED = {"types": ["number", "category"], "feature_names": ["age", "hours"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sklearn": "0.24.2"}, "made with scikit-learn 0.24.2"),
        ({"classes": [0, 1, 2]}, "classes: expected"),
        ({"features": 3}, "features: the stream has 2, the model 3"),
        ({"feature_names": ["age", "height"]}, "feature 1 of the stream is 'hours'"),
        ({"feature_names": ["hours", "age"]}, "feature 0 of the stream is 'age'"),
        ({"feature_names": ["age"]}, "2, but 1 feature_names"),
        ({"rule": "later"}, "rule: expected predict or null, got 'later'"),
        ({"accepts_missing_in": [0, 2]}, "accepts_missing_in: more than the 2 features"),
        ({"probe": [1.0, None, 3.0]}, "2, but a probe of 3"),
        ({"probes": [[1.0, 2.0], [1.0]]}, "2, but a probe of 1"),
        (
            {"probes": [[1.0, "pro"]]},
            r"'pro' for features\[1\], which is a number or a time",
        ),
        (TYPED | {"probes": [[1.0, 2.0]]}, "'hours', which is a category"),
        ({"types": ["number"]}, "types: 1 for 2 features, which need as many feature_names"),
        ({"types": ["number", "time"], "feature_names": ["a", "a"]}, "types: 2 for 2 features"),
        ({"positive": "cafe\u0301", "negative": "caf\u00e9"}, "negative: 'caf\u00e9', as positive"),
        (TYPED, "feature 1 'hours' of the stream is a number, of the model a category"),
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


def test_the_malicious_pickle_of_these_tests_does_run_code_when_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(ModelError):
        load(envelope(), pickled(Malicious(marker)))
    assert marker.exists()


def test_a_compression_bomb_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = pickle.dumps(Malicious(marker))
    unpacker = zlib.compressobj(9)
    bomb = b"".join(unpacker.compress(bytes(2**20)) for _ in range(600))
    bomb += unpacker.compress(code) + unpacker.flush()
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="larger than 536870912 bytes when unpacked"):
            load(envelope(), bomb)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert not marker.exists()


class Picky(NotFinite):
    """Answers nothing but one record."""

    def predict_proba(self, matrix: Any) -> Any:
        if not (matrix == [7.0, 8.0]).all():
            raise ValueError("unknown categories")
        return np.full((len(matrix), 2), 0.5)


def test_a_model_that_answers_no_random_numbers_is_tried_on_its_probe() -> None:
    with pytest.raises(ModelError, match="unknown categories"):
        load(envelope(), pickled(Picky()))
    load(envelope(probe=[7, 8.0]), pickled(Picky()), max_microseconds=1e6)
    with pytest.raises(ModelError, match="unknown categories"):
        load(envelope(probe=[7.0, None]), pickled(Picky()))


def test_a_model_slower_than_it_may_be_is_refused() -> None:
    load(envelope(), pickled(Slow(0.0)), max_microseconds=1_000)
    with pytest.raises(ModelError, match=r"too slow: \d+ µs a record"):
        load(envelope(), pickled(Slow(1e-4)), max_microseconds=50)


@pytest.mark.parametrize("length", [0, 65_514, 65_515, 65_516, 200_000])
def test_a_second_stream_behind_the_first_hides_no_bomb(length: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = pickle.dumps((np.random.default_rng(0).bytes(length), Malicious(marker)))
    cut = length + 10
    with pytest.raises(ModelError, match="more data after its end"):
        load(envelope(), zlib.compress(code[:cut], 0) + zlib.compress(code[cut:]))
    assert not marker.exists()


@pytest.mark.parametrize("method", ["gzip", "bz2", "lzma", "xz"])
def test_only_what_can_be_measured_is_unpacked(method: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    joblib.dump(LogisticRegression().fit(X, Y), path, compress=(method, 3))
    with pytest.raises(ModelError, match="neither plain nor compressed with zlib"):
        load(envelope(), path.read_bytes())


def test_a_plain_pickle_is_loaded_up_to_the_bound() -> None:
    plain = pickle.dumps(LogisticRegression().fit(X, Y))
    assert load(envelope(), plain, len(plain)).predict(X)
    with pytest.raises(ModelError, match="larger than"):
        load(envelope(), plain, len(plain) - 1)


@pytest.mark.parametrize("rows", [100, 2_000_000])  # in memory at once, and as a file
@pytest.mark.parametrize("level", [0, 3])
def test_a_model_is_loaded_whether_joblib_or_pickle_wrote_it(
    rows: int, level: int, tmp_path: Path
) -> None:
    fitted = LogisticRegression().fit([[1.0, 0.0], [-1.0, 0.0]], [1, 0])
    fitted.spare = np.zeros(rows)
    plain = pickle.dumps(fitted, protocol=5)
    by_pickle = zlib.compress(plain, level) if level else plain
    joblib.dump(fitted, tmp_path / "model", compress=level)
    for found in (by_pickle, (tmp_path / "model").read_bytes()):
        model = load(envelope(), found)
        assert model.predict([[1.0, 0.0], [-1.0, 0.0]])[0] == [1, 0]
        assert len(model.classifier.spare) == rows


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [100, 20_000, 2_000_000])
def test_what_modelgenerator_pickles_is_loaded_here_and_by_joblib(rows: int, order: Any) -> None:
    fitted = LogisticRegression().fit([[1.0, 0.0], [-1.0, 0.0]], [1, 0])
    fitted.spare = np.arange(2.0 * rows).reshape(rows, 2).copy(order)
    packed = published_as(fitted)
    for found in (load(envelope(), packed).classifier, joblib.load(io.BytesIO(packed))):
        assert (found.spare == fitted.spare).all()


def test_a_pickle_cut_short_is_refused() -> None:
    whole = pickled(LogisticRegression().fit(X, Y))
    for length in (0, 1, 2, len(whole) // 2):
        with pytest.raises(ModelError, match="cannot be unpickled"):
            load(envelope(), whole[:length])


def test_an_array_that_claims_gigabytes_is_refused() -> None:
    whole = zlib.decompress(pickled(np.zeros(3)))
    assert b"shape" in whole
    claim = whole.replace(b"K\x03\x85", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x0f\x85")
    assert claim != whole
    with pytest.raises(ModelError, match="cannot be unpickled"):
        load(envelope(), zlib.compress(claim))


@pytest.mark.parametrize(
    ("made_with", "loaded"),
    [("{0}.{1}.99", True), ("{0}.{before}.0", False), ("{0}.{after}.0", False)],
)
def test_the_pickle_itself_tells_its_scikit_learn_whatever_the_envelope_says(
    made_with: str, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor = map(int, sklearn.__version__.split(".")[:2])
    made_with = made_with.format(major, minor, before=minor - 1, after=minor + 1)
    with monkeypatch.context() as other:
        other.setattr("sklearn.base.__version__", made_with)
        foreign = pickled(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y))
    if loaded:
        assert load(envelope(sklearn=made_with), foreign).predict(X)
    else:
        with pytest.raises(ModelError, match=f"made with scikit-learn {made_with}, installed is"):
            load(envelope(), foreign)
