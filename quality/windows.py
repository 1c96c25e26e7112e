"""The newest part of the stream, by time or by number of records; both bounded in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Self

from quality.scores import Outcome, Scores

PARTS = 60
"""Buckets of a window of time: as many as it has of the next smaller unit."""

REASONS = 100
"""Most different reasons of a bucket; they may quote what was rejected."""

OTHER = "other reasons"

REASON_CHARACTERS = 300
"""Of a reason that are kept."""

_DELAY_STEPS = 8
"""Bins of the delay of labels for each doubling, so that a bin is 9 % wide."""


class Bucket:
    """What happened within some time; buckets add up, in any order.

    Attributes
    ----------
    scores : Scores
        Of the predictions that were counted, when their label was known.
    predictions : Counter of int
        Predictions that were made, by model version.
    counted, correct : Counter of int
        Those that were counted, and those that were right, by model version.
    events : Counter of str
        ``labelled``: predictions that met their label, at once or later. ``seen``: predictions that
        are not counted, since the model was trained on the record. ``revised``, ``assumed``: such
        outcomes.
    reasons : Counter of str
        Rejected records by reason.
    """

    def __init__(self) -> None:
        self.scores = Scores()
        self.predictions: Counter[int] = Counter()
        self.counted: Counter[int] = Counter()
        self.correct: Counter[int] = Counter()
        self.events: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._delays: Counter[int] = Counter()
        self._delay_ms: Counter[int] = Counter()

    def __iadd__(self, other: Bucket) -> Self:
        self.scores += other.scores
        for name in ("predictions", "counted", "correct", "events", "_delays", "_delay_ms"):
            getattr(self, name).update(getattr(other, name))
        for reason, times in other.reasons.items():
            self.reject(reason, times)
        return self

    def count(self, model: int, outcome: Outcome) -> None:
        """Take in a prediction that is counted."""
        self.scores.add(outcome)
        self.counted[model] += 1
        self.correct[model] += outcome.right

    def reject(self, reason: str, times: int = 1) -> None:
        """Take in records that were rejected."""
        reason = reason[:REASON_CHARACTERS]
        if reason not in self.reasons and len(self.reasons) >= REASONS:
            reason = OTHER
        self.reasons[reason] += times

    def delay(self, seconds: float) -> None:
        """Take in how long a label took."""
        milliseconds = round(seconds * 1_000)
        number = round(_DELAY_STEPS * math.log2(1 + max(0, milliseconds)))
        self._delays[number] += 1
        self._delay_ms[number] += milliseconds

    @property
    def coverage(self) -> float | None:
        """Labels that came for each prediction that was made.

        Where labels take longer than the window, both are of other records: above 1 where many
        labels come at once.
        """
        made = self.predictions.total()
        return self.events["labelled"] / made if made else None

    def delay_below(self, share: float) -> float | None:
        """Return the seconds that this share of the labels did not exceed, to 9 %."""
        rank, passed = share * self._delays.total(), 0
        for number, count in sorted(self._delays.items()):
            passed += count
            if passed >= rank:
                return self._delay_ms[number] / count / 1_000
        return None

    def as_json(self) -> dict[str, Any]:
        """Return everything, with the five commonest reasons."""
        late = bool(self._delays)
        return {
            **self.scores.as_json(),
            "predictions": self.predictions.total(),
            **{name: self.events[name] for name in ("labelled", "seen", "revised", "assumed")},
            "coverage": self.coverage,
            "label_delay_p50": self.delay_below(0.5) if late else None,
            "label_delay_p95": self.delay_below(0.95) if late else None,
            "rejected": self.reasons.total(),
            "reasons": dict(self.reasons.most_common(5)),
        }


class TimeWindow:
    """The last seconds, in buckets; it reaches back at least so long, at most a bucket longer.

    Windows that are nested count each record once, in the shortest one that has it. That one hands
    its buckets over to the next one when their time is over there.

    Parameters
    ----------
    seconds : float
        Infinite for all that comes.
    parts : int
        Buckets of so many seconds.
    """

    def __init__(self, seconds: float, parts: int = PARTS) -> None:
        self.seconds = seconds
        self._first_ms = math.inf
        self._part_ms = 1_000 * seconds / parts
        self._parts = parts
        self._buckets: dict[int, Bucket] = {}
        self._shorter: TimeWindow | None = None
        self._longer: TimeWindow | None = None

    def nest(self, shorter: TimeWindow) -> None:
        """Count also what a shorter window counts."""
        self._shorter, shorter._longer = shorter, self

    @property
    def first_ms(self) -> float:
        """The oldest time that was counted; infinite before the first."""
        return min(self._first_ms, self._shorter.first_ms if self._shorter else math.inf)

    def start(self, now_ms: float) -> float:
        """Return the time from which on it counts, in milliseconds since 1970."""
        return self._first(now_ms) * self._part_ms

    def at(self, time_ms: float, now_ms: float) -> Bucket | None:
        """Return the bucket of a time, ``None`` where that is over; what is to come is now."""
        number = int(min(time_ms, now_ms) // self._part_ms)
        if number < self._first(now_ms):
            return self._longer.at(time_ms, now_ms) if self._longer else None
        if time_ms < self._first_ms:
            self._first_ms = time_ms
        bucket = self._buckets.get(number)
        if bucket is None:
            self._hand_over(now_ms)
            bucket = self._buckets[number] = Bucket()
        return bucket

    def total(self, now_ms: float) -> Bucket:
        """Return all of it in one bucket."""
        found = Bucket()
        for _, bucket in self._counted(now_ms):
            found += bucket
        return found

    def accuracies(self, now_ms: float) -> list[float | None]:
        """Return the accuracy in each of its buckets, oldest first."""
        first = self._first(now_ms)
        found = {first + number: Bucket() for number in range(self._parts + 1)}
        for number, bucket in self._counted(now_ms):
            if number in found:
                found[number] += bucket
        return [bucket.scores.accuracy for bucket in found.values()]

    def _first(self, now_ms: float) -> int:
        return int(now_ms // self._part_ms) - self._parts

    def _counted(self, now_ms: float) -> Iterator[tuple[int, Bucket]]:
        """Yield what counts now, also in shorter windows, with the number of its bucket here."""
        if self._shorter:
            self._shorter._hand_over(now_ms)
            for number, bucket in self._shorter._counted(now_ms):
                yield int(number * self._shorter._part_ms // self._part_ms), bucket
        first = self._first(now_ms)
        yield from ((number, b) for number, b in self._buckets.items() if number >= first)

    def _hand_over(self, now_ms: float) -> None:
        """Let go of the buckets whose time is over."""
        first = self._first(now_ms)
        for number in [number for number in self._buckets if number < first]:
            old = self._buckets.pop(number)
            if self._longer and (bucket := self._longer.at(number * self._part_ms, now_ms)):
                bucket += old


class RecordWindow:
    """The records that were counted last by their times, exactly so many, in whatever order."""

    def __init__(self, records: int) -> None:
        self.scores = Scores()
        self._records = records
        self._taken = 0
        self._newest: list[tuple[float, int, Outcome]] = []

    def count(self, outcome: Outcome, time_ms: float) -> None:
        """Take in a prediction that is counted, and let go of the oldest; it may be this one."""
        self._taken += 1
        heappush(self._newest, (time_ms, self._taken, outcome))
        self.scores.add(outcome)
        if len(self._newest) > self._records:
            _, _, oldest = heappop(self._newest)
            self.scores.add(oldest, -1)
