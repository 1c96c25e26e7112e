from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from kafka import TopicPartition

from predictor import intake
from predictor.intake import IDLE_SECONDS, Intake
from predictor.settings import PredictorSettings
from stream.service import Stop


class Consumer:
    """Has no records, and waits for them as long as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self._start = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: self._start + sum(self.waits))

    def poll(self, timeout_ms: int, max_records: int) -> dict[object, object]:
        self.waits.append(timeout_ms / 1_000)
        return {}

    def assignment(self) -> set[object]:
        return set()

    def pause(self, *_: object) -> None:
        pass

    resume = pause


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    labels = SimpleNamespace(
        assign=lambda _: None, missing=lambda: set[int](), poll=lambda *_: list[int]()
    )
    monkeypatch.setattr(intake, "LabelFeed", lambda *_: labels)
    return SimpleNamespace(consumer=Consumer(monkeypatch), changed=False)


def reading(group: SimpleNamespace, **settings: object) -> Intake:
    found = Intake(PredictorSettings.model_validate(settings), group, Stop())  # type: ignore[arg-type] # all that it asks of a group
    found.begin({})
    return found


@pytest.mark.parametrize(
    ("interval_ms", "waits"), [(1, [IDLE_SECONDS]), (100, [0.1]), (5_000, [1.0] * 5)]
)
def test_with_nothing_to_read_a_predictor_rests_however_short_its_units_are(
    group: SimpleNamespace, interval_ms: int, waits: list[float]
) -> None:
    reading(group, commit_interval_ms=interval_ms).read(5_000)
    assert group.consumer.waits == waits


def test_records_that_come_with_a_rebalance_are_left_to_be_read_again(
    group: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll(**_: object) -> dict[object, object]:
        group.changed = True
        return {TopicPartition("queueing.data", 1): [object()]}

    monkeypatch.setattr(group.consumer, "poll", poll)
    found = reading(group)
    found.read(5_000)
    assert found.queued == 0
