from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

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


@pytest.mark.parametrize(
    ("interval_ms", "waits"), [(1, [IDLE_SECONDS]), (100, [0.1]), (5_000, [5.0])]
)
def test_with_nothing_to_read_a_predictor_rests_however_short_its_units_are(
    monkeypatch: pytest.MonkeyPatch, interval_ms: int, waits: list[float]
) -> None:
    labels = SimpleNamespace(
        assign=lambda _: None, missing=lambda: set[int](), poll=lambda *_: list[int]()
    )
    monkeypatch.setattr(intake, "LabelFeed", lambda *_: labels)
    consumer = Consumer(monkeypatch)
    group = SimpleNamespace(consumer=consumer, changed=False)
    settings = PredictorSettings.model_validate({"commit_interval_ms": interval_ms})
    found = Intake(settings, group, Stop())  # type: ignore[arg-type] # all that it asks of a group
    found.begin({})
    found.read(5_000)
    assert consumer.waits == waits
