"""The metrics of quality/ are those of scikit-learn, and buckets add up to the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2_contingency
from sklearn import metrics
from sklearn.dummy import DummyClassifier

from quality.scores import BINS, METRICS, Outcome, Scores, chance, mcnemar, total, wilson


def counted(outcomes: list[Outcome]) -> Scores:
    found = Scores()
    for outcome in outcomes:
        found.add(outcome)
    return found


def predicted(seed: int, n: int = 2_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, predictions and probabilities in the middles of the bins."""
    rng = np.random.default_rng(seed)
    probabilities = (rng.integers(0, BINS, n) + 0.5) / BINS
    labels = (rng.random(n) < probabilities**2).astype(int)
    return labels, (probabilities > 0.6).astype(int), probabilities


@pytest.mark.parametrize("seed", range(5))
def test_each_metric_is_that_of_scikit_learn(seed: int) -> None:
    labels, predictions, probabilities = predicted(seed)
    rows = zip(predictions.tolist(), labels.tolist(), probabilities.tolist(), strict=True)
    found = counted([Outcome(*row) for row in rows])
    assert found.confusion == tuple(metrics.confusion_matrix(labels, predictions).ravel())
    expected = {
        "accuracy": metrics.accuracy_score(labels, predictions),
        "precision": metrics.precision_score(labels, predictions),
        "recall": metrics.recall_score(labels, predictions),
        "f1": metrics.f1_score(labels, predictions),
        "mcc": metrics.matthews_corrcoef(labels, predictions),
        "roc_auc": metrics.roc_auc_score(labels, probabilities),
        "log_loss": metrics.log_loss(labels, probabilities),
        "brier": metrics.brier_score_loss(labels, probabilities),
        "majority": DummyClassifier(strategy="most_frequent")
        .fit(labels, labels)
        .score(labels, labels),
        "positive": labels.mean(),
        "predicted_positive": predictions.mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=2e-8), name


def test_the_area_under_the_roc_curve_from_bins_is_near_that_of_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 5_000)
    probabilities = 1 / (1 + np.exp(-rng.normal(labels - 0.5)))
    found = counted([Outcome(0, y, p) for y, p in zip(labels.tolist(), probabilities, strict=True)])
    assert found.roc_auc == pytest.approx(metrics.roc_auc_score(labels, probabilities), abs=1e-4)


def test_calibration_has_15_bins_and_their_error_is_that_of_its_definition() -> None:
    labels, predictions, probabilities = predicted(7)
    rows = zip(predictions.tolist(), labels.tolist(), probabilities.tolist(), strict=True)
    found = counted([Outcome(*row) for row in rows])
    bins = np.floor(probabilities * 15).astype(int)
    expected = [
        (int((bins == i).sum()), probabilities[bins == i].mean(), labels[bins == i].mean())
        for i in range(15)
    ]
    assert [count for count, _, _ in found.calibration] == [count for count, _, _ in expected]
    assert np.array(found.calibration) == pytest.approx(np.array(expected), abs=2e-8)
    error = sum(count * abs(p - rate) for count, p, rate in expected) / len(labels)
    assert found.ece == pytest.approx(error, abs=2e-8)


def test_probabilities_of_0_and_1_are_as_scikit_learn_takes_them() -> None:
    labels, probabilities = [1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0]
    found = counted([Outcome(int(p), y, p) for y, p in zip(labels, probabilities, strict=True)])
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, probabilities))
    assert (found.roc_auc, found.brier, found.ece) == (0.5, 0.5, 0.5)
    assert [bin.records for bin in found.calibration] == [2, 2]


def test_without_outcomes_or_probabilities_a_metric_is_none() -> None:
    assert {name: getattr(Scores(), name) for name in METRICS} == dict.fromkeys(METRICS)
    found = counted([Outcome(1, 1), Outcome(0, 1)])
    assert (found.accuracy, found.recall, found.precision) == (0.5, 0.5, 1.0)
    assert (found.roc_auc, found.log_loss, found.ece, found.mcc) == (None,) * 4
    assert Scores().interval is None


def test_the_baselines_are_the_commoner_label_and_the_label_before() -> None:
    labels = [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    before: list[int | None] = [None, *labels[:-1]]
    found = counted(
        [
            Outcome(1, y, None, None if last is None else last == y)
            for y, last in zip(labels, before, strict=True)
        ]
    )
    assert found.majority == 0.8
    assert found.no_change == 7 / 9
    assert found.baseline == 0.8
    assert found.above_baseline == pytest.approx(0.2 - 0.8)


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (90, 100), (4_000, 5_000), (0, 50)])
def test_the_interval_is_wilsons(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


OUTCOMES = st.lists(
    st.builds(
        Outcome,
        st.integers(0, 1),
        st.integers(0, 1),
        st.none() | st.floats(0, 1),
        st.none() | st.booleans(),
    )
)


@given(st.lists(OUTCOMES, max_size=5))
def test_buckets_that_are_merged_are_one_bucket_with_all_outcomes(
    parts: list[list[Outcome]],
) -> None:
    together = counted([outcome for part in parts for outcome in part])
    assert total(map(counted, parts)) == together
    assert total(map(counted, reversed(parts))) == together
    assert total(map(counted, parts)).as_json() == together.as_json()


@given(OUTCOMES, OUTCOMES)
def test_outcomes_that_are_taken_back_leave_nothing_behind(
    gone: list[Outcome], kept: list[Outcome]
) -> None:
    found = counted([*gone, *kept])
    for outcome in gone:
        found.add(outcome, -1)
    assert found == counted(kept)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_paired_test_of_two_models_is_mcnemars_exact_one(only: int, other: int) -> None:
    expected = binomtest(only, only + other).pvalue if only + other else 1.0
    assert mcnemar(only, other) == pytest.approx(expected, rel=1e-6)


@given(*4 * [st.integers(5, 500)])
def test_the_test_of_two_shares_is_pearsons(right: int, wrong: int, other: int, bad: int) -> None:
    found = chi2_contingency([[right, wrong], [other, bad]], correction=False)
    p = chance(right, right + wrong, other, other + bad)
    if found.expected_freq.min() < 5:
        assert p is None
    else:
        assert p == pytest.approx(found.pvalue, rel=1e-6, abs=1e-300)


def test_shares_of_few_records_are_not_compared() -> None:
    assert chance(0, 4, 90, 100) is None
    assert chance(0, 0, 90, 100) is None
    assert chance(100, 100, 100, 100) is None
