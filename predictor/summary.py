"""How the predictor is doing, as lines of its log and as gauges."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from itertools import zip_longest

from predictor import metrics
from predictor.model_shelf import ModelShelf
from predictor.result import Result
from predictor.tally import Tally, delay_below
from predictor.units import Units
from stream.reasons import Reasons

log = logging.getLogger("predictor")

BUSY_SECONDS = 1.0
FIRST_SECONDS = 10.0
EVERY_SECONDS = 60.0
GAUGES_SECONDS = 1.0


class Summary:
    """Logs figures once a second while records are committed; else after 10 s, then each minute.

    Once labels have come later, the figures tell how many predictions wait for one, the share of
    all predictions that has one (coverage), and below how many seconds half of the delays are, and
    95 %. A line a minute names the commonest reason of the records that were rejected since the
    last such line, another that of the labels. While records wait for a model, a line says why:
    after 10 s, then each minute. The gauges are set once a second.

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
        self._records, self._labels, self._since, self._pause = 0, 0, clock(), FIRST_SECONDS
        self._rejected = {"rejected": Reasons(), "labels rejected": Reasons()}
        self._next_reasons = clock()
        self._next_waiting: float | None = None
        self._gauges, self._next_gauges = metrics.Gauges(), clock()

    def take(self, result: Result) -> None:
        """Take in a committed result."""
        made = len(result.made)
        self._labels += len(result.predictions) - made + len(result.rejected_labels)
        self._records += made + len(result.rejected)
        for reasons, found in zip(
            self._rejected.values(), (result.rejected, result.rejected_labels), strict=True
        ):
            for rejected in found:
                partition, offset = rejected.source
                reasons.add(rejected.reason, f"partition {partition} offset {offset}")

    def write(self) -> None:
        """Write the lines that are due, and set the gauges."""
        self._write_figures()
        self._write_why_records_wait()
        if self._clock() >= self._next_gauges:
            self._next_gauges = self._clock() + GAUGES_SECONDS
            lags = {partition: sum(lag) for partition, lag in self._units.lag().items()}
            waiting = sum(tally.waiting for tally in self._units.tallies.values())
            model, _ = self._shelf.serve()
            self._gauges.set(lags, waiting, model.envelope if model else None)

    def _write_figures(self) -> None:
        now = self._clock()
        elapsed = now - self._since
        busy = bool(self._records or self._labels)
        if elapsed < (BUSY_SECONDS if busy else self._pause):
            return
        tallies = self._units.tallies.values()
        n, correct = sum(t.n for t in tallies), sum(t.correct for t in tallies)
        lags = self._units.lag().values()
        model, _ = self._shelf.serve()
        log.info(
            "n=%d accuracy=%.6f model=%s swaps=%d refused=%d records/s=%.0f rejected=%d lag%s%d%s",
            n,
            correct / n if n else float("nan"),
            model.version if model else "none",
            self._shelf.swaps,
            self._shelf.refused,
            self._records / elapsed,
            sum(t.rejected for t in tallies),
            "<=" if any(lag.unread for lag in lags) else "=",
            sum(map(sum, lags)),
            _late(tallies),
        )
        self._pause = FIRST_SECONDS if busy else EVERY_SECONDS
        self._records, self._labels, self._since = 0, 0, now
        if now < self._next_reasons:
            return
        for what, reasons in self._rejected.items():
            if reasons.total:
                log.info("%s since the last such line: %s", what, reasons)
                self._rejected[what], self._next_reasons = Reasons(), now + EVERY_SECONDS

    def _write_why_records_wait(self) -> None:
        now, waiting, tallies = self._clock(), self._units.waiting, self._units.tallies
        model, _ = self._shelf.serve()
        version, barred = model.version if model else 0, self._shelf.barred
        # A model may have come since these were held.
        held = [p for p in waiting.held if not tallies[p].allows(version, barred)]
        if not held:
            self._next_waiting = None
        elif self._next_waiting is None:
            self._next_waiting = now + FIRST_SECONDS
            if not model:
                log.info("waiting for a model")
        elif now >= self._next_waiting:
            self._next_waiting = now + EVERY_SECONDS
            partition = min(held)
            log.warning(
                "%s; %s; %d rejected so far",
                f"partition {partition} was predicted with model {tallies[partition].model} and"
                f" waits for it or a newer one (here: {model.version})"
                if model
                else f"nothing is predicted: {self._shelf.why_none}",
                waiting,
                sum(t.rejected for t in tallies.values()),
            )


def _late(tallies: Collection[Tally]) -> str:
    """Say how late the labels come; nothing where they come inside their records."""
    if not any(tally.late for tally in tallies):
        return ""
    covered = sum(t.labelled for t in tallies) / sum(t.predicted for t in tallies)
    text = f" waiting={sum(t.waiting for t in tallies)} coverage={covered:.3f}"
    delays = [sum(n) for n in zip_longest(*(t.delays for t in tallies), fillvalue=0)]
    for percent in (50, 95):
        below = delay_below(delays, percent / 100)
        if below is not None:
            text += f" delay_p{percent}" + (f"<{below:.0f}s" if below < math.inf else ">=48d")
    return text
