"""What the tests of faults share: a load, and a table of recovery times."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.topics import Topics

_RECOVERIES = pytest.StashKey[Recoveries]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RECOVERIES] = Recoveries()


@pytest.fixture(scope="session")
def recoveries(request: pytest.FixtureRequest) -> Recoveries:
    """Collect recovery times: ``recoveries.add("broker killed (-9)", seconds)``."""
    return request.config.stash[_RECOVERIES]


@pytest.fixture
def load(three: Topics) -> Iterator[Load]:
    """Write 500 records a second over three partitions, and publish a model every two seconds."""
    with Load(three) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.fail("only root can mount the small filesystem that this test needs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "log", str(folder)], check=True)  # noqa: S607 - wherever mount is
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - wherever umount is


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what this worker measured to the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["recoveries"] = session.config.stash[_RECOVERIES].seconds


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker measured; one that crashed has sent nothing."""
    for fault, seconds in getattr(node, "workeroutput", {}).get("recoveries", {}).items():
        node.config.stash[_RECOVERIES].add(fault, *seconds)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[_RECOVERIES].table()
    if lines:
        terminalreporter.section("recoveries")
        for line in lines:
            terminalreporter.write_line(line)
