"""Brokers that are restarted, killed, absent, or lost for good."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from local.kafka import LocalKafka
from local.process import Process, stop
from predictor.verify import __main__ as verify
from stream.topics import partition_counts
from tests.checker import check
from tests.faults.cluster import cluster
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, SERVICES, Services, await_line, eventually
from tests.topics import Topics

ABSENT_SECONDS = 120.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    broker = LocalKafka(tmp_path / "kafka")
    yield broker
    broker.kill()


@pytest.fixture
def kafka(broker: LocalKafka) -> str:
    """Bootstrap servers of a broker of this test's own, not started yet."""
    return broker.bootstrap_servers


def assert_at_most_one_line_a_minute(processes: Sequence[Process], seconds: float) -> None:
    """Assert that no kind of warning comes more often, whatever its numbers are.

    What is said once of each partition is not a warning that comes again.
    """
    most = 1 + math.ceil(seconds / 60)
    for process in processes:
        assert process.status is None, process.tail()
        assert "Traceback" not in process.log()
        warnings = re.findall(r"(?:WARNING|ERROR) (.*)", process.log())
        kinds = Counter(re.sub(r"(?<!partition )[\d.]+|\(.*?\)", "", line) for line in warnings)
        for kind, count in kinds.items():
            assert count <= most, f"{process.name}: {count} times {kind}"


def swapped(topics: Topics) -> bool:
    return len({prediction["model"] for prediction in topics.predictions()}) > 1


@pytest.mark.parametrize("labels", [{}, {"LABEL_DELAY": "exponential:1"}])
def test_services_stay_up_and_resume_when_the_broker_is_restarted_and_killed_under_load(
    broker: LocalKafka,
    start: Services,
    settings_env: dict[str, str],
    recoveries: Recoveries,
    labels: dict[str, str],
) -> None:
    broker.start()
    begun = time.monotonic()
    with Topics(settings_env, partitions=3) as topics:
        options = {"DATA_PARTITIONS": "3", "RATE": "300", "RETRAIN_EVERY": "1000", **labels}
        services = [start(name, **options) for name in SERVICES]
        # The datagenerator writes the records; the load only tells how many are answered.
        with Load(topics, rate=0, models_every=math.inf) as load:
            load.recovery(PATIENCE_SECONDS)
            for end, fault in [
                (broker.kill, "broker killed (-9)"),
                (broker.stop, "broker restarted"),
            ] * 2:
                end()
                broker.start()
                recoveries.add(fault, load.recovery(PATIENCE_SECONDS))
            # Beside the records, models come and, where they are late, labels.
            eventually(lambda: swapped(topics) and bool(topics.outcomes()) == bool(labels))
            assert_at_most_one_line_a_minute(services, time.monotonic() - begun)
            assert services[0].stop() == 0
            load.finish()
        assert stop(services[1:]) == [0, 0]
        for partition, found in topics.ids().items():
            assert found == list(range(partition, 3 * len(found), 3))
        report = topics.check(topics.log)
        assert report.swaps > 0
        assert bool(report.outcomes["labelled"]) == bool(labels)


def test_services_wait_for_a_broker_that_is_absent_for_two_minutes_when_they_start(
    broker: LocalKafka, start: Services, settings_env: dict[str, str], recoveries: Recoveries
) -> None:
    options, started = {"DATA_PARTITIONS": "3", "RATE": "500"}, time.monotonic()
    services = [start(name, **options) for name in SERVICES]
    for service in services:
        await_line(service, "no broker answers at " + broker.bootstrap_servers)
    begun = time.monotonic()
    eventually(lambda: time.monotonic() - begun > ABSENT_SECONDS, 2 * ABSENT_SECONDS)
    for service in services:
        warnings = service.log().count("WARNING")
        assert 2 <= warnings <= 1 + (time.monotonic() - started) // 60, service.tail()
    assert_at_most_one_line_a_minute(services, time.monotonic() - started)
    broker.start()
    came = time.monotonic()
    eventually(lambda: "partitions 0@0 n=0 1@0 n=0 2@0 n=0" in services[2].log(), PATIENCE_SECONDS)
    with Topics(settings_env, partitions=3) as topics:
        eventually(lambda: topics.answered() > 0, PATIENCE_SECONDS)
        recoveries.add("broker absent at the start", time.monotonic() - came)
        for topic in (topics.settings.prediction_topic, topics.settings.rejected_topic):
            assert partition_counts(topics.admin, [topic]) == {topic: 3}
        assert services[0].stop() == 0
        eventually(
            lambda: topics.answered() == sum(map(len, topics.ids().values())), PATIENCE_SECONDS
        )
    assert stop(services[1:]) == [0, 0]
    assert_nothing_was_restarted(services)
    check(settings_env)


def assert_nothing_was_restarted(services: Sequence[Process]) -> None:
    for service in services:
        assert service.log().count("stopped") == 1


def test_one_of_three_brokers_lost_for_good_under_load_loses_no_record(
    start: Services,
    settings_env: dict[str, str],
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    with cluster(tmp_path) as brokers:
        servers = ",".join(broker.bootstrap_servers for broker in brokers)
        cluster_env = {"KAFKA_BOOTSTRAP_SERVERS": servers, "REPLICATION_FACTOR": "3"}
        settings_env |= cluster_env | {"DATA_PARTITIONS": "3"}
        with Topics(settings_env, partitions=3) as topics, Load(topics, rate=500) as load:
            begun = time.monotonic()
            predictor = start("predictor", **settings_env)
            load.recovery(PATIENCE_SECONDS)
            # It leads the predictor's group or a partition.
            brokers[0].kill()
            killed = time.monotonic()
            written = topics.written()
            eventually(lambda: topics.written() > written + 500, PATIENCE_SECONDS)
            recoveries.add(
                "one of three brokers lost", load.recovery(PATIENCE_SECONDS, since=killed)
            )
            load.finish()
            assert_at_most_one_line_a_minute([predictor], time.monotonic() - begun)
            # Each acknowledged record is there once.
            found = sorted(itertools.chain.from_iterable(topics.ids().values()))
            assert found == list(range(topics.written()))
            assert topics.check(topics.log).n == len(found)


def test_at_the_end_of_a_file_the_datagenerator_idles_through_restarts_of_the_broker(
    broker: LocalKafka, start: Services, settings_env: dict[str, str]
) -> None:
    broker.start()
    process = start("datagenerator", RATE="0", COUNT="500")
    await_line(process, "done: sea ends with id 499")
    lines = process.log()
    for end in (broker.kill, broker.stop):
        end()
        broker.start()
    with Topics(settings_env) as topics:
        assert topics.ids() == {0: list(range(500))}
    assert process.log() == lines
    assert process.stop() == 0


def test_the_verifier_ends_with_one_line_when_the_broker_is_lost_while_it_reads(
    broker: LocalKafka,
    start: Services,
    settings_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker.start()
    with Topics(settings_env) as topics:
        topics.publish(1)
        topics.write(20_000)
        predictor = start("predictor")
        eventually(lambda: topics.answered() == 20_000, PATIENCE_SECONDS)
        assert predictor.stop() == 0

    class Killing:
        """Stands for the progress bar, and kills the broker at the first record."""

        def __init__(self, **_: Any) -> None:
            self.update = broker.kill

        def reset(self, total: int) -> None:
            assert total == 20_000

        def __enter__(self) -> Killing:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(verify, "tqdm", Killing)
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    assert verify.main([]) == 1
    assert f"no broker answers at {broker.bootstrap_servers}" in capsys.readouterr().err


@pytest.mark.parametrize("first", SERVICES)
def test_started_in_any_order_without_topics_each_waits_for_what_it_needs(
    broker: LocalKafka, start: Services, settings_env: dict[str, str], first: str
) -> None:
    broker.start()
    begun = time.monotonic()
    comes_to = {
        "datagenerator": "first_id=0 partitions=3",
        "modelgenerator": "partition=2 from offset=",
        "predictor": "partitions 0@0 n=0 1@0 n=0 2@0 n=0",
    }
    begin = SERVICES.index(first)
    options = {"DATA_PARTITIONS": "3", "RATE": "300"}
    for name in (SERVICES * 2)[begin : begin + 3]:
        await_line(start(name, **options), comes_to[name])
    with Topics(settings_env, partitions=3) as topics:
        eventually(lambda: all(topics.predictions(p) for p in range(3)), PATIENCE_SECONDS)
        assert set(partition_counts(topics.admin, [topics.settings.data_topic]).values()) == {3}
    assert_at_most_one_line_a_minute(start.processes, time.monotonic() - begun)
