from __future__ import annotations

import logging
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from predictor.consumed import Consumed
from predictor.intake import Lag
from predictor.model_shelf import ModelShelf
from predictor.result import Result
from predictor.summary import Summary
from predictor.tally import Tally
from predictor.waiting import Waiting
from stream.layout import Layout
from stream.records import Prediction, Record, encode_record, reject
from tests.unit.classifiers import model


class World:
    """Units of work and a clock, as far as a summary needs them."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.tallies = {0: Tally(tp=3, fp=1, rejected=2)}
        self.waiting = Waiting()
        self.behind = {0: Lag(0, 0)}

    def lag(self) -> dict[int, Lag]:
        return self.behind

    def clock(self) -> float:
        return self.now


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def shelf() -> ModelShelf:
    return ModelShelf()


@pytest.fixture
def summary(world: World, shelf: ModelShelf) -> Summary:
    units: Any = world
    return Summary(units, shelf, world.clock)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "predictor")
    return caplog


def rejecting(*reasons: str) -> Result:
    return Result(rejected=[reject((0, i), b"", reason) for i, reason in enumerate(reasons)])


def run(world: World, summary: Summary, seconds: float) -> None:
    """Let time pass, with a look each half second."""
    end = world.now + seconds
    while world.now < end:
        world.now += 0.5
        summary.write()


def test_the_figures_come_once_a_second_while_records_are_committed(
    world: World, summary: Summary, shelf: ModelShelf, log: pytest.LogCaptureFixture
) -> None:
    shelf.put(model(7))
    for _ in range(6):
        summary.take(rejecting("a reason"))
        run(world, summary, 0.5)
    figures = [line for line in log.messages if line.startswith("n=")]
    assert (
        figures
        == ["n=4 accuracy=0.750000 model=7 swaps=0 refused=0 records/s=2 rejected=2 lag=0"] * 3
    )


def test_with_nothing_to_commit_they_come_after_ten_seconds_and_then_once_a_minute(
    world: World, summary: Summary, log: pytest.LogCaptureFixture
) -> None:
    world.behind = {0: Lag(1_000, 0), 1: Lag(200, 34)}
    run(world, summary, 9.5)
    assert log.messages == []
    run(world, summary, 0.5)
    assert len(log.messages) == 1
    run(world, summary, 120)
    assert len(log.messages) == 3
    assert log.messages[-1].endswith(
        "model=none swaps=0 refused=0 records/s=0 rejected=2 lag<=1234"
    )


def test_once_labels_have_come_later_the_figures_tell_what_waits_and_how_long_labels_take(
    world: World, summary: Summary, log: pytest.LogCaptureFixture
) -> None:
    first, second = Tally(tp=3, unlabelled=2, waiting=2), Tally()
    world.tallies = {0: first, 1: second}
    run(world, summary, 10)
    assert log.messages[-1].endswith(" lag=0")
    for delay in (0.5, 3.0):
        first.count_late(1, 1, seen=False, delay=delay)
    for _ in range(16):
        second.count(1, None, seen=False)
    second.count_late(1, 1, seen=False, delay=40 * 24 * 3600)
    run(world, summary, 60)
    told = " lag=0 waiting=15 coverage=0.286 delay_p50<4s delay_p95<4194304s"
    assert log.messages[-1].endswith(told)
    second.count_late(1, 1, seen=False, delay=50 * 24 * 3600)
    run(world, summary, 60)
    assert log.messages[-1].endswith(" delay_p50<4s delay_p95>=48d")


def test_labels_are_no_records_and_the_commonest_reason_why_they_are_rejected_is_told_apart(
    world: World, summary: Summary, log: pytest.LogCaptureFixture
) -> None:
    made = Prediction(1, 1, None, 1, 1, 1, 3, (0, 1))
    outcome = replace(made, outcome="labelled", labelled=(0, 1))
    orphan = reject((0, 4), b"", "orphan: no such prediction waits for a label")
    summary.take(Result([(made, None), (outcome, None)], rejected_labels=[orphan]))
    run(world, summary, 1)
    assert "records/s=1 " in log.messages[0]
    assert log.messages[1] == (
        "labels rejected since the last such line: 1, most often orphan: no such prediction waits"
        " for a label (1 of them, first at partition 0 offset 4)"
    )
    summary.take(Result([(outcome, None)]))
    run(world, summary, 1)
    assert "records/s=0 " in log.messages[2]


def test_the_commonest_reason_comes_at_most_once_a_minute(
    world: World, summary: Summary, log: pytest.LogCaptureFixture
) -> None:
    for n in range(60):
        summary.take(rejecting(f"label: expected 0 or 1, got {n}", *["id: missing"] * (n > 0)))
        run(world, summary, 1.5)
    reasons = [line for line in log.messages if line.startswith("rejected since")]
    assert reasons[0] == (
        "rejected since the last such line: 1, most often label: expected 0 or 1, got 0"
        " (1 of them, first at partition 0 offset 0)"
    )
    assert len(reasons) == 2


def test_it_says_after_ten_seconds_and_then_once_a_minute_why_records_wait_for_a_model(
    world: World, summary: Summary, shelf: ModelShelf, log: pytest.LogCaptureFixture
) -> None:
    world.waiting.hold([0], Layout())
    world.waiting.sort([Consumed(0, 5, None, encode_record(Record(1, [1.0])))])
    run(world, summary, 125)
    lines = [line for line in log.messages if not line.startswith("n=")]
    why = "nothing is predicted: there is no model; 1 records wait; 2 rejected so far"
    assert lines == ["waiting for a model", why, why]
    shelf.put(model(4))
    world.waiting.hold([], Layout())
    log.clear()
    run(world, summary, 120)
    assert [line for line in log.messages if not line.startswith("n=")] == []


def test_it_says_which_model_a_partition_waits_for(
    world: World, summary: Summary, shelf: ModelShelf, log: pytest.LogCaptureFixture
) -> None:
    shelf.put(model(4))
    world.tallies[0].model = 5
    world.waiting.hold([0], Layout())
    run(world, summary, 11)
    assert (
        "partition 0 was predicted with model 5 and waits for it or a newer one (here: 4);"
        " 0 records wait; 2 rejected so far"
    ) in log.messages


def test_it_says_nothing_of_a_partition_for_which_a_model_has_come_meanwhile(
    world: World, summary: Summary, shelf: ModelShelf, log: pytest.LogCaptureFixture
) -> None:
    world.waiting.hold([0], Layout())
    run(world, summary, 5)
    shelf.put(model(4))
    run(world, summary, 10)
    assert not [line for line in log.messages if "waits for it" in line]


def test_gauges_are_set_within_a_second_whether_records_come_or_not(
    world: World, summary: Summary, shelf: ModelShelf
) -> None:
    world.behind = {0: Lag(1_000, 234)}
    world.tallies = {0: Tally(waiting=5), 1: Tally(waiting=2)}
    shelf.put(model(7))
    run(world, summary, 1)
    assert REGISTRY.get_sample_value("predictor_lag_records", {"partition": "0"}) == 1_234
    assert REGISTRY.get_sample_value("predictor_waiting_predictions") == 7
    assert REGISTRY.get_sample_value("predictor_model_version") == 7
