"""The figures of a run, from what was right at each record; NaN where nothing was counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

AFTER_DRIFT = 5_000
"""Records after a drift whose errors are its own."""

BINS = 15

Floats = NDArray[np.float64]


def error_at_end(right: Floats, start: int, end: int) -> float:
    """Return the share of wrong predictions in the last third of a concept, NaN if none counts."""
    last = right[end - (end - start) // 3 : end]
    return float(1 - np.nanmean(last)) if np.isfinite(last).any() else float("nan")


def extra_errors(right: Floats, drift: int, best: float) -> float | None:
    """Return how many more errors follow a drift than one who knew the concept would make.

    Parameters
    ----------
    right : ndarray of float
        1 where the prediction was right, 0 where it was wrong.
    drift : int
        First record of the concept.
    best : float
        Share of errors of the best learner at the end of the concept.

    Returns
    -------
    float or None
        Over `AFTER_DRIFT` records; ``None`` where the run ends before, or nothing counts.

    Examples
    --------
    >>> right = np.ones(20_000)
    >>> right[10_000:10_300] = 0
    >>> extra_errors(right, 10_000, best=0.02)
    200.0
    """
    after = right[drift : drift + AFTER_DRIFT]
    if len(after) < AFTER_DRIFT or not np.isfinite(after).any():
        return None
    counted = after[np.isfinite(after)]
    return float(np.sum(1 - counted) - best * len(counted))


def lateness(first: Mapping[int, int], trained_to: Mapping[int, int]) -> list[int]:
    """Return the records between each model's last training record and its first prediction.

    Parameters
    ----------
    first, trained_to : mapping of int to int
        Version to the first record that it predicted, and to the last one that it was trained on.

    Examples
    --------
    >>> lateness(first={1: 240, 2: 330}, trained_to={1: 199, 2: 299, 3: 399})
    [40, 30]
    """
    return [record - trained_to[version] - 1 for version, record in sorted(first.items())]


def brier(probabilities: Floats, labels: ArrayLike) -> float:
    """Return the mean squared difference of probability and label."""
    return float(np.mean((probabilities - np.asarray(labels)) ** 2))


def calibration_error(probabilities: Floats, labels: ArrayLike) -> float:
    """Return the expected calibration error over `BINS` bins of equal width.

    It is the mean distance of the share of label 1 from the mean probability in a bin, each bin
    weighted by its records. See Naeini, Cooper and Hauskrecht, "Obtaining well calibrated
    probabilities using Bayesian binning", AAAI 2015.

    Examples
    --------
    >>> calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), [1, 1, 0, 1])
    0.25
    """
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=np.asarray(labels) - probabilities, minlength=BINS)
    return float(np.abs(gaps).sum() / len(probabilities))


def settled(records: int, drifts: Sequence[int]) -> NDArray[np.bool_]:
    """Return which records are not among the first `AFTER_DRIFT` of a concept."""
    found = np.ones(records, dtype=bool)
    for start in (0, *drifts):
        found[start : start + AFTER_DRIFT] = False
    return found


def rolling(right: Floats, records: int) -> Floats:
    """Return the accuracy over the latest so many records at each record, NaN before there are any.

    Examples
    --------
    >>> rolling(np.array([np.nan, 1.0, 0.0, 0.0]), 2).tolist()
    [nan, 1.0, 0.5, 0.0]
    """
    counted = np.isfinite(right)
    sums, counts = (np.cumsum(each) for each in (np.where(counted, right, 0.0), counted))
    sums[records:], counts[records:] = (
        sums[records:] - sums[:-records],
        counts[records:] - counts[:-records],
    )
    with np.errstate(invalid="ignore"):
        found: Floats = sums / counts
    return found
