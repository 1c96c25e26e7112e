"""How tests start services and wait for what they do."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import pytest
from kafka.errors import KafkaTimeoutError

from local.process import Process

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("datagenerator", "modelgenerator", "predictor")
PATIENCE_SECONDS = 120.0
"""How long to wait for what takes seconds on a machine that is not busy."""

END_SECONDS = 2 * 5.0
"""Twice what a service takes at most to end on SIGTERM."""

_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "OMP_NUM_THREADS")
_MUTATED = ("MUTATION", "PYTHONPATH")
"""What `tests.mutations` sets; it holds for the services, too."""


class Services:
    """Starts services, and ends those that still run when the test is over.

    ``start("predictor", COMMIT_INTERVAL_MS="50")`` runs ``python -m predictor.app``.

    Parameters
    ----------
    env : mapping of str to str
        Settings of every service. Of this process's environment they get only what they need.
    folder : Path
        Gets one log file a process: ``predictor-1.log`` and so on.

    Attributes
    ----------
    processes : list of Process
    logs : dict of str to Path
        The accuracy logs of replicas, by name.
    """

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        taken = _INHERITED + _MUTATED * ("MUTATION" in os.environ)
        self.env = {name: os.environ[name] for name in taken if name in os.environ} | dict(env)
        self._folder = folder
        self.processes: list[Process] = []
        self.logs: dict[str, Path] = {}

    def __call__(self, service: str, python: str = sys.executable, **env: str) -> Process:
        """Start ``python -m <service>.app`` with further settings."""
        return self.run(service, f"{service}.app", python=python, **env)

    def run(self, name: str, *module: str, python: str = sys.executable, **env: str) -> Process:
        """Start ``python -m <module>`` with its arguments and further settings."""
        name = f"{name}-{len(self.processes) + 1}"
        process = Process(
            name,
            [python, "-m", *module],
            self._folder / f"{name}.log",
            env=self.env | env,
            cwd=ROOT,
        )
        self.processes.append(process)
        return process

    def replica(self, name: str, *module: str, **env: str) -> Process:
        """Start a predictor under a name, with an accuracy log of its own."""
        self.logs[name] = self._folder / f"{name}.accuracy.log"
        own = {"REPLICA": name, "LOG_FILE": str(self.logs[name])}
        return self.run("predictor", *(module or ["predictor.app"]), **own | env)

    @property
    def written(self) -> list[Path]:
        """The accuracy logs that there are: a replica may have had nothing to write."""
        found = [log for log in self.logs.values() if log.exists()]
        assert found
        return found

    def python(
        self,
        *arguments: str,
        answer: str = "",
        cwd: Path = ROOT,
        seconds: float = 300.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python to its end, with further settings: ``python("-m", "predictor.verify")``."""
        return subprocess.run(
            [sys.executable, *arguments],
            input=answer,
            capture_output=True,
            text=True,
            env=self.env | dict(env or {}),
            cwd=cwd,
            timeout=seconds,
            check=False,
        )

    def verify(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m predictor.verify`` in this process, which need not start first."""
        from predictor.verify.__main__ import main  # what imports this module starts faster

        with (
            patch.dict(os.environ, self.env | dict(env or {}), clear=True),
            redirect_stdout(io.StringIO()) as output,
            redirect_stderr(io.StringIO()) as errors,
        ):
            status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = path.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(path.parent.name))
    return found


def gone(pid: int) -> bool:
    """Tell whether no process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def eventually(
    condition: Callable[[], T], seconds: float = 90.0, message: str | Callable[[], str] = ""
) -> T:
    """Wait until a condition holds and return what it returned; fail the test if it never does.

    Parameters
    ----------
    condition : callable
        Asked every 50 ms.
    seconds : float
    message : str or callable
        What was waited for; called at the end of the wait, if it can be called.
    """
    end = time.monotonic() + seconds
    while True:
        last = time.monotonic() >= end  # what was true before the end may not be at the end
        try:
            found = condition()
        except KafkaTimeoutError:  # the broker is slow, or away for a moment
            if last:
                raise
            continue
        if found:
            return found
        if last:
            what = message() if callable(message) else message
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.05)


def await_line(process: Process, text: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a process has logged a text; fail the test if it ends without."""
    eventually(
        lambda: text in process.log() or process.status is not None,
        seconds,
        lambda: f"{text!r} in the log of {process.name}\n{process.tail()}",
    )
    assert text in process.log(), f"{process.name} ended without\n{process.tail()}"


def assert_ends(process: Process, number: int = signal.SIGTERM) -> None:
    """Assert that a service ends on a signal: in time, with status 0 and without a traceback."""
    process.send(number)
    assert process.wait(END_SECONDS) == 0, process.tail()
    assert "Traceback" not in process.log()


def last_error(process: Process, status: int = 1) -> str:
    """Wait until a service has ended by itself, and return its one error, the last line of its log.

    Parameters
    ----------
    status : int
        The exit status expected.
    """
    assert process.wait(PATIENCE_SECONDS) == status, process.log()
    lines = process.log().splitlines()
    errors = [line for line in lines if " INFO " not in line and " WARNING " not in line]
    assert errors == lines[-1:], process.log()
    return re.sub(r"^\S+ \S+ ERROR \w+: ", "", errors[0])
