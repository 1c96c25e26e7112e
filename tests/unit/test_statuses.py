from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from prometheus_client import REGISTRY

from predictor import statuses as module
from predictor.result import Result
from predictor.settings import PredictorSettings
from predictor.statuses import Statuses
from stream import clients
from stream.records import Prediction, Status, decode_status
from stream.seal import read_seal
from stream.service import Fatal, Stop
from tests.unit.classifiers import model

SETTINGS = PredictorSettings.model_validate({"model_topic": "m", "replica": "one"})


class Producer:
    """Stands for a producer; what it is sent fails with `errors`, one after the other."""

    def __init__(self, secret: Path) -> None:
        self.sent: list[Status] = []
        self.errors: list[Exception] = []
        self._secret = secret

    def send(self, topic: str, value: bytes, headers: Any, partition: int) -> Future:
        assert (topic, partition) == ("m.status", 0)
        seal = read_seal(self._secret)
        assert seal
        assert seal.holds(topic, value, headers)
        self.sent.append(decode_status(value))
        return Future(self.errors.pop(0) if self.errors else None)

    def close(self, **_: object) -> None:
        pass


class Future:
    """What a producer returns, with its result known at once."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def add_errback(self, errback: Any) -> Future:
        if self.error:
            errback(self.error)
        return self

    def get(self, timeout: float) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Producer:
    found = Producer(tmp_path / "secret")
    monkeypatch.setattr(clients, "producer", lambda _: found)
    monkeypatch.setattr(module, "create_missing_topics", lambda *_: None)
    return found


@pytest.fixture
def statuses(producer: Producer, tmp_path: Path) -> Iterator[Statuses]:
    settings = SETTINGS.model_copy(update={"predictor_secret": tmp_path / "secret"})
    with Statuses(settings, Stop()) as found:
        yield found


def result(*sources: tuple[int, int]) -> Result:
    return Result([(Prediction(0, 1, None, 1, 1, 1, 3, source), None) for source in sources])


def test_a_model_is_said_to_serve_once_from_its_first_offset_of_each_partition(
    statuses: Statuses, producer: Producer
) -> None:
    statuses.serving(result((0, 7), (0, 8), (1, 5)), model(3))
    statuses.serving(result((0, 9), (2, 1)), model(3))
    assert producer.sent == [Status(3, "serving", {"0": 7, "1": 5}, None, "one")]


def test_the_lateness_of_a_model_is_told_once_it_serves(statuses: Statuses) -> None:
    name = "predictor_model_lateness_records_sum"
    before = REGISTRY.get_sample_value(name) or 0.0
    for _ in range(2):
        statuses.serving(result((0, 7), (0, 8), (1, 5)), model(3, trained_to={"0": 2, "1": 4}))
    assert (REGISTRY.get_sample_value(name) or 0.0) - before == 4


def test_a_model_that_has_predicted_nothing_yet_is_not_said_to_serve(
    statuses: Statuses, producer: Producer
) -> None:
    statuses.serving(result(), model(3))
    assert producer.sent == []
    statuses.serving(result((0, 7)), model(3))
    assert len(producer.sent) == 1


def test_a_refused_model_is_put_on_record_with_its_reason(
    statuses: Statuses, producer: Producer
) -> None:
    statuses.refused(4, "too slow")
    assert producer.sent == [Status(4, "refused", {}, "too slow", "one")]
    statuses.check()


def test_a_barred_model_is_put_on_record_until_the_broker_has_it(
    statuses: Statuses, producer: Producer
) -> None:
    producer.errors = [KafkaTimeoutError(), KafkaTimeoutError()]
    statuses.barred(4, "model error")
    assert producer.sent == [Status(4, "barred", {}, "model error", "one")] * 3


def test_a_status_that_the_brokers_refuse_ends_the_service(
    statuses: Statuses, producer: Producer
) -> None:
    producer.errors = [TopicAuthorizationFailedError("m.status"), KafkaTimeoutError()]
    statuses.refused(4, "too slow")
    statuses.refused(5, "too slow")
    with pytest.raises(Fatal, match=r"lacks the right to Write the topic m\.status"):
        statuses.check()
