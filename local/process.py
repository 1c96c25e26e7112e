"""Processes that end with the process that started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

_LEASH = Path(__file__).with_name("leash.py")


class Failed(RuntimeError):
    """What was started cannot go on; the message says why."""


def leashed(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` until its standard input, a pipe, is closed."""
    return [sys.executable, "-IS", str(_LEASH), *command]


class Process:
    """A command that runs until it is stopped or its owner ends.

    Parameters
    ----------
    name : str
        Its name in messages.
    log_path : Path or None
        Standard output and error are appended to it; ``None``: they are those of the owner.
    env : mapping of str to str, optional
        The whole environment; that of this process by default.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path | None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") if log_path else nullcontext() as log:
            self._popen = subprocess.Popen(  # noqa: S603 - the commands are the project's own
                leashed(command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                # Ctrl-C in the terminal is for the owner, which stops its processes in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the command itself."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        return self._popen.poll()

    def log(self) -> str:
        """Return everything that it wrote to its log."""
        return self.log_path.read_text(errors="replace") if self.log_path else ""

    def tail(self, lines: int = 20) -> str:
        """Return the last lines that it wrote, indented."""
        return "\n".join(f"    {line}" for line in self.log().splitlines()[-lines:])

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._popen.send_signal(number)

    def pause(self) -> None:
        """Suspend it."""
        self.send(signal.SIGSTOP)

    def wake(self) -> None:
        """Resume it."""
        self.send(signal.SIGCONT)

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait until it ends; return the exit status, ``None`` if it still runs after a timeout."""
        try:
            status = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._release()
        return status

    def stop(self, seconds: float = 30.0) -> int:
        """End it with SIGTERM, with SIGKILL after a timeout; return the exit status."""
        return stop([self], seconds)[0]

    def kill(self) -> int:
        """End it with SIGKILL; return the exit status."""
        self._popen.kill()
        status = self._popen.wait()
        self._release()
        return status

    def _release(self) -> None:
        if self._popen.stdin:
            self._popen.stdin.close()


def stop(processes: Sequence[Process], seconds: float = 30.0) -> list[int]:
    """End processes together with SIGTERM, with SIGKILL after a timeout; return exit statuses."""
    end = time.monotonic() + seconds
    for process in processes:
        process.send(signal.SIGTERM)
    statuses = [process.wait(max(0.0, end - time.monotonic())) for process in processes]
    return [
        process.kill() if status is None else status
        for process, status in zip(processes, statuses, strict=True)
    ]


def watch(processes: Sequence[Process]) -> NoReturn:
    """Wait until a process ends, and raise `Failed`."""
    while True:
        check_running(processes)
        time.sleep(0.2)


def check_running(processes: Iterable[Process]) -> None:
    """Raise `Failed`, with the end of its log, if a process has ended."""
    for process in processes:
        if process.status is not None:
            line = f"{process.name} ended with status {process.status}"
            raise Failed(f"{line}\n{process.tail()}".rstrip())
