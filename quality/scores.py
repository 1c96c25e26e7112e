"""How good predictions are: sums that add up in any order, and the metrics of them."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from itertools import accumulate
from operator import add
from typing import Any, NamedTuple, Self

BINS = 1_000
"""Bins of the probability from which ROC AUC is computed."""

CALIBRATION_BINS = 15

_UNIT = 100_000_000
"""Sums of fractions are whole numbers of this part, so that they add up exactly in any order; those
of 2.5 billion outcomes fit into 64 bits."""

_Z = 1.959963984540054
"""Of 95 %."""

_KNOWN, _REPEATS, _SQUARES, _LOGS, _RELIABILITY = range(4, 9)  # behind tn, fp, fn and tp
_COUNT, _POSITIVE, _PROBABILITY, _BINS = (
    _RELIABILITY + number * CALIBRATION_BINS for number in range(4)
)

METRICS = (
    "accuracy", "precision", "recall", "f1", "mcc", "roc_auc", "log_loss", "brier", "ece",
    "predicted_positive", "positive", "majority", "no_change", "baseline", "above_baseline",
)  # fmt: skip
"""The metrics of `Scores` that are one number, or ``None`` where nothing says it."""


class Outcome:
    """A prediction that was counted.

    Parameters
    ----------
    prediction, label : int
        0 or 1.
    probability : float or None
        Of label 1.
    repeats : bool or None
        Whether the label is that of the record counted before; ``None`` if none is known.
    """

    __slots__ = ("amounts", "ones", "right")

    def __init__(
        self,
        prediction: int,
        label: int,
        probability: float | None = None,
        repeats: bool | None = None,
    ) -> None:
        self.right = prediction == label
        ones = [2 * label + prediction]  # places that count one more; it is added to many `Scores`
        self.amounts: tuple[tuple[int, int], ...] = ()
        if repeats is not None:
            ones += [_KNOWN, _REPEATS] if repeats else [_KNOWN]
        if probability is not None:
            number = min(int(probability * CALIBRATION_BINS), CALIBRATION_BINS - 1)
            bin = _BINS + label * BINS + min(int(probability * BINS), BINS - 1)
            ones += [bin, _COUNT + number, _POSITIVE + number][: 2 + label]
            given = max(probability if label else 1.0 - probability, sys.float_info.epsilon)
            self.amounts = (
                (_SQUARES, round((probability - label) ** 2 * _UNIT)),
                (_LOGS, round(-math.log(given) * _UNIT)),
                (_PROBABILITY + number, round(probability * _UNIT)),
            )
        self.ones = tuple(ones)


class Bin(NamedTuple):
    """A bin of the calibration: the mean probability of label 1, and its real rate."""

    records: int
    probability: float
    positive: float


class Scores:
    """The counts of outcomes; it takes 17 kB however many there are.

    Where a metric is ``None``, no outcome says anything about it. Those of the probability are of
    the outcomes that have one.
    """

    def __init__(self) -> None:
        self._sums = array("q", bytes(8 * (_BINS + 2 * BINS)))

    def add(self, outcome: Outcome, times: int = 1) -> None:
        """Count an outcome; with -1 for `times`, take back one that was counted."""
        sums = self._sums
        for place in outcome.ones:
            sums[place] += times
        for place, amount in outcome.amounts:
            sums[place] += times * amount

    def __iadd__(self, other: Scores) -> Self:
        self._sums = array("q", map(add, self._sums, other._sums))
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        return self._sums == other._sums

    __hash__ = None  # type: ignore[assignment] # it changes

    @property
    def confusion(self) -> tuple[int, int, int, int]:
        """True negatives, false positives, false negatives, true positives."""
        tn, fp, fn, tp = self._sums[:_KNOWN]
        return tn, fp, fn, tp

    @property
    def n(self) -> int:
        """Outcomes that were counted."""
        return sum(self.confusion)

    @property
    def correct(self) -> int:
        """How many of them were right."""
        return self._sums[0] + self._sums[3]

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions."""
        return _share(self.correct, self.n)

    @property
    def precision(self) -> float | None:
        """Share of right ones among the predictions of label 1."""
        _, fp, _, tp = self.confusion
        return _share(tp, tp + fp)

    @property
    def recall(self) -> float | None:
        """Share of the records with label 1 that were predicted so."""
        _, _, fn, tp = self.confusion
        return _share(tp, tp + fn)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        _, fp, fn, tp = self.confusion
        return _share(2 * tp, 2 * tp + fp + fn)

    @property
    def mcc(self) -> float | None:
        """Matthews correlation coefficient, -1 to 1; it needs both labels and both predictions."""
        tn, fp, fn, tp = self.confusion
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(product) if product else None

    @property
    def roc_auc(self) -> float | None:
        """Area under the ROC curve, from 1,000 bins; it needs both labels.

        It is the share of pairs of a positive and a negative record in which the positive one has
        the higher probability (Mann and Whitney, 1947); a pair in one bin counts one half.
        """
        negatives, positives = self._sums[_BINS:-BINS], self._sums[-BINS:]
        below = accumulate(negatives, initial=0)
        twice = sum(
            positive * (2 * lower + negative)
            for positive, negative, lower in zip(positives, negatives, below, strict=False)
        )
        return _share(twice, 2 * sum(negatives) * sum(positives))

    @property
    def log_loss(self) -> float | None:
        """Mean of -ln of the probability that the real label was given."""
        return _share(self._sums[_LOGS], _UNIT * self._with_probability)

    @property
    def brier(self) -> float | None:
        """Brier score: mean square of the difference between probability and label."""
        return _share(self._sums[_SQUARES], _UNIT * self._with_probability)

    @property
    def calibration(self) -> list[Bin]:
        """The bins of equal width in which there is a probability, by rising probability."""
        rows = zip(*(self._sums[start:][:CALIBRATION_BINS] for start in _STARTS), strict=True)
        return [
            Bin(count, total / _UNIT / count, positive / count)
            for count, positive, total in rows
            if count
        ]

    @property
    def ece(self) -> float | None:
        """Expected calibration error (Naeini et al., 2015), of 15 bins of equal width.

        The mean difference, over the records, of the mean probability of label 1 in a bin and the
        rate of label 1 there.
        """
        gaps = (bin.records * abs(bin.probability - bin.positive) for bin in self.calibration)
        return _share(sum(gaps), self._with_probability)

    @property
    def predicted_positive(self) -> float | None:
        """Share of the predictions that are 1."""
        _, fp, _, tp = self.confusion
        return _share(fp + tp, self.n)

    @property
    def positive(self) -> float | None:
        """Share of the labels that are 1."""
        _, _, fn, tp = self.confusion
        return _share(fn + tp, self.n)

    @property
    def majority(self) -> float | None:
        """Accuracy of who always predicts the label that is the more frequent one here."""
        positive = self.positive
        return None if positive is None else max(positive, 1.0 - positive)

    @property
    def no_change(self) -> float | None:
        """Accuracy of who predicts the label that was counted before, of the same partition."""
        return _share(self._sums[_REPEATS], self._sums[_KNOWN])

    @property
    def baseline(self) -> float | None:
        """The better one of `majority` and `no_change`."""
        return max((b for b in (self.majority, self.no_change) if b is not None), default=None)

    @property
    def above_baseline(self) -> float | None:
        """Accuracy minus the better baseline."""
        accuracy, baseline = self.accuracy, self.baseline
        return None if accuracy is None or baseline is None else accuracy - baseline

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy."""
        return wilson(self.correct, self.n)

    @property
    def _with_probability(self) -> int:
        return sum(self._sums[_COUNT:_POSITIVE])

    def as_json(self) -> dict[str, Any]:
        """Return all metrics, three of them with 95 % intervals, and what they are of."""
        tn, fp, fn, tp = self.confusion
        return {
            "n": self.n,
            "correct": self.correct,
            **{name: getattr(self, name) for name in METRICS},
            "accuracy_interval": self.interval,
            "precision_interval": wilson(tp, tp + fp),
            "recall_interval": wilson(tp, tp + fn),
            "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
            "calibration": [bin._asdict() for bin in self.calibration],
        }


def total(scores: Iterable[Scores]) -> Scores:
    """Return the scores of all outcomes together."""
    found = Scores()
    for each in scores:
        found += each
    return found


def wilson(successes: int, n: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share, ``None`` for none of none.

    It is Wilson's, "Probable inference, the law of succession, and statistical inference", 1927.

    Examples
    --------
    >>> low, high = wilson(90, 100)
    >>> print(f"{low:.4f} {high:.4f}")
    0.8256 0.9448
    """
    if not n:
        return None
    share, spread = successes / n, _Z**2 / n
    middle = share + spread / 2
    margin = math.sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = ((middle + sign * margin) / (1 + spread) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def mcnemar(only: int, only_other: int) -> float:
    """Return how likely two models are right on so different records, if they are equally good.

    The test is McNemar's, exact, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947): each record on which one of them alone is
    right is as likely to be the one's as the other's.

    Parameters
    ----------
    only, only_other : int
        Records on which the one alone is right, and the other one.

    Examples
    --------
    >>> round(mcnemar(9, 1), 5)
    0.02148
    """
    n, ways, all_ways = only + only_other, 1, 1
    for k in range(min(only, only_other)):
        ways = ways * (n - k) // (k + 1)
        all_ways += ways
    return min(1.0, 2 * all_ways / (1 << n))


def chance(correct: int, n: int, other_correct: int, other_n: int) -> float | None:
    """Return how likely two shares differ so much by chance; ``None`` where there are too few.

    The test is Pearson's of a table of two by two. It needs five records expected in each cell
    (Cochran, "Some methods for strengthening the common chi-square tests", Biometrics 10, 1954).

    Examples
    --------
    >>> round(chance(50, 100, 70, 100), 4)
    0.0039
    """
    table = (correct, n - correct), (other_correct, other_n - other_correct)
    right, wrong = map(sum, zip(*table, strict=True))
    if min(right, wrong) * min(n, other_n) < 5 * (n + other_n):
        return None
    cross = correct * table[1][1] - other_correct * table[0][1]
    square = (n + other_n) * cross**2 / (n * other_n * right * wrong)
    return math.erfc(math.sqrt(square / 2))


_STARTS = (_COUNT, _POSITIVE, _PROBABILITY)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
