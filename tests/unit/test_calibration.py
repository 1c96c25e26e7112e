from __future__ import annotations

import numpy as np
import pytest

from estimators.vote import Calibration, Floats
from modelgenerator.training.calibration import Calibrator
from modelgenerator.training.learning import Labels


def sure(count: int, seed: int = 0, noise: float = 0.2) -> tuple[Floats, Labels]:
    """Return votes that know nothing of the noise in the labels, and labels."""
    rng = np.random.default_rng(seed)
    votes = rng.random(count) ** 0.3
    votes = np.where(rng.random(count) < 0.5, votes, 1 - votes)
    labels = (votes > 0.5) ^ (rng.random(count) < noise)
    return votes, labels.astype(np.int64)


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error in 15 bins."""
    bins = np.minimum((probabilities * 15).astype(int), 14)
    gaps = [(probabilities - labels)[bins == each].sum() for each in range(15)]
    return float(np.abs(gaps).sum() / len(labels))


def fitted(votes: Floats, labels: Labels) -> Calibration:
    calibrator = Calibrator()
    calibrator.add(votes, labels)
    return calibrator.fit()


def test_the_calibration_error_of_a_noisy_stream_falls() -> None:
    calibration = fitted(*sure(2_000))
    votes, labels = sure(20_000, seed=1)
    before = calibration_error(votes, labels)
    after = calibration_error(calibration(votes), labels)
    assert before > 0.05
    assert after < 0.03


def test_with_too_few_records_the_vote_stays_as_it_is() -> None:
    votes, labels = sure(199)
    assert fitted(votes, labels)(votes) == pytest.approx(votes)


def test_the_latest_2000_records_count() -> None:
    calibrator = Calibrator()
    calibrator.add(*sure(5_000, noise=0.9))
    calibrator.add(*sure(2_000))
    assert calibrator.fit() == fitted(*sure(2_000))


@pytest.mark.parametrize("label", [0, 1])
def test_a_probability_is_never_0_or_1_however_sure_the_records_were(label: int) -> None:
    votes = np.linspace(0, 1, 500)
    found = fitted(votes, np.full(500, label, dtype=np.int64))(votes)
    assert found.min() > 0
    assert found.max() < 1
    assert np.abs(found - label).max() < 0.01


def test_the_calibrated_probability_rises_with_the_vote_so_that_the_label_may_be_told() -> None:
    calibration = fitted(*sure(2_000))
    votes = np.unique(np.append(np.linspace(0, 1, 5_001), 0.5))
    found = calibration(votes)
    assert (np.diff(found) > 0).all()
    half = calibration(np.array([0.5]))[0]
    assert ((found > half) == (votes > 0.5)).all()


def test_votes_that_are_all_alike_are_calibrated_to_how_often_they_came_true() -> None:
    found = fitted(np.full(400, 0.9), np.array([0, 1] * 200))
    assert found(np.array([0.1, 0.9])) == pytest.approx([0.5, 0.5], abs=0.01)
