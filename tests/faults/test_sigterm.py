from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from local.kafka import LocalKafka
from local.process import Process
from tests.checker import check
from tests.faults.proxy import Proxy, Strike, behind_proxy
from tests.faults.recoveries import Recoveries
from tests.services import END_SECONDS, PATIENCE_SECONDS, SERVICES, Services, eventually

WORK = {"predictor": r"predictor: n=[1-9]", "modelgenerator": "model=", "datagenerator": "sent="}
"""What a service says once it has done something."""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalKafka, Proxy]]:
    broker, proxy = behind_proxy(tmp_path_factory.mktemp("kafka"))
    with broker, proxy:
        yield broker, proxy


@pytest.fixture(scope="module")
def kafka(proxied: tuple[LocalKafka, Proxy]) -> str:
    return proxied[0].bootstrap_servers


@pytest.fixture
def broker(proxied: tuple[LocalKafka, Proxy]) -> Iterator[LocalKafka]:
    """The broker, which runs again after the test."""
    yield proxied[0]
    if proxied[0].pid:
        os.kill(proxied[0].pid, signal.SIGCONT)
    proxied[0].start()


def begun(process: Process) -> bool:
    """Tell whether a process handles SIGTERM, which it does before its first import."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def await_work(service: str, process: Process) -> None:
    """Wait until a service says that it has done something."""
    eventually(lambda: re.search(WORK[service], process.log()), PATIENCE_SECONDS, process.tail)


def end(processes: list[Process]) -> float:
    """Send SIGTERM to all; return how long the slowest took to end with status 0."""
    sent = time.monotonic()
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        assert process.wait(sent + END_SECONDS - time.monotonic()) == 0, process.tail()
        assert "Traceback" not in process.log()
    return time.monotonic() - sent


@pytest.mark.parametrize("state", ["up", "down", "hung"])
def test_sigterm_in_the_first_seconds_of_a_start_ends_each_service_with_status_0(
    start: Services, broker: LocalKafka, recoveries: Recoveries, state: str
) -> None:
    if state == "down":
        broker.kill()
    elif state == "hung" and broker.pid:
        os.kill(broker.pid, signal.SIGSTOP)
    for seconds in (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 4.0):
        processes = [start(service) for service in SERVICES]
        for process in processes:
            eventually(partial(begun, process))
        time.sleep(seconds)  # the moment is what is tested
        recoveries.add(f"SIGTERM during the start, broker {state}", end(processes))


def test_sigterm_at_random_moments_of_the_work_finishes_or_aborts_the_transaction(
    start: Services, settings_env: dict[str, str], recoveries: Recoveries
) -> None:
    rng = random.Random(5)
    for _ in range(5):
        processes = [start(service, RATE="500") for service in SERVICES]
        await_work("predictor", processes[2])
        time.sleep(rng.uniform(0.0, 1.0))  # the moment is what is tested
        recoveries.add("SIGTERM at work, broker up", end(processes))
    report = check(settings_env, [Path(settings_env["LOG_FILE"])])
    assert report.n > 0


@pytest.mark.parametrize("state", ["down", "hung"])
def test_sigterm_ends_services_at_work_whose_broker_has_gone(
    start: Services, broker: LocalKafka, recoveries: Recoveries, state: str
) -> None:
    for seconds in (0.0, 1.0, 8.0, 13.0):
        processes = [start(service, RATE="500") for service in SERVICES]
        await_work("predictor", processes[2])
        if state == "down":
            broker.kill()
        elif broker.pid:
            os.kill(broker.pid, signal.SIGSTOP)
        time.sleep(seconds)  # how long it has been away decides what a service waits for
        recoveries.add(f"SIGTERM at work, broker {state}", end(processes))
        if state == "down":
            broker.start()
        elif broker.pid:
            os.kill(broker.pid, signal.SIGCONT)


@pytest.mark.parametrize("service", SERVICES)
def test_sigterm_ends_a_service_whose_broker_leaves_any_of_its_requests_without_an_answer(
    start: Services,
    proxied: tuple[LocalKafka, Proxy],
    recoveries: Recoveries,
    service: str,
) -> None:
    proxy = proxied[1]
    through = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{proxy.port}", "RATE": "500"}
    for other in SERVICES:
        if other != service:
            start(other, RATE="500")
    proxy.requests.clear()
    process = start(service, **through)
    await_work(service, process)
    end([process])
    struck = []
    for api in sorted(proxy.requests):
        strike = proxy.strike(Strike("stall", api, "answered"))
        process = start(service, **through)
        eventually(partial(begun, process))
        strike.struck.wait(20.0)  # the request may come only at the end, or not at all
        took = end([process])
        if strike.struck.is_set():
            struck.append(api)
            recoveries.add(f"SIGTERM, {service}'s request unanswered", took)
    assert struck
