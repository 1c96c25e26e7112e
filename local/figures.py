"""The figures of a run, taken from its predictions alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from stream.records import Prediction

RECENT = 1_000
RATE_SECONDS = 5.0


class Figures:
    """What the predictions and rejected records seen so far add up to.

    Attributes
    ----------
    predictions, rejected : int
        How many of each were seen.
    versions : list of int
        Model versions that predicted, in the order of their first prediction.
    model : int or None
        Version of the last prediction.
    swaps : int
        How often a version took over that had not predicted before.
    """

    def __init__(self) -> None:
        self.predictions = 0
        self.rejected = 0
        self.versions: list[int] = []
        self.model: int | None = None
        self._counts: dict[int, tuple[int, int]] = {}
        self._next: dict[int, int] = {}
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._history: deque[tuple[float, int]] = deque()

    def predicted(self, prediction: Prediction) -> None:
        """Take in a record of the prediction topic."""
        self.predictions += 1
        self._done(prediction.source)
        self._counts[prediction.source[0]] = (prediction.n, prediction.correct)
        if prediction.label is not None and not prediction.seen:
            self._recent.append(prediction.prediction == prediction.label)
        if prediction.model != self.model:
            self.model = prediction.model
            if self.model not in self.versions:
                self.versions.append(self.model)

    def reject(self, source: tuple[int, int]) -> None:
        """Take in a record of the rejected topic: partition and offset of the record it names."""
        self.rejected += 1
        self._done(source)

    @property
    def swaps(self) -> int:
        """How often a version took over that had not predicted before."""
        return max(0, len(self.versions) - 1)

    @property
    def accuracy(self) -> float | None:
        """Running accuracy over all partitions, ``None`` before the first counted prediction."""
        n = sum(n for n, _ in self._counts.values())
        return sum(correct for _, correct in self._counts.values()) / n if n else None

    @property
    def recent_accuracy(self) -> float | None:
        """Accuracy of the last 1,000 counted predictions."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def lag(self, ends: Mapping[int, int]) -> int:
        """Return how many records were neither predicted nor rejected.

        Parameters
        ----------
        ends : mapping of int to int
            Partition of the data topic to the offset after its last record.
        """
        return sum(max(0, end - self._next.get(partition, 0)) for partition, end in ends.items())

    def rate(self, now: float) -> float:
        """Return the predictions a second over the last five seconds, asked once in a while.

        Parameters
        ----------
        now : float
            Seconds on any steady clock.
        """
        self._history.append((now, self.predictions))
        while len(self._history) > 2 and now - self._history[1][0] >= RATE_SECONDS:
            self._history.popleft()
        then, count = self._history[0]
        return (self.predictions - count) / (now - then) if now > then else 0.0

    def line(self, now: float, ends: Mapping[int, int]) -> str:
        """Return all figures in one line."""
        lag, rate = self.lag(ends), self.rate(now)
        if self.model is None:
            return f"waiting for the first model, {lag:,} records so far"
        recent = f"last {RECENT:,} {_share(self.recent_accuracy)}"
        return (
            f"{rate:,.0f}/s, accuracy {_share(self.accuracy)}, {recent}, model {self.model},"
            f" {self.swaps} swaps, {self.rejected:,} rejected, lag {lag:,}"
        )

    def _done(self, source: tuple[int, int]) -> None:
        partition, offset = source
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
