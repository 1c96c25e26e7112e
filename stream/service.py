"""How a service runs: its start, its log, its end."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

from stream import watchdog
from stream.arguments import argument_parser
from stream.deadlines import DeadlineExceeded, Workers
from stream.quoting import OneLine
from stream.settings import SettingsError, StreamSettings, misspelt, read

S = TypeVar("S", bound=StreamSettings)
T = TypeVar("T")

GRACE_SECONDS = 1.0
"""Time that a running call has left once the service is told to stop."""

WARN_EVERY_SECONDS = 60.0
BEAT_SECONDS = 1.0
"""Interval at which the health file is touched."""


class Stopped(Exception):
    """The service was told to stop."""


class Fatal(Exception):
    """The service cannot go on; the message says why in one line."""


class Stop:
    """The stop flag of a service, and waits that end when it is set.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._requested = False
        # Not an Event: a signal handler that sets one would wait for ever for its lock if the main
        # thread, which it interrupted, holds it. A socket can be written to at any time.
        self._woken, self._wake = socket.socketpair()
        self._clock = clock
        self._health_file: Path | None = None
        self._next_beat = -BEAT_SECONDS
        self._workers = Workers()

    def __bool__(self) -> bool:
        return self._requested

    def request(self) -> None:
        """Tell the service to stop."""
        if not self._requested:
            self._requested = True
            self._wake.send(b"\0")

    def beat_on(self, health_file: Path | None) -> None:
        """Touch a file from now on whenever the main thread checks the flag or waits.

        Every loop does so at each turn. If the file grows old, the service is stuck.

        Raises
        ------
        Fatal
            When the file cannot be created.
        """
        try:
            if health_file:
                health_file.touch()
        except OSError as error:
            raise Fatal(f"HEALTH_FILE: {error}") from None
        self._health_file = health_file

    def await_request(self) -> None:
        """Return once the service is told to stop."""
        select.select([self._woken], [], [])

    def check(self) -> None:
        """Raise `Stopped` if the service was told to stop."""
        self._beat()
        if self:
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait; raise `Stopped` as soon as the service is told to stop."""
        self.check()
        while seconds > 0:
            select.select([self._woken], [], [], min(seconds, BEAT_SECONDS))
            self.check()
            seconds -= BEAT_SECONDS

    def until_stopped(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, however long it takes.

        Raises
        ------
        Stopped
            When the service is told to stop and the call does not return within
            `GRACE_SECONDS`.
        """
        return self.deadline(math.inf, call)

    def deadline(self, seconds: float, call: Callable[[], T], max_step: float = math.inf) -> T:
        """Return what `call` returns, or raise if it takes too long.

        The call runs on a worker thread, because some calls of kafka-python and of models have no
        timeout. A worker whose call takes too long is abandoned. Once the service is told to stop,
        the call has `GRACE_SECONDS` left.

        Parameters
        ----------
        seconds : float
            Timeout of the call; infinite for none.
        call : callable
            Takes no arguments.
        max_step : float
            Most seconds that one step of the clock counts, so that a suspended process does not
            use up its deadline. Steps are a tenth of a second apart.

        Raises
        ------
        DeadlineExceeded
        Stopped
            Instead, once the service is told to stop.
        """
        worker = self._workers.take()
        future = worker.start(call)
        left, last, stopping = seconds, self._clock(), False
        while not wait([future], timeout=min(0.1, max(0.0, left))).done:
            now = self._clock()
            left, last = left - min(now - last, max_step), now
            if math.isfinite(left):  # a call without a timeout may be what is stuck
                self._beat()
            if self and not stopping:
                stopping, left = True, min(left, GRACE_SECONDS)
            if left <= 0:
                worker.abandon()
                if stopping:
                    raise Stopped
                raise DeadlineExceeded(f"no answer within {seconds:g} s")
        self._workers.give_back(worker)
        return future.result()  # type: ignore[no-any-return] # what the call returned

    def _beat(self) -> None:
        now = self._clock()
        # Only the main thread runs the loop; the others say nothing about it.
        if self._health_file and now >= self._next_beat and _on_main_thread():
            self._next_beat = now + BEAT_SECONDS
            with suppress(OSError):  # a full disk must not stop the service
                self._health_file.touch()


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Warnings:
    """Recurring warnings: each kind is logged at most once a minute, with its count.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def due(self, kind: str) -> bool:
        """Tell whether a warning of this `kind` would be logged now."""
        return self._clock() - self._last.get(kind, -WARN_EVERY_SECONDS) >= WARN_EVERY_SECONDS

    def warn(self, kind: str, message: str) -> None:
        """Log `message`, unless a warning of this `kind` was logged within the last minute."""
        now = self._clock()
        if not self.due(kind):
            self._held[kind] = self._held.get(kind, 0) + 1
            return
        self._last = {k: t for k, t in self._last.items() if now - t < WARN_EVERY_SECONDS}
        held = self._held.pop(kind, 0)
        self._last[kind] = now
        self._log.warning(
            "%s%s", message, f" ({held} more since the last such line)" if held else ""
        )


shared_warnings = cache(Warnings)
"""Given a log, returns the same warnings each time: several callers log one line a minute."""


class Backoff:
    """Growing pauses between retries, in seconds: 0.2, 0.4, … 5."""

    def __init__(self) -> None:
        self._next = 0.2

    def __next__(self) -> float:
        pause, self._next = self._next, min(5.0, 2 * self._next)
        return pause


def run(name: str, settings: type[S], main: Callable[[S, Stop], None]) -> NoReturn:
    """Run a service until it is told to stop, then exit.

    Exit status: 0 after SIGTERM or SIGINT, 2 for a wrong argument or setting, 1 for any other
    error that ends the service; each is one line. ``--help`` shows its settings.

    Parameters
    ----------
    name : str
        Name of the service in its log.
    settings : type of StreamSettings
        Read from the environment.
    main : callable
        Takes the settings and the stop flag; may raise `Stopped` and `Fatal`.
    """
    about = sys.modules[main.__module__].__doc__
    argument_parser(f"python -m {name}.app", about, settings).parse_args()
    # Models and libraries would warn at every record. Set once: `catch_warnings` around each
    # prediction would change the filters of the other threads as well.
    warnings.simplefilter("ignore")
    log = logging.getLogger(name)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level="INFO")
    logging.raiseExceptions = False  # a line that a full disk refuses is lost, without a traceback
    stop, status = Stop(), 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.request())
    watchdog.watch(stop.await_request, log)
    try:
        found = read(settings)
        logging.getLogger().setLevel(found.log_level)
        # kafka-python logs each of its retries as an error; the services log what matters.
        client_level = logging.DEBUG if found.log_level == "DEBUG" else logging.CRITICAL + 1
        logging.getLogger("kafka").setLevel(client_level)
        for line in misspelt(settings):
            log.warning("%s", line)
        stop.beat_on(found.health_file)
        if found.metrics_port:
            from stream.metrics import serve  # commands, which serve none, start without it

            serve(found, log)
        main(found, stop)
    except Stopped:
        log.info("stopped")
    except SettingsError as error:
        log.error("%s", error)
        status = 2
    except Fatal as error:
        log.error("%s", error)
        status = 1
    logging.shutdown()
    # At once: an abandoned call, such as a fit, may still run compiled code, which crashes while
    # the interpreter shuts down.
    os._exit(status)
