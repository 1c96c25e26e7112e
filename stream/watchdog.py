"""Ends a process that was told to stop and cannot: no thread can end a call that never returns."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 4.4
"""Time from the order to stop to the end of the process; an orderly end takes less."""

_STEP_SECONDS = 0.1
_SAYING_SECONDS = 0.3

_doing: list[Callable[[], str]] = []
"""What the main thread is doing, the innermost last."""


@contextmanager
def doing(what: Callable[[], str]) -> Iterator[None]:
    """Say what the main thread is doing, for the log if it is stuck there.

    Parameters
    ----------
    what : callable
        Called only then, on another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _doing.append(what)
    try:
        yield
    finally:
        _doing.pop()


def watch(await_stop: Callable[[], object], log: logging.Logger) -> None:
    """Start a thread that ends the process with status 1 if it does not end when told to stop.

    It cannot run while compiled code holds Python's lock.

    Parameters
    ----------
    await_stop : callable
        Returns once the process is told to stop.
    """

    def say() -> None:
        log.error("did not stop within %g s: %s", PATIENCE_SECONDS, _where())

    def wait_and_end() -> None:
        await_stop()
        # In steps, each of which takes longer on a busy machine, or while the process is suspended.
        for _ in range(round(PATIENCE_SECONDS / _STEP_SECONDS)):
            time.sleep(_STEP_SECONDS)
        saying = threading.Thread(target=say, daemon=True)
        saying.start()
        for _ in range(round(_SAYING_SECONDS / _STEP_SECONDS)):
            saying.join(_STEP_SECONDS)  # the log itself may be what hangs
        os._exit(1)

    threading.Thread(target=wait_and_end, name="watchdog", daemon=True).start()


def _where() -> str:
    """Say what the main thread is doing, and where in which file."""
    what = [found() for found in _doing[-1:]]
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame:
        code = frame.f_code
        what.append(f"{Path(code.co_filename).name} line {frame.f_lineno} in {code.co_name}")
    return ", ".join(what)
