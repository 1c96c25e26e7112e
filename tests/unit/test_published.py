"""The lines of published models: one at once where something happened, else one for many."""

from __future__ import annotations

import logging

import pytest

from modelgenerator.published import Published


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def published(clock: Clock, caplog: pytest.LogCaptureFixture) -> Published:
    caplog.set_level("INFO")
    return Published(logging.getLogger("modelgenerator"), clock)


def test_models_within_ten_seconds_are_summed_up_with_their_reasons(
    published: Published, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for version in range(1, 24):
        reason = "weights (sgd leads with 0.9, knn has 0.8)" if version % 5 == 0 else "cadence"
        published.add(version, "vote", reason, f"trained_on={100 * version} vote=0.9")
        clock.now += 0.5
    clock.now += 10
    published.sum_up()
    published.sum_up()
    assert caplog.messages == [
        "model=1 recipe=vote reason=cadence trained_on=100 vote=0.9",
        "published 20 models, from 2 to 21: cadence 16, weights 4; the last one:"
        " trained_on=2100 vote=0.9",
        "published 2 models, from 22 to 23: cadence 2; the last one: trained_on=2300 vote=0.9",
    ]


@pytest.mark.parametrize(
    "reason", ["first", "alarm (errors rose from 0.100 to 0.300)", "archive (a former sgd)"]
)
def test_a_model_for_which_something_happened_has_its_own_line_at_once(
    reason: str, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2):
        published.add(version, "vote", "cadence", "vote=0.8")
    published.add(3, "vote", reason, "vote=0.9")
    published.sum_up(at_once=True)
    assert caplog.messages == [
        "model=1 recipe=vote reason=cadence vote=0.8",
        f"model=3 recipe=vote reason={reason} vote=0.9",
        "model=2 recipe=vote reason=cadence vote=0.8",
    ]


def test_a_model_that_is_published_seldom_has_its_line_at_once(
    published: Published, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (1, 2, 3):
        published.add(version, "sgd", "cadence", "sgd=0.8")
        clock.now += 60
    assert [line.split()[0] for line in caplog.messages] == ["model=1", "model=2", "model=3"]
