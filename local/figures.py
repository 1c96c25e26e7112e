"""The figures of a run, from its predictions, outcomes and rejected records alone."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from quality.first_model import FirstModel
from quality.quality import Quality
from quality.scores import Scores
from quality.windows import Bucket, TimeWindow
from stream.records import Prediction, RecordError, decode_label, decode_record

RECENT = 1_000
RATE_SECONDS = 5.0
LISTED = 20
"""How many swaps or drifts a report names at most, the latest ones."""

CURVE_SECONDS = 60.0
CURVE_PARTS = 15
"""Parts of the curve, and one more for what happens now."""

_BARS = "▁▂▃▄▅▆▇█"
_LEAST_RANGE = 0.1
"""Accuracies that are nearer to each other look nearly the same in the curve."""


class Figures:
    """Adds up the predictions and rejected records of a run."""

    def __init__(self) -> None:
        self.predictions = 0
        self.model: int | None = None
        self.first_ids: dict[int, int | str] = {}
        self._curve = TimeWindow(CURVE_SECONDS, CURVE_PARTS)
        self._quality = Quality([self._curve, TimeWindow(math.inf)], [RECENT])
        self._first_model = FirstModel()
        self._largest_id = -1
        self._history: deque[tuple[float, int]] = deque()

    def written(self, value: bytes | None) -> None:
        """Add a record of the data topic, while there is no model."""
        with suppress(RecordError):  # it is rejected
            self._first_model.written(decode_record(value))

    def labelled(self, value: bytes | None) -> None:
        """Add a record of the label topic, while there is no model."""
        with suppress(RecordError):
            self._first_model.labelled(decode_label(value))

    def predicted(self, prediction: Prediction, time_ms: int | None = None) -> None:
        """Add a record of the prediction topic, with its timestamp; now, if there is none."""
        now_ms = 1_000 * time.time()
        self._quality.predicted(prediction, int(now_ms) if time_ms is None else time_ms, now_ms)
        if prediction.outcome:
            return
        self.predictions += 1
        if isinstance(prediction.id, int):
            self._largest_id = max(self._largest_id, prediction.id)
        self.model = prediction.model
        self.first_ids.setdefault(prediction.model, prediction.id)

    def reject(self, source: tuple[int, int], reason: str) -> None:
        """Add a record of the rejected topic; `source` is its partition and last offset."""
        now_ms = 1_000 * time.time()
        self._quality.rejected(source, reason, int(now_ms), now_ms)

    @property
    def rejected(self) -> int:
        """Number of rejected records."""
        return self._all.reasons.total()

    @property
    def swaps(self) -> int:
        """How often a model version predicted for the first time, besides the first one."""
        return max(0, len(self.first_ids) - 1)

    @property
    def accuracy(self) -> float | None:
        """Running accuracy over all partitions, ``None`` before the first counted prediction."""
        return self._quality.accuracy

    @property
    def recent_accuracy(self) -> float | None:
        """Accuracy of the last 1,000 counted predictions."""
        return self._recent.accuracy

    def lag(self, ends: Mapping[int, int]) -> int:
        """Return how many records were neither predicted nor rejected.

        Parameters
        ----------
        ends : mapping of int to int
            Partition of the data topic to the offset after its last record.
        """
        return self._quality.lag(ends)

    def rate(self, now: float) -> float:
        """Return the predictions a second over the last five seconds; `now` is monotonic."""
        self._history.append((now, self.predictions))
        while len(self._history) > 2 and now - self._history[1][0] >= RATE_SECONDS:
            self._history.popleft()
        then, count = self._history[0]
        return (self.predictions - count) / (now - then) if now > then else 0.0

    def line(self, now: float, ends: Mapping[int, int], curve: bool = False) -> str:
        """Return all figures in one line, and why some are missing.

        Parameters
        ----------
        curve : bool
            Whether to draw the accuracy of the last minute.
        """
        lag, rate, whole = self.lag(ends), self.rate(now), self._all
        rejected = whole.reasons.total()
        if self.model is None:
            return (
                f"waiting for the first model, {self._first_model.needs()}, {rejected:,} rejected"
            )
        recent = f"last {RECENT:,} {_share(self.recent_accuracy)}"
        if self._recent.n:
            recent += f" (baseline {_share(self._recent.baseline)})"
        if curve:
            recent += f" {sparkline(self._curve.accuracies(1_000 * time.time()))}"
        found = [
            f"{rate:,.{0 if rate >= 1 else 1}f}/s",
            f"accuracy {_share(self.accuracy)}",
            recent,
            f"model {self.model}",
            f"{self.swaps} swaps",
            f"{rejected:,} rejected",
            f"lag {lag:,}",
        ]
        if delay := _delay(whole):
            found += [f"coverage {_share(whole.coverage)}", f"label delay {delay}"]
        if not self._recent.n:
            found += self._not_counted(whole)
        if not rate:
            found.append("no new predictions" if lag else "no new records")
        return ", ".join(found)

    def report(self, drift_every: int = 0) -> list[str]:
        """Return lines that say what was seen, and why there is no accuracy if there is none.

        Parameters
        ----------
        drift_every : int
            Records from one drift of the stream to the next; 0: it has none.
        """
        whole = self._all
        scores = whole.scores
        lines = [f"{self.predictions:,} predictions, {scores.n:,} of them counted"]
        lines += self._not_counted(whole)
        lines.append(
            f"accuracy {_share(self.accuracy)}, last {RECENT:,} {_share(self.recent_accuracy)}"
            + ("" if scores.n else " (nothing was counted)")
        )
        if scores.n:
            lines.append(
                f"without a model: the commoner label {_share(scores.majority)}, the label before"
                f" {_share(scores.no_change)}"
            )
        if delay := _delay(whole):
            lines.append(
                f"coverage {_share(whole.coverage)}: {whole.events['labelled']:,} of"
                f" {self.predictions:,} predictions have met their label, after {delay}"
            )
        if assumed := whole.events["assumed"]:
            lines.append(f"assumed labels: {assumed:,}, counted apart")
        for reason, count in whole.reasons.most_common(1):
            lines.append(f"{self.rejected:,} rejected, {count:,} of them: {reason}")
        if self.first_ids:
            first, *swaps = [f"{model} at id {id}" for model, id in self.first_ids.items()]
            lines.append(f"first model: {first}; {len(swaps)} swaps{_listed(swaps)}")
        if drift_every:
            drifts = range(drift_every, self._largest_id + 1, drift_every)
            lines.append(f"{len(drifts)} drifts{_listed([f'at id {id}' for id in drifts])}")
        return lines

    @property
    def _recent(self) -> Scores:
        return self._quality.newest[RECENT].scores

    @property
    def _all(self) -> Bucket:
        return self._quality.times[math.inf].total(0)

    def _not_counted(self, whole: Bucket) -> list[str]:
        """Say how many predictions do not count, and why."""
        seen = whole.events["seen"]
        reasons = {
            "their model was trained on the record": seen,
            "the record has no label": self.predictions - seen - whole.scores.n,
        }
        return [f"{count:,} not counted: {reason}" for reason, count in reasons.items() if count]


def sparkline(accuracies: Sequence[float | None]) -> str:
    """Return a line of bars, between the least and the greatest; a blank where there is none.

    Examples
    --------
    >>> sparkline([0.5, None, 0.7, 1.0])
    '▁ ▄█'
    """
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    least = min(known, default=0.0)
    step = max(_LEAST_RANGE, max(known, default=0.0) - least) / (len(_BARS) - 1)
    bars = (" " if a is None else _BARS[round((a - least) / step)] for a in accuracies)
    return "".join(bars)


def _delay(whole: Bucket) -> str:
    """Say how late labels come: half of them, and 95 %; empty if none came later."""
    p50, p95 = whole.delay_below(0.5), whole.delay_below(0.95)
    return "" if p50 is None else f"{p50:,.1f} s (95 %: {p95:,.1f} s)"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _listed(items: list[str]) -> str:
    hidden = "…, " if len(items) > LISTED else ""
    return f": {hidden}{', '.join(items[-LISTED:])}" if items else ""
