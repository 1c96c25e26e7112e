"""The log's lines of published models: at once where something happened, else one for many."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable

LINE_SECONDS = 10.0
"""Between two lines of models that nothing but time asked for."""

AT_ONCE = ("first", "alarm", "archive")
"""Reasons whose models have a line each."""


class Published:
    """Logs each published model, or sums several up.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said = -math.inf
        self._first = self._last = 0
        self._newest = ""
        self._reasons: Counter[str] = Counter()

    def add(self, version: int, recipe: str, reason: str, details: str) -> None:
        """Take a model that was published; log it at once if its reason asks for that."""
        word = reason.partition(" ")[0]
        if word in AT_ONCE:
            self._log.info("model=%d recipe=%s reason=%s %s", version, recipe, reason, details)
            return
        if not self._reasons:
            self._first, self._newest = version, f"recipe={recipe} reason={reason} {details}"
        else:
            self._newest = details
        self._last = version
        self._reasons[word] += 1
        self.sum_up()

    def sum_up(self, at_once: bool = False) -> None:
        """Log the models that have no line yet, if the last such line is not of just now."""
        count, now = self._reasons.total(), self._clock()
        if not count or (now - self._said < LINE_SECONDS and not at_once):
            return
        if count == 1:
            self._log.info("model=%d %s", self._last, self._newest)
        else:
            reasons = ", ".join(f"{word} {times}" for word, times in self._reasons.most_common())
            self._log.info(
                "published %d models, from %d to %d: %s; the last one: %s",
                *(count, self._first, self._last, reasons, self._newest),
            )
        self._said = now
        self._reasons.clear()
