"""What tests share: a real broker, settings of their own, services that end with the test."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from local.kafka import LocalKafka
from local.process import stop
from tests.services import Services
from tests.topics import Topics

# How long an example takes depends on the machine more than on the code.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

_BROKER: list[str] = []
_CLEANUP = ExitStack()


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Bootstrap servers of ``KAFKA_BOOTSTRAP_SERVERS``, or of a broker for the whole run."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or _shared(request.config)
    if given:
        yield given
        return
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap_servers


def _shared(config: pytest.Config) -> str | None:
    """Return the broker that the test processes of one run share, where there are several."""
    found: dict[str, str] = getattr(config, "workerinput", {})
    return found.get("kafka")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start one broker for all test processes of a run."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return
    if not _BROKER:
        folder = Path(_CLEANUP.enter_context(tempfile.TemporaryDirectory()))
        _BROKER.append(_CLEANUP.enter_context(LocalKafka(folder)).bootstrap_servers)
    node.workerinput["kafka"] = _BROKER[0]


def pytest_unconfigure() -> None:
    """Stop that broker."""
    _CLEANUP.close()


@pytest.fixture
def settings_env(kafka: str, tmp_path: Path) -> dict[str, str]:
    """Settings under which services share topics, keys and files with no other test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATA_TOPIC": f"{name}.data",
        "MODEL_TOPIC": f"{name}.model",
        "PREDICTION_TOPIC": f"{name}.prediction",
        "GROUP_ID": name,
        "LOG_FILE": str(tmp_path / "predictor.log"),
        "SIGNING_KEY": str(tmp_path / "signing" / "key.pem"),
        "TRUSTED_KEYS": str(tmp_path / "trusted"),
        "PREDICTOR_SECRET": str(tmp_path / "secret"),
        "LOG_LEVEL": "INFO",
        "MODEL_MAX_MICROSECONDS": "10000",  # ten times the default: the machine may be very busy
    }


@pytest.fixture
def topics(settings_env: dict[str, str]) -> Iterator[Topics]:
    """Topics whose data topic has one partition."""
    with Topics(settings_env) as found:
        yield found


@pytest.fixture
def three(settings_env: dict[str, str]) -> Iterator[Topics]:
    """Topics whose data topic has three partitions."""
    settings_env["DATA_PARTITIONS"] = "3"
    with Topics(settings_env, partitions=3) as found:
        yield found


@pytest.fixture
def start(settings_env: dict[str, str], tmp_path: Path) -> Iterator[Services]:
    """Start services: ``start("predictor", COMMIT_INTERVAL_MS="50")``."""
    services = Services(settings_env, tmp_path)
    yield services
    stop(services.processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the logs of the services that a failed test started into its report."""
    report = yield
    services = getattr(item, "funcargs", {}).get("start")
    if report.when == "call" and report.failed and isinstance(services, Services):
        for process in services.processes:
            report.sections.append((f"end of {process.log_path}", events(process.log())))
    return report


def events(log: str) -> str:
    """Return the end of a log, and what it said before other than the predictor's summaries."""
    lines = log.splitlines()
    before = [line for line in lines[:-5] if " predictor: n=" not in line]
    return "\n".join(f"    {line}" for line in [*before[-60:], *lines[-5:]])
