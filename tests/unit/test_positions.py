from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from predictor.committed import Commit
from predictor.group import Topics
from predictor.positions import Positions
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import clients, reading
from stream.service import Stop

PLACES = {TopicPartition("queueing.data", partition) for partition in range(2)}


def test_where_a_partition_resumes_is_said_once_though_another_is_not_known_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = count()

    def committed(_: Any, __: Any, place: TopicPartition, ___: Any) -> tuple[Commit, bool]:
        if place.partition == 1 and next(tries) < 3:
            raise KafkaTimeoutError("a transaction over its offset is open")
        return Commit(5, Tally(), None), True

    monkeypatch.setattr(clients, "connected", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(reading, "bounds", lambda *_: (10, 20))
    monkeypatch.setattr(Positions, "_committed", committed)
    monkeypatch.setattr(Positions, "_outputs", lambda *_: [])
    settings = PredictorSettings.model_validate({"predictor_secret": tmp_path / "secret"})
    positions = Positions(settings, None, Stop())
    while (found := positions.read(PLACES, Topics("data", "labels", 2))) is None:
        pass
    assert [found[partition].offset for partition in range(2)] == [10, 10]
    said = [line.partition(":")[0] for line in caplog.messages if "resuming at" in line]
    assert said == ["partition 0", "partition 1"]
