"""Calls that may hang, run on a thread that can be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any


class DeadlineExceeded(Exception):
    """A call took longer than it may."""


class Worker:
    """A daemon thread that runs one call after another, until it is abandoned."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="worker", daemon=True).start()

    def start(self, call: Callable[[], Any]) -> Future[Any]:
        """Begin a call; the future gets its result or its exception."""
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
    """Hands out idle workers, so that a call does not need a new thread each time.

    A call may itself start another one: that one gets another worker.
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
        """Keep a worker whose call has returned for the next call."""
        self._idle.append(worker)
