"""Becomes a command that ends when the process that started it ends, even after ``kill -9``.

Run as ``python -IS leash.py COMMAND…``. Standard input is the reading end of a pipe whose writing
end the owner keeps open. A watcher process waits for the end of that pipe: the owner closed it, or
is gone. The process itself becomes the command, so that it keeps its process id.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_SECONDS = 5.0
"""How long a command may take to end after its owner is gone."""


def main(command: list[str]) -> None:
    """Fork the watcher, then become the command."""
    pid = os.getpid()
    if os.fork() == 0:
        os.setsid()  # Ctrl-C in the terminal must not reach the watcher
        _watch(pid)
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def _watch(pid: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # a reader of the command's output must not wait for the watcher
        os.dup2(null, stream)
    while os.read(0, 1):
        pass
    # The watcher is the command's child. When its parent changes, the command is gone, and its
    # process id may belong to another process.
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 0.0)):
        if os.getppid() != pid:
            return
        os.kill(pid, number)
        end = time.monotonic() + seconds
        while os.getppid() == pid and time.monotonic() < end:
            time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
        sys.exit()
    main(sys.argv[1:])
