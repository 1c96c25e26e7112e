"""Worker threads for calls that may hang. A thread whose call hangs is abandoned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class DeadlineExceeded(TimeoutError):
    """A call took too long."""


class Worker:
    """A daemon thread that runs one call after another, until it is abandoned."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="worker", daemon=True).start()

    def start(self, call: Callable[[], Any]) -> Future[Any]:
        """Start a call; the future gets its result or its exception."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def abandon(self) -> None:
        """End the thread as soon as its current call returns, if it ever does."""
        self._calls.put(None)

    def _run(self) -> None:
        while (next_call := self._calls.get()) is not None:
            future, call = next_call
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
                future.set_exception(error)
            del next_call, future, call  # an idle thread keeps no result alive


class Workers:
    """A pool of idle workers, so that not every call needs a new thread.

    A call that itself starts another call gets another worker for it.
    """

    def __init__(self) -> None:
        self._idle: list[Worker] = []

    def take(self) -> Worker:
        """Return an idle worker, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:
            return Worker()

    def give_back(self, worker: Worker) -> None:
        """Take back a worker whose call has returned."""
        self._idle.append(worker)
