"""Two models on the same records: their accuracies, and whether they differ; no Kafka in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054
"""Of a 95 % interval."""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share.

    See Wilson, "Probable inference, the law of succession, and statistical inference", Journal
    of the American Statistical Association 22 (1927).

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(90, 100)]
    [0.8256, 0.9448]
    """
    share, weight = correct / n, Z * Z / n
    middle = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the two-sided p-value that two paired classifiers are equally accurate.

    The exact test on the records that only one of them has right: each is as likely to be the
    one as the other. See McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947).

    Examples
    --------
    >>> round(mcnemar(9, 1), 6)
    0.021484
    """
    n = only_one + only_other
    ways = [
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
        for k in range(min(only_one, only_other) + 1)
    ]
    return min(1.0, 2 * math.fsum(ways))


@dataclass(frozen=True)
class Score:
    """How many of `n` records a model has right."""

    name: str
    correct: int
    n: int

    def __str__(self) -> str:
        low, high = wilson(self.correct, self.n)
        return (
            f"{self.name:<12} accuracy {self.correct / self.n:.4f}"
            f"  95 % interval {low:.4f} to {high:.4f}"
        )


def compared(
    name: str, right: Sequence[bool], other: str, other_right: Sequence[bool]
) -> list[str]:
    """Say how two models do on the same records, a line each, and whether they differ.

    Parameters
    ----------
    name, other : str
    right, other_right : sequence of bool
        Whether each has each record right; at least one record.
    """
    only = sum(a and not b for a, b in zip(right, other_right, strict=True))
    only_other = sum(b and not a for a, b in zip(right, other_right, strict=True))
    return [
        str(Score(name, sum(right), len(right))),
        str(Score(other, sum(other_right), len(other_right))),
        f"only {name} has {only} right, only {other} {only_other}:"
        f" McNemar's exact p = {mcnemar(only, only_other):.4g}",
    ]
