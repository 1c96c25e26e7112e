from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from estimators.columns import CategoryCodes, ColumnEncoder
from estimators.fourier import FourierFeatures
from estimators.vote import Calibration, Vote

X = np.random.default_rng(0).normal(3, 2, (500, 4))
Y = (X[:, 0] > 3).astype(np.int64)


def test_numbers_are_scaled_as_by_a_standard_scaler_in_whatever_blocks_they_come() -> None:
    encoder = ColumnEncoder()
    for block in np.array_split(X, [1, 26, 400]):
        encoder.partial_fit(block)
    expected = StandardScaler().fit_transform(X)
    assert encoder.transform(X) == pytest.approx(expected)
    assert ColumnEncoder().fit(X).transform(X) == pytest.approx(expected)


def test_older_records_fade_so_that_a_drift_is_followed() -> None:
    encoder = ColumnEncoder()
    for mean in (0.0, 100.0):
        for _ in range(60):
            encoder.partial_fit(np.random.default_rng(1).normal(mean, 1, (1_000, 1)))
    assert encoder.mean_[0] == pytest.approx(100, abs=1)


def test_a_missing_number_is_the_mean_and_does_not_count() -> None:
    encoder = ColumnEncoder().fit([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    assert encoder.mean_.tolist() == [2.0, 0.0]
    assert encoder.transform([[np.nan, np.nan], [3.0, 0.5]]).tolist() == [[0, 0], [1, 0.5]]


def test_a_wild_number_is_cut_off_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = ColumnEncoder().fit(X)
        wild = np.full((1, 4), 1e300)
        assert encoder.transform(wild).tolist() == [[10.0] * 4]
        found = encoder.partial_fit(wild).partial_fit(-wild).transform(X)
    assert np.isfinite(found).all()


def test_a_wild_number_does_not_decide_the_scale_for_long() -> None:
    encoder = ColumnEncoder().fit(X)
    expected = encoder.transform(X)
    encoder.partial_fit(np.full((1, 4), 3e38))
    assert encoder.transform(X) == pytest.approx(expected, abs=0.5)


def test_another_scale_is_followed() -> None:
    encoder = ColumnEncoder().fit(X)
    for _ in range(100):
        encoder.partial_fit(1e6 * X)
    assert encoder.transform(1e6 * X).std(axis=0) == pytest.approx(1, abs=0.1)


def frame(plans: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"age": np.arange(len(plans), dtype=float), "plan": plans})


def test_a_category_takes_the_same_few_columns_whatever_texts_come() -> None:
    encoder = ColumnEncoder({1: ["pro", "free"]}, buckets=8).fit(frame(["pro", "free", None]))
    found = encoder.transform(frame(["pro", "new", "free", "\udc80", np.nan]))
    assert found.shape == (5, 1 + 2 + 8)
    assert found[:, 1:].sum(axis=1).tolist() == [1, 1, 1, 1, 0]
    assert found[:, 1].tolist() == [1, 0, 0, 0, 0]
    assert found[:, 2].tolist() == [0, 0, 1, 0, 0]


def test_a_text_has_the_same_column_after_the_pickle_is_loaded() -> None:
    encoder = ColumnEncoder({1: []}).fit(frame(["pro", "free"]))
    loaded = pickle.loads(pickle.dumps(encoder))
    records = frame([f"plan {n}" for n in range(50)])
    assert (loaded.transform(records) == encoder.transform(records)).all()


def test_texts_that_are_unknown_or_missing_have_no_code() -> None:
    found = CategoryCodes({1: ["free", "pro"]}).fit_transform(frame(["pro", "new", None, "free"]))
    assert found[:, 0].tolist() == [0, 1, 2, 3]
    assert np.nan_to_num(found[:, 1], nan=-1).tolist() == [1, -1, -1, 0]


def test_fourier_features_approximate_the_kernel_of_scikit_learn() -> None:
    features = FourierFeatures(gamma=0.1, components=5_000, scale=1.0).fit(X)
    cosines = features.transform(X[:30])[:, 4:] * np.sqrt(2 / 5_000)
    sampled = RBFSampler(gamma=0.1, n_components=5_000, random_state=0).fit_transform(X[:30])
    distances = ((X[:30, None] - X[None, :30]) ** 2).sum(axis=2)
    assert cosines @ cosines.T == pytest.approx(np.exp(-0.1 * distances), abs=0.08)
    assert cosines @ cosines.T == pytest.approx(sampled @ sampled.T, abs=0.12)


def test_fourier_features_are_the_same_after_the_pickle_which_does_not_hold_them() -> None:
    features = FourierFeatures().fit(X)
    before = features.transform(X)
    text = pickle.dumps(features)
    assert len(text) < 500
    assert (pickle.loads(text).transform(X) == before).all()


def vote(weights: dict[str, float], calibration: Calibration | None = None) -> Vote:
    members = {
        "line": LogisticRegression().fit(X, Y),
        "ones": DummyClassifier(strategy="prior").fit(X, np.ones(500)),
        "zeros": DummyClassifier(strategy="prior").fit(X, np.zeros(500)),
    }
    return Vote(members, weights, 4, calibration or Calibration(), 0.5)


def test_a_vote_is_the_weighted_mean_of_its_members() -> None:
    line = vote({"line": 1.0}).votes(X)
    found = vote({"line": 0.5, "ones": 0.3, "zeros": 0.2})
    assert found.votes(X) == pytest.approx(0.5 * line + 0.3)


def test_a_vote_is_1_from_its_threshold_on_and_its_probabilities_sum_to_1() -> None:
    found = vote({"line": 1.0}, Calibration((0.0, 0.5, 1.0), (0.2, 0.5, 0.6)))
    probabilities = found.predict_proba(X)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert found.predict(X).tolist() == (probabilities[:, 1] >= 0.5).tolist()
    assert found.classes_.tolist() == [0, 1]
    assert probabilities[:, 1].max() <= 0.6001


def test_one_record_is_predicted_as_among_many() -> None:
    found = vote({"line": 0.6, "ones": 0.4})
    one_by_one = np.vstack([found.predict_proba(X[n : n + 1]) for n in range(20)])
    assert one_by_one == pytest.approx(found.predict_proba(X)[:20])
