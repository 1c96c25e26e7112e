"""Records and models that are wrong, under load."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.models import pack
from stream.records import Schema
from tests.checker import check
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.integration.test_predictor import refused_models
from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.topics import Topics
from tests.unit.classifiers import Once, Sign, envelope, pickled

REFUSED = "WARNING predictor: refused "
ROUNDS = 5

POISON: list[tuple[bytes | None, str]] = [
    (b"not json", "value: not JSON"),
    (b'{"id": 1, "features": [NaN, 1], "label": 1}', "value: not JSON"),
    (b'{"id": 1, "features": [1, -Infinity], "label": 1}', "value: not JSON"),
    (b'{"id": 1, "features": [1e39, 1], "label": 1}', "features[0]: expected a number <= 3.4e+38"),
    (b'{"id": 1, "features": [1], "label": 1}', "features: expected 2 numbers, got 1"),
    (b'{"id": 1, "features": [1, 2], "label": 2}', "label: expected 0 or 1, got 2"),
    (None, "value: expected a JSON object, got null"),
    (b'{"id": "%b", "features": [1, 2]}' % (b"9" * 1_000_000), "id: at most 256 bytes, got 10000"),
    (b"[" * 900_000, "value: not JSON"),
]
"""The record, and what the reason begins with."""


@pytest.fixture
def publisher(three: Topics, settings_env: dict[str, str]) -> Iterator[Topics]:
    """Publish models beside the load, which publishes none."""
    with Topics(settings_env, partitions=3) as topics:
        yield topics


@pytest.fixture
def load(three: Topics, publisher: Topics) -> Iterator[Load]:
    three.describe(Schema(["a", "b"], "label", "1"))
    publisher.publish(1)
    with Load(three, models_every=math.inf) as running:
        yield running


def test_wrong_records_in_all_partitions_are_rejected_with_a_reason_and_n_does_not_know_them(
    load: Load, publisher: Topics, start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    topic = publisher.settings.data_topic
    for _ in range(ROUNDS):
        for partition in range(3):
            for value, _ in POISON:
                publisher.producer.send(topic, value, key=b"k", partition=partition)
        publisher.producer.flush(30)
        load.recovery(PATIENCE_SECONDS)
    load.finish()
    for partition in range(3):
        eventually(lambda p=partition: len(publisher.rejected(p)) == len(POISON) * ROUNDS)  # type: ignore[misc] # p
        reasons = [rejected["reason"] for rejected in publisher.rejected(partition)]
        for (_, expected), reason in zip(POISON * ROUNDS, reasons, strict=True):
            assert reason.startswith(expected)
    warnings = [line for line in predictor.log().splitlines() if "WARNING" in line]
    assert not [line for line in warnings for _, reason in POISON if reason in line]
    report = check(settings_env, [tmp_path / "predictor.log"])
    assert report.n == load.topics.written()


def test_wrong_models_are_refused_while_the_old_one_serves_and_their_code_never_runs(
    load: Load, publisher: Topics, start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "malicious code ran"
    predictor = start("predictor", MODEL_MAX_BYTES="2000000")
    load.recovery(PATIENCE_SECONDS)
    refused = refused_models(marker, publisher.key)
    refused["model error: ArithmeticError"] = list(
        pack(envelope(20), pickled(Sign(raises_above=-math.inf)), publisher.key)
    )
    refused["larger than 2000000 bytes"] = list(
        pack(envelope(21), np.random.default_rng(0).bytes(2_500_000), publisher.key)
    )
    for messages in refused.values():
        publisher.send(messages)
    eventually(lambda: predictor.log().count(REFUSED) == len(refused), PATIENCE_SECONDS)
    load.recovery(PATIENCE_SECONDS)
    publisher.publish(30)
    served_next(predictor.log, 30)
    eventually(lambda: f"model=30 swaps=1 refused={len(refused)} " in predictor.log())
    load.finish()
    for reason in refused:
        assert predictor.log().count(reason) == 1, reason
    assert predictor.log().count(REFUSED) == len(refused)
    assert not marker.exists()
    statuses = Counter((s["version"], s["status"]) for s in publisher.statuses())
    assert {v for v, status in statuses if status == "refused"} == {4, 5, 6, 7, 8, 9, 10, 20, 21}
    assert set(statuses.values()) == {1}
    report = check(settings_env, [tmp_path / "predictor.log"])
    assert (report.n, report.models) == (load.topics.written(), {1, 30})


def test_a_model_that_fails_after_its_probe_is_barred_and_the_one_before_predicts_its_unit(
    load: Load,
    publisher: Topics,
    start: Services,
    settings_env: dict[str, str],
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    for version in (2, 4, 6):
        publisher.publish(version, Once())
        begun = time.monotonic()
        barred_in(predictor.log, version)
        recoveries.add("model that fails after its probe", load.recovery(PATIENCE_SECONDS, begun))
        publisher.publish(version + 1)
        served_next(predictor.log, version + 1)
        serving(publisher, version + 1)
    load.finish()
    assert [s["version"] for s in publisher.statuses() if s["status"] == "barred"] == [2, 4, 6]
    report = check(settings_env, [tmp_path / "predictor.log"])
    assert (report.n, report.rejected) == (load.topics.written(), 0)
    assert report.models - {2, 4, 6} == {1, 3, 5, 7}  # those may have predicted before they failed


def served_next(log: Callable[[], str], version: int) -> None:
    eventually(lambda: f"model {version} (test) is next" in log(), PATIENCE_SECONDS, log)


def serving(topics: Topics, version: int) -> None:
    """Wait until a predictor says that a version has predicted."""
    eventually(
        lambda: any(
            s["version"] == version and s["status"] == "serving" for s in topics.statuses()
        ),
        PATIENCE_SECONDS,
    )


def barred_in(log: Callable[[], str], version: int) -> None:
    eventually(lambda: f"barred model {version}: model error" in log(), PATIENCE_SECONDS, log)


def test_the_same_model_twice_is_no_second_swap(
    load: Load, publisher: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    for version in (1, 2, 2, 1, 2, 3, 3, 2, 1):
        publisher.publish(version)
    served_next(predictor.log, 3)
    load.recovery(PATIENCE_SECONDS)
    publisher.publish(4)
    served_next(predictor.log, 4)
    load.finish()
    for version in (1, 2, 3, 4):
        assert predictor.log().count(f"model {version} (test) is next") == 1
    serving = [s["version"] for s in publisher.statuses()]
    assert serving == sorted(set(serving))
    assert check(settings_env).n == load.topics.written()
