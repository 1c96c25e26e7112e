from __future__ import annotations

import pytest

from modelgenerator.publish.backtest import difference, score


def marks(correct: int, n: int) -> list[bool]:
    return [True] * correct + [False] * (n - correct)


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
