from __future__ import annotations

import doctest

import pytest
from scipy.stats import binomtest

from modelgenerator import backtest
from modelgenerator.backtest import compared, mcnemar, wilson


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (1, 1), (90, 100), (5_000, 9_999)])
def test_the_interval_is_wilsons(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"), [(9, 1), (1, 9), (5, 5), (0, 7), (300, 250), (60_000, 61_000), (0, 200)]
)
def test_the_paired_test_is_the_exact_binomial_one(one: int, other: int) -> None:
    assert mcnemar(one, other) == pytest.approx(binomtest(one, one + other).pvalue, rel=1e-6)


def test_models_that_never_differ_are_as_good_as_each_other() -> None:
    assert mcnemar(0, 0) == 1.0


def test_a_comparison_counts_what_only_one_of_them_has_right() -> None:
    lines = compared("a", [True] * 9 + [False], "b", [False] * 9 + [True])
    assert lines[0] == "a            accuracy 0.9000  95 % interval 0.5958 to 0.9821"
    assert lines[1] == "b            accuracy 0.1000  95 % interval 0.0179 to 0.4042"
    assert lines[2] == "only a has 9 right, only b 1: McNemar's exact p = 0.02148"


def test_the_examples_hold() -> None:
    assert doctest.testmod(backtest) == (0, 2)
