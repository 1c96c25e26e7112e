"""How the predictor is doing, as lines of its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from predictor.model_shelf import ModelShelf
from predictor.result import Result
from predictor.units import Units
from stream.reasons import Reasons

log = logging.getLogger("predictor")

BUSY_SECONDS = 1.0
FIRST_SECONDS = 10.0
EVERY_SECONDS = 60.0


class Summary:
    """Logs figures once a second while records are committed; else after 10 s, then each minute.

    A line a minute names the commonest reason of the records that were rejected since the last
    such line. While records wait for a model, a line says why: after 10 s, then each minute.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self, units: Units, shelf: ModelShelf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._units = units
        self._shelf = shelf
        self._clock = clock
        self._records, self._since, self._pause = 0, clock(), FIRST_SECONDS
        self._rejected, self._next_reasons = Reasons(), clock()
        self._next_waiting: float | None = None

    def take(self, result: Result) -> None:
        """Take in a committed result."""
        self._records += len(result)
        for rejected in result.rejected:
            partition, offset = rejected.source
            self._rejected.add(rejected.reason, f"partition {partition} offset {offset}")

    def write(self) -> None:
        """Write the lines that are due."""
        self._write_figures()
        self._write_why_records_wait()

    def _write_figures(self) -> None:
        now = self._clock()
        elapsed = now - self._since
        if elapsed < (BUSY_SECONDS if self._records else self._pause):
            return
        tallies = self._units.tallies.values()
        n, correct = sum(t.n for t in tallies), sum(t.correct for t in tallies)
        lag, exact = self._units.lag()
        model, _ = self._shelf.serve()
        log.info(
            "n=%d accuracy=%.6f model=%s swaps=%d refused=%d records/s=%.0f rejected=%d lag%s%d",
            n,
            correct / n if n else float("nan"),
            model.version if model else "none",
            self._shelf.swaps,
            self._shelf.refused,
            self._records / elapsed,
            sum(t.rejected for t in tallies),
            "=" if exact else "<=",
            lag,
        )
        self._pause = FIRST_SECONDS if self._records else EVERY_SECONDS
        self._records, self._since = 0, now
        if self._rejected.total and now >= self._next_reasons:
            log.info("rejected since the last such line: %s", self._rejected)
            self._rejected, self._next_reasons = Reasons(), now + EVERY_SECONDS

    def _write_why_records_wait(self) -> None:
        now, waiting, tallies = self._clock(), self._units.waiting, self._units.tallies
        model, _ = self._shelf.serve()
        if not waiting.held:
            self._next_waiting = None
        elif self._next_waiting is None:
            self._next_waiting = now + FIRST_SECONDS
            if not model:
                log.info("waiting for a model")
        elif now >= self._next_waiting:
            self._next_waiting = now + EVERY_SECONDS
            partition = min(waiting.held)
            log.warning(
                "%s; %s; %d rejected so far",
                f"partition {partition} was predicted with model {tallies[partition].model} and"
                f" waits for it or a newer one (here: {model.version})"
                if model
                else f"nothing is predicted: {self._shelf.why_none}",
                waiting,
                sum(t.rejected for t in tallies.values()),
            )
