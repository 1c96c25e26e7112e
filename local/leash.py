"""Becomes a command that ends when whoever started it ends, even by ``kill -9``.

Run as ``python -IS leash.py COMMAND…`` with the reading end of a pipe as standard input, whose
writing end the owner keeps open. A watcher waits for the end of that pipe, which comes when the
owner closes it or dies in whatever way; the process itself turns into the command, so that its
process id is the command's.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_SECONDS = 5.0
"""How long a command whose owner is gone may take to end by itself."""


def main(command: list[str]) -> None:
    """Fork the watcher, then become the command."""
    pid = os.getpid()
    if os.fork() == 0:
        os.setsid()  # Ctrl-C in the terminal is not for the watcher
        _watch(pid)
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def _watch(pid: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # or a reader of the command's output would wait for the watcher
        os.dup2(null, stream)
    while os.read(0, 1):
        pass
    # The watcher is the command's child: once it is somebody else's, the command is gone and
    # its process id may be another's.
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
