"""The quality of a stream: what its predictions, outcomes and rejected records say together.

An outcome counts when its label is known, as `n` does: a label that comes a day later counts in
the hour in which it comes, for the model that predicted. A revised label changes the running
counts alone; an assumed one changes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from quality.history import History
from quality.scores import Outcome, Scores
from quality.windows import REASON_CHARACTERS, Bucket, RecordWindow, TimeWindow
from stream.records import Prediction, Status

MODELS = 200
"""Newest model versions whose scores are kept."""


@dataclass
class Served:
    """What a model version did while it was looked at.

    Attributes
    ----------
    first_ms, last_ms : int
        Times of its first and last prediction, in milliseconds since 1970; 0 for none.
    predictions : int
        How many it made.
    scores : Scores
        Of those that were counted.
    algorithm, reason : str
        Its class, and why it was published; empty where nobody said it.
    barred : str
        Why it was taken out of service; empty if it was not.
    """

    first_ms: int = 0
    last_ms: int = 0
    predictions: int = 0
    scores: Scores = field(default_factory=Scores)
    algorithm: str = ""
    reason: str = ""
    barred: str = ""

    def at(self, time_ms: int) -> None:
        """Take in that it predicted at this time; the times may come in any order."""
        self.first_ms = min(time_ms, self.first_ms or time_ms)
        self.last_ms = max(time_ms, self.last_ms)


class Swap(NamedTuple):
    """A model version that took over from another one.

    Attributes
    ----------
    version, before : int
    time_ms : int
        When it predicted first.
    until_ms : int or None
        When it predicted last; ``None`` while it serves.
    """

    version: int
    before: int
    time_ms: int
    until_ms: int | None


@dataclass
class Partition:
    """Where a partition stands.

    Attributes
    ----------
    n, correct : int
        Running counts, of its last prediction or outcome.
    next : int
        Offset of the data topic after the last one that was predicted or rejected.
    label : int or None
        The label that was counted last.
    """

    n: int = 0
    correct: int = 0
    next: int = 0
    label: int | None = None


class Quality:
    """Takes in the records of the output topics, each partition in its order.

    Parameters
    ----------
    times : iterable of TimeWindow
    records : iterable of int
        Lengths of the windows of records that were counted.
    histories : iterable of float
        Seconds whose accuracy is kept over time.

    Attributes
    ----------
    times : dict of float to TimeWindow
        By length in seconds.
    newest : dict of int to RecordWindow
        By length.
    histories : dict of float to History
        By length in seconds.
    served : dict of int to Served
        By model version; the newest 200.
    partitions : dict of int to Partition
    """

    def __init__(
        self,
        times: Iterable[TimeWindow] = (),
        records: Iterable[int] = (),
        histories: Iterable[float] = (),
    ) -> None:
        windows = sorted(times, key=lambda window: window.seconds)
        for shorter, longer in pairwise(windows):
            longer.nest(shorter)
        self.times = {window.seconds: window for window in windows}
        self.newest = {length: RecordWindow(length) for length in records}
        self.histories = {seconds: History(seconds) for seconds in histories}
        self.served: dict[int, Served] = {}
        self.partitions: dict[int, Partition] = {}
        self._over = Bucket()

    def predicted(self, prediction: Prediction, time_ms: int, now_ms: float) -> None:
        """Take in a record of the prediction topic.

        Parameters
        ----------
        time_ms : int
            Timestamp of the record: when it was predicted, or when the label was counted.
        now_ms : float
            The time now, both in milliseconds since 1970.
        """
        partition = self._done(prediction.source)
        partition.n, partition.correct = prediction.n, prediction.correct
        bucket = self._bucket(time_ms, now_ms)
        model, served = prediction.model, self.model(prediction.model)
        if prediction.outcome is None:
            served.at(min(time_ms, int(now_ms)))  # the clock of who wrote it may be wrong
            served.predictions += 1
            bucket.predictions[model] += 1
        _note(bucket, prediction)
        if not prediction.counts:
            return
        label = prediction.label or 0
        repeats = None if partition.label is None else partition.label == label
        partition.label = label
        outcome = Outcome(prediction.prediction, label, prediction.probability, repeats)
        served.scores.add(outcome)
        for window in self.newest.values():
            window.count(outcome, min(time_ms, now_ms))
        bucket.count(model, outcome)
        for history in self.histories.values():
            history.count(time_ms, now_ms, outcome.right, model)

    def rejected(self, source: tuple[int, int], reason: str, time_ms: int, now_ms: float) -> None:
        """Take in a rejected record; `source` is its partition and last offset."""
        self._done(source)
        self._bucket(time_ms, now_ms).reject(reason)

    def told(self, status: Status, time_ms: int) -> None:
        """Take in a record of the status topic."""
        if status.status == "serving":
            self.model(status.version).at(time_ms)
        elif status.status == "barred":
            reason = status.reason or "no reason given"
            self.model(status.version).barred = reason[:REASON_CHARACTERS]

    def model(self, version: int) -> Served:
        """Return what is kept of a version, to say more of it."""
        if version not in self.served:
            new = self.served[version] = Served()
            if len(self.served) > MODELS:
                del self.served[min(self.served)]
            return new
        return self.served[version]

    @property
    def serving(self) -> int | None:
        """The version that predicted last."""
        found = [version for version, served in self.served.items() if served.last_ms]
        return max(found, key=lambda version: self.served[version].last_ms, default=None)

    @property
    def swaps(self) -> list[Swap]:
        """The versions that took over from another one, oldest first."""
        first = sorted((s.first_ms, version) for version, s in self.served.items() if s.first_ms)
        serving = self.serving
        return [
            Swap(
                version, before, time, None if version == serving else self.served[version].last_ms
            )
            for (_, before), (time, version) in pairwise(first)
        ]

    @property
    def n(self) -> int:
        """Running count over all partitions."""
        return sum(partition.n for partition in self.partitions.values())

    @property
    def correct(self) -> int:
        """Running count of right predictions over all partitions."""
        return sum(partition.correct for partition in self.partitions.values())

    @property
    def accuracy(self) -> float | None:
        """Running accuracy over all partitions, ``None`` before the first counted prediction."""
        return self.correct / self.n if self.n else None

    def lag(self, ends: Mapping[int, int]) -> int:
        """Return how many records were neither predicted nor rejected.

        Parameters
        ----------
        ends : mapping of int to int
            Partition of the data topic to the offset after its last record.
        """
        known = self.partitions
        done = {number: known[number].next for number in ends.keys() & known.keys()}
        return sum(max(0, end - done.get(number, 0)) for number, end in ends.items())

    def _done(self, source: tuple[int, int]) -> Partition:
        number, offset = source
        partition = self.partitions.setdefault(number, Partition())
        partition.next = max(partition.next, offset + 1)
        return partition

    def _bucket(self, time_ms: int, now_ms: float) -> Bucket:
        """Return the bucket of the shortest window that counts a time, or one that nobody reads."""
        shortest = next(iter(self.times.values()), None)
        return (shortest and shortest.at(time_ms, now_ms)) or self._over


def _note(bucket: Bucket, prediction: Prediction) -> None:
    """Note what became of a prediction, besides its score."""
    if prediction.outcome is None:
        bucket.events["seen"] += prediction.seen
    elif prediction.outcome != "labelled":
        bucket.events[prediction.outcome] += 1
        return
    if prediction.label is not None:
        bucket.events["labelled"] += 1
        if prediction.delay is not None:
            bucket.delay(prediction.delay)
