from __future__ import annotations

import random
import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from estimators.columns import ColumnEncoder
from estimators.fourier import FourierFeatures
from modelgenerator.training.learning import (
    EachOnce,
    Latest,
    Learning,
    RisingErrors,
    SinceAlarm,
    Steady,
    fit,
    go_on,
)


def errors(share: float, count: int, seed: int = 0) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < share for _ in range(count)]


def due(learning: Learning, errors: list[bool], stretch: int = 1) -> list[int]:
    """Hand errors over in blocks of 25; return on how many records to train after each."""
    blocks = [errors[n : n + 25] for n in range(0, len(errors), 25)]
    return [learning.due(len(block), block, stretch) for block in blocks]


def test_rising_errors_raise_an_alarm_that_knows_how_many_there_were() -> None:
    rising = RisingErrors()
    assert not rising.add(errors(0.1, 2_000))
    assert rising.add(errors(0.5, 300))
    assert re.fullmatch(r"wrong on 0\.[1-5]\d\d of the records, before on 0\.[01]\d\d", str(rising))


def test_falling_errors_raise_no_alarm() -> None:
    rising = RisingErrors()
    assert not rising.add(errors(0.5, 1_000))
    assert not rising.add(errors(0.1, 1_000))
    assert rising.width < 1_500  # though the change was seen


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_steady_errors_raise_no_alarm(share: float) -> None:
    rising = RisingErrors()
    assert not rising.add(errors(share, 5_000))
    assert rising.width == 5_000


def test_each_record_once_in_full_blocks() -> None:
    assert due(EachOnce(50), errors(0, 200)) == [0, 50, 0, 50, 0, 50, 0, 50]
    assert EachOnce(50).due(200, [], 1) == 200


def test_the_latest_records_every_so_often() -> None:
    assert due(Latest(2_000, every=100), errors(0, 200)) == [0, 0, 0, 2_000] * 2


@pytest.mark.parametrize("learning", [EachOnce(50), Latest(50, every=50)])
def test_a_stream_that_is_fast_is_trained_on_more_seldom(learning: Learning) -> None:
    found = due(learning, errors(0, 800), stretch=4)
    assert [n for n, count in enumerate(found) if count] == [7, 15, 23, 31]


def test_steady_trains_on_the_records_since_the_errors_changed() -> None:
    steady = Steady()
    assert max(due(steady, errors(0.1, 3_000))) == 3_000
    after = [count for count in due(steady, errors(0.6, 600, seed=1)) if count]
    assert len(after) > 3  # faster after an alarm
    assert 200 <= after[-1] < 1_000


def test_steady_tells_of_an_alarm_once() -> None:
    steady = Steady()
    due(steady, errors(0.1, 2_000))
    alarms = []
    for n in range(20):
        steady.due(25, errors(0.6, 25, seed=n), 1)
        alarms.append(bool(steady.alarm))
    assert 1 <= sum(alarms) < 5


def test_since_alarm_replaces_its_model_soon_after_an_alarm_and_seldom_later() -> None:
    since = SinceAlarm()
    found = due(since, errors(0.0, 3_000))
    assert [count for count in found if count] == [*range(50, 1_001, 50), 2_000, 3_000]
    assert not since.alarm
    found = due(since, errors(1.0, 200))
    assert [count for count in found if count][-1] < 200


def test_after_an_alarm_the_old_model_stays_until_there_are_50_records() -> None:
    since = SinceAlarm()
    due(since, errors(0.0, 2_000))
    while not since.alarm:
        assert since.due(25, [True] * 25, 1) == 0
    counts = [since.due(25, [False] * 25, 1) for _ in range(3)]
    assert counts == [50, 0, 100]


def test_one_label_alone_is_answered() -> None:
    found = fit(LogisticRegression(), [[0.0], [1.0]], np.array([1, 1]))
    assert found.predict([[5.0]]).tolist() == [1]


def test_a_pipeline_goes_on_learning_and_fits_once_what_cannot_go_on() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((100, 2)), rng.random((100, 2)) + 1
    encoder, fourier, sgd = ColumnEncoder(), FourierFeatures(components=5), SGDClassifier()
    found = make_pipeline(encoder, fourier, sgd)
    go_on(found, first, np.ones(100, dtype=np.int64), begun=False)
    go_on(found, second, np.zeros(100, dtype=np.int64), begun=True)
    both = ColumnEncoder().fit(np.vstack([first, second]))
    assert encoder.mean_ == pytest.approx(both.mean_)
    assert sgd.classes_.tolist() == [0, 1]
    assert sgd.t_ == 201


def test_an_estimator_without_a_pipeline_goes_on_learning() -> None:
    found = SGDClassifier()
    go_on(found, [[0.0], [1.0]], np.array([0, 0]), begun=False)
    assert found.predict([[1.0]]).tolist() == [0]
