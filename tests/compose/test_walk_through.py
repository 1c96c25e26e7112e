"""What a user does with one broker, in the order in which this file runs it.

The tests go on from one another: a stack that runs costs half a minute to begin.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from stream.records import Record, encode_record
from tests.compose.stack import (
    APPS,
    KAFKA,
    V1,
    Stack,
    clean_engine,
    inspect,
    run,
)
from tests.services import eventually

APPS_ALONE_SECONDS = 120.0
LOAD = {"RATE": "300", "LOG_BACKFILL": "10000000"}
BROKERS = ("zookeeper", "broker")


@pytest.fixture(scope="module")
def begun() -> float:
    return time.monotonic()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, begun: float) -> Iterator[Stack]:
    with clean_engine():
        found = Stack(V1, tmp_path_factory.mktemp("walk-through"))
        found("up", "-d", env=LOAD)
        yield found
        found.close()


@pytest.mark.parametrize("service", APPS)
def test_no_container_of_ours_runs_as_root_or_can_become_it(stack: Stack, service: str) -> None:
    found = inspect(stack.container(service))
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert stack("exec", "-T", service, "id", "-u").strip() == "10001"


def test_services_wait_two_minutes_for_kafka_without_a_crash_and_then_work(
    stack: Stack, begun: float
) -> None:
    time.sleep(max(0.0, APPS_ALONE_SECONDS - (time.monotonic() - begun)))  # this is the fault
    for service in APPS:
        stack.await_health(service, "healthy")
        found = inspect(stack.container(service))
        assert found["RestartCount"] == 0
        lines = run("docker", "logs", found["Id"]).count("no broker answers")
        assert 1 <= lines <= 2 + (time.monotonic() - begun) // 60
    stack.kafka("up", "-d")
    stack.await_more(500)
    for service in BROKERS:
        stack.await_health(service, "healthy")
        assert stack.kafka("exec", "-T", service, "id", "-u").strip() != "0"


@pytest.mark.parametrize(
    ("topic", "fields"),
    [
        ("queueing.data", ["id", "features", "label"]),
        ("queueing.model", ["version", "recipe", "algorithm", "features"]),
        ("streaming.prediction", ["id", "prediction", "probability", "label", "n", "correct"]),
    ],
)
def test_the_console_consumer_shows_what_a_person_can_read(
    stack: Stack, topic: str, fields: list[str]
) -> None:
    for record in stack.consume(topic):
        assert list(record)[: len(fields)] == fields
        assert list(record)[-1] == "pickle" or topic != "queueing.model"


def test_every_invariant_holds_and_the_log_file_agrees_with_the_topic(stack: Stack) -> None:
    topic = "streaming.prediction"
    eventually(lambda: len({found["model"] for found in stack.records(topic)}) > 1, 120)
    report = stack.check()
    assert len(report.models) > 1
    stack("start", "datagenerator")


@pytest.mark.parametrize("service", [*APPS, *BROKERS])
def test_a_process_killed_under_load_is_started_again_and_work_goes_on(
    stack: Stack, service: str
) -> None:
    stack.await_more(100)
    before = inspect(stack.container(service))
    stack.signal(service, signal.SIGKILL)
    eventually(
        lambda: inspect(before["Id"])["RestartCount"] > before["RestartCount"],
        message=f"{service} is started again",
    )
    stack.await_more(1000)


def test_a_container_killed_and_started_by_hand_goes_on(stack: Stack) -> None:
    container = stack.container("predictor")
    run("docker", "kill", container)
    run("docker", "start", container)
    stack.await_more()


def test_whatever_was_killed_every_invariant_holds(stack: Stack) -> None:
    stack.check()
    stack("start", "datagenerator")


def test_a_service_that_is_stuck_is_unhealthy_until_it_goes_on(stack: Stack) -> None:
    for service in APPS:
        stack.await_health(service, "healthy")
        stack.signal(service, signal.SIGSTOP)
        # Not to wait for a minute until the file is old.
        stack("exec", "-T", service, "touch", "-d", "2 minutes ago", "/tmp/alive")  # noqa: S108 - in the container
    for service in APPS:
        stack.await_health(service, "unhealthy")
        stack.signal(service, signal.SIGCONT)
    for service in APPS:
        stack.await_health(service, "healthy")
    stack.await_more()


def test_counts_continue_after_down_and_up_and_the_log_is_filled_in_again(stack: Stack) -> None:
    before = stack.check().n
    stack("down")
    assert stack.containers("predictor") == []
    stack("up", "-d", env=LOAD)
    stack.await_more(500)
    report = stack.check()
    assert report.n > before

    def lines() -> list[str]:
        (log,) = stack.logs()
        return log.read_text().splitlines()

    eventually(lambda: len(lines()) == report.n // 10, 60)
    assert " n=10 " in lines()[0]


def test_one_s_own_producer_takes_the_place_of_the_datagenerator(stack: Stack) -> None:
    stack("up", "-d", "--scale", "datagenerator=0", env=LOAD)
    assert stack.containers("datagenerator") == []
    producer = KafkaProducer(bootstrap_servers="localhost:9092")
    for number in range(20):
        producer.send("queueing.data", encode_record(Record(f"own-{number}", [1.0, 2.0, 3.0], 1)))
    producer.close()
    eventually(lambda: "own-19" in stack.ids("streaming.prediction"), 180)


def test_another_stream_on_the_same_topic_ends_with_one_line_that_says_how_to_start_over(
    stack: Stack,
) -> None:
    stack("up", "-d", "datagenerator", env={"RATE": "1000", "STREAM": "agrawal"})

    def lines() -> list[str]:
        return run("docker", "logs", found).splitlines()

    found = eventually(lambda: stack.containers("datagenerator"))[0]
    eventually(lambda: any("to start over" in line for line in lines()), 120)
    assert not any("Traceback" in line for line in lines())


def test_a_file_of_one_s_own_is_streamed_from_a_mounted_folder(stack: Stack) -> None:
    source = {"STREAM": "/data/digits.csv", "LABEL": "parity", "POSITIVE": "odd", "RATE": "0"}
    topics = {"DATA_TOPIC": "own.data", "COUNT": "300"}
    stack("up", "-d", "datagenerator", env=source | topics)
    eventually(lambda: stack.ends("own.data") == 300, 120)
    stack("stop", "datagenerator")


def test_counting_starts_over_after_a_reset(stack: Stack) -> None:
    reset = ("run", "--rm", "-T", "predictor", "python", "-m", "predictor.reset", "--yes")
    assert "stop every predictor first" in stack(*reset, status=1)
    stack("stop", "predictor")
    # A broker that was busy just then misses a member for some seconds more.
    eventually(lambda: "begins at n=0" in stack(*reset, status=None), 60)
    goal = stack.ends("streaming.prediction") + stack.ends("queueing.data") - 1000
    stack("start", "predictor")
    eventually(lambda: stack.ends("streaming.prediction") >= goal, 240)
    assert eventually(lambda: stack.records("streaming.prediction"), 60)[0]["n"] in (0, 1)


def test_stop_ends_the_services_with_0_and_lets_the_brokers_end_by_themselves(
    stack: Stack,
) -> None:
    stack("up", "-d", env=LOAD)
    stack.await_more()
    for services, files, seconds in ((APPS, (), 2 * 5), (BROKERS, KAFKA, 2 * 10)):
        containers = {service: stack.container(service) for service in services}
        stack(*files, "stop", "-t", str(seconds))  # beyond that the engine kills: 137
        for service, container in containers.items():
            status = inspect(container)["State"]["ExitCode"]
            assert status == (143 if service in BROKERS else 0), service


def test_what_was_stopped_starts_again_where_it_was(stack: Stack) -> None:
    stack.kafka("start")
    stack("start")
    stack.await_more(500)
    stack.check()


def test_no_service_ever_logged_a_stack_trace(stack: Stack) -> None:
    assert "Traceback" not in stack("logs", "--no-color", *APPS)
