"""The invariants I1 to I7 of a partition, checked on its records as a stream, without Kafka.

I1  every record is predicted or rejected, exactly once
I2  ``n`` rises by one per counted record, ``correct`` by 0 or 1, ``accuracy`` is correct / n
I3  the tally in the committed metadata equals the last published counts
I4  a log holds every 10th counted prediction between its first and its last, once
I5  the model version falls only off a barred one
I6  the named model predicts the same again
I7  a record is counted only if its model was not trained on it, and is marked ``seen`` if it was
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from predictor.model import Model
from predictor.tally import Tally
from stream.models import Envelope, ModelError
from stream.records import (
    Prediction,
    RecordError,
    decode_prediction,
    decode_record,
    decode_rejected,
    parse,
)

INVARIANTS = ("I1", "I2", "I3", "I4", "I5", "I6", "I7")
LOG_EVERY = 10
PROBABILITY_TOLERANCE = 1e-6
LABEL_TOLERANCE = 1e-9
"""How near to one half a probability must be for the label to be either."""

_BATCH = 5_000
_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    r" partition=(\d+) n=(\d+) accuracy=([01]\.\d{6}) model=(\d+)"
)

Stored = tuple[int, bytes | None]
"""Offset and value of a record on a topic."""


class Violation(Exception):
    """An invariant does not hold.

    Attributes
    ----------
    invariant : str
        ``I1`` to ``I7``.
    topic : str
        The topic, or the log file.
    partition, offset : int
        Where on the topic; of a log file, the partition that the line names and its number.
    expected, found : str
    """

    def __init__(
        self, invariant: str, topic: str, partition: int, offset: int, expected: str, found: str
    ) -> None:
        place = "line" if invariant == "I4" else "offset"
        super().__init__(
            f"{invariant} {topic} partition {partition} {place} {offset}:"
            f" expected {expected}, found {found}"
        )
        self.invariant = invariant
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.expected = expected
        self.found = found


@dataclass
class Findings:
    """What was checked, over all partitions.

    Attributes
    ----------
    checked : Counter
        Invariant to the number of records (I3: tallies, I4: lines) on which it was seen to hold.
    not_checked : Counter
        Reason to the number of records that it keeps from being checked.
    predictions, rejected, pending : int
        Records predicted, rejected, and not yet predicted.
    n, correct : int
        Sum of the last counts of each partition.
    models : set of int
        Versions that predicted.
    swapped_to : set of int
        Versions that took over from another one.
    """

    checked: Counter[str] = field(default_factory=Counter)
    not_checked: Counter[str] = field(default_factory=Counter)
    predictions: int = 0
    rejected: int = 0
    pending: int = 0
    n: int = 0
    correct: int = 0
    models: set[int] = field(default_factory=set)
    swapped_to: set[int] = field(default_factory=set)


class Line(NamedTuple):
    """A line of a log: its file and number, and what it says."""

    path: Path
    number: int
    partition: int
    n: int
    accuracy: str
    model: int


@dataclass(frozen=True)
class History:
    """The records of one partition number on each topic, oldest first, and its committed offset.

    Attributes
    ----------
    partition : int
    data, predictions, rejected : iterable of (int, bytes or None)
        Offset and value; `data` below the committed offset.
    committed : int
        Offset below which every record has been predicted or rejected.
    metadata : str
        What the commit carries.
    data_start, predictions_start, rejected_start : int
        First offset there is: above 0, retention has taken the records before it.
    predictions_since, rejected_since : int
        Outputs below belong to a data topic that was deleted and made again.
    topics : tuple of str
        Names of the data, prediction and rejected topics.
    """

    partition: int
    data: Iterable[Stored]
    predictions: Iterable[Stored]
    rejected: Iterable[Stored]
    committed: int
    metadata: str
    data_start: int = 0
    predictions_start: int = 0
    rejected_start: int = 0
    predictions_since: int = 0
    rejected_since: int = 0
    topics: tuple[str, str, str] = ("data", "prediction", "rejected")


class Models(Protocol):
    """Where the checks get a model from; a string is the reason why it cannot be checked with."""

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is."""

    def model(self, version: int) -> Model | str:
        """Return a model."""


def check_partition(
    history: History,
    models: Models,
    barred: Callable[[int], bool],
    findings: Findings,
    logs: Iterable[Iterator[Line]] = (),
) -> int | None:
    """Check the invariants on one partition, in bounded memory.

    Parameters
    ----------
    history : History
    models : Models
    barred : callable
        Tells whether a version is barred.
    findings : Findings
        What was checked is added to it.
    logs : iterable of iterators of Line
        The lines about this partition, an iterator for each log.

    Returns
    -------
    int or None
        The first source at or beyond the committed offset, where checking ended; it is a
        violation unless the offset has been committed meanwhile.

    Raises
    ------
    Violation
        The first that was found.
    """
    outputs = _Outputs(history, barred, findings, logs)
    recheck = _Recheck(history, models, findings)
    try:
        _match(history, outputs, recheck, findings)
        outputs.counts.finish()
    except Violation:
        recheck.flush()  # what is still held back stands before what was just found
        raise
    recheck.flush()
    return outputs.beyond


def check_log(lines: Iterable[Line]) -> Iterator[Line]:
    """Pass the lines of one log on, checking that each partition's `n` rises in tens.

    Raises
    ------
    Violation
    """
    last: dict[int, int] = {}
    for line in lines:
        before = last.get(line.partition)
        expected = f"n={before + LOG_EVERY}" if before is not None else f"n in {LOG_EVERY}s"
        if line.n % LOG_EVERY or line.n == 0 or (before and line.n != before + LOG_EVERY):
            raise _in_log(line, expected, f"n={line.n}")
        last[line.partition] = line.n
        yield line


def read_line(path: Path, number: int, text: str) -> Line:
    """Read one line of a log.

    Raises
    ------
    Violation
        When it is not written as the contract says.
    """
    match = _LINE.fullmatch(text)
    if not match:
        expected = "'<time>Z partition=0 n=10 accuracy=0.900000 model=3'"
        raise Violation("I4", str(path), -1, number, expected, repr(text[:100]))
    partition, n, accuracy, model = match.groups()
    return Line(path, number, int(partition), int(n), accuracy, int(model))


def made_again(predictions: Iterable[tuple[int, int, bytes | None]], first_data_ms: int) -> int:
    """Find where the predictions of the data topic as it is now begin.

    When a data topic is deleted and made again, its offsets start again, and so do the sources.
    Sources also fall when a record is predicted twice; what tells the two apart is that the
    predictions before the fall are older than the first record there is now.

    Parameters
    ----------
    predictions : iterable of (int, int, bytes or None)
        Offset, time in ms and value.
    first_data_ms : int
        Time of the first record of the data topic, in ms.

    Returns
    -------
    int
        Offset of the first prediction of the last such stretch; 0 where the topic was never
        made again; one after the last prediction where none belongs to the topic as it is now.
    """
    since, end, last, time = 0, 0, -1, first_data_ms
    for offset, time, value in predictions:
        try:
            source = decode_prediction(value).source[1]
        except RecordError:
            return since  # which the check will come to
        if source <= last:
            since = offset
        if time >= first_data_ms:
            return since
        last, end = source, offset + 1
    return end if time < first_data_ms else since


class _Output(NamedTuple):
    """What became of one record: its prediction, or ``None`` where it was rejected."""

    source: int
    topic: str
    offset: int
    prediction: Prediction | None


def _match(history: History, outputs: _Outputs, recheck: _Recheck, findings: Findings) -> None:
    """I1: walk along the data and its outputs side by side."""
    topic, partition = history.topics[0], history.partition
    data = iter(history.data)

    def missing(offset: int) -> None:
        if offset >= outputs.complete_from():
            raise Violation(
                "I1", topic, partition, offset, "a prediction or a rejected record", "neither"
            )
        findings.not_checked["I1: retention may have taken the prediction"] += 1

    last = -1
    for output in heapq.merge(
        outputs.predictions(), outputs.rejections(), key=attrgetter("source")
    ):
        if output.source == last:
            raise _at(history, output, "I1", f"a source above {last}", f"{last} again")
        last = output.source
        if output.prediction:
            recheck.check_seen(output.offset, output.prediction)
        if output.source < history.data_start:
            findings.not_checked["I1, I6: retention has taken the record"] += 1
            continue
        value: bytes | None = None
        for offset, value in data:
            if offset >= output.source:
                break
            missing(offset)
        else:
            offset = -1
        if offset != output.source:
            found = f"source {output.source}, where no record is"
            raise _at(history, output, "I1", "the source of a record", found)
        findings.checked["I1"] += 1
        if output.prediction:
            recheck.add(output, output.prediction, value)
    for offset, _ in data:
        missing(offset)


class _Outputs:
    """The predictions and the rejected records of a partition, in the order of their sources."""

    def __init__(
        self,
        history: History,
        barred: Callable[[int], bool],
        findings: Findings,
        logs: Iterable[Iterator[Line]],
    ) -> None:
        self.counts = _Counts(history, barred, findings, logs)
        self.beyond: int | None = None
        self._history = history
        self._findings = findings
        self._first: dict[str, int] = {}

    def complete_from(self) -> int:
        """Source from which on retention has taken no output."""
        history, (_, predictions, rejected) = self._history, self._history.topics
        taken = []
        if history.predictions_start > history.predictions_since:
            taken.append(self._first.get(predictions, history.committed))
        if history.rejected_start > history.rejected_since:
            taken.append(self._first.get(rejected, history.committed))
        return max(taken, default=0)

    def predictions(self) -> Iterator[_Output]:
        topic, since = self._history.topics[1], self._history.predictions_since
        for offset, value in self._history.predictions:
            try:
                prediction = decode_prediction(value)
            except RecordError as error:
                raise self._unreadable(topic, offset, error) from None
            if offset >= since and self._ends(prediction.source[1]):
                return
            self.counts.follow(offset, prediction, value)
            self._findings.predictions += 1
            yield from self._current(topic, offset, since, prediction.source, prediction)

    def rejections(self) -> Iterator[_Output]:
        topic, since = self._history.topics[2], self._history.rejected_since
        for offset, value in self._history.rejected:
            try:
                source = decode_rejected(value).source
            except RecordError as error:
                raise self._unreadable(topic, offset, error) from None
            if offset >= since and self._ends(source[1]):
                return
            self.counts.recounted.rejected += 1
            self._findings.rejected += 1
            yield from self._current(topic, offset, since, source, None)

    def _current(
        self,
        topic: str,
        offset: int,
        since: int,
        source: tuple[int, int],
        prediction: Prediction | None,
    ) -> Iterator[_Output]:
        """Yield an output unless it belongs to a data topic that is no more."""
        if offset < since:
            self._findings.not_checked["I1, I6, I7: of a data topic made again since"] += 1
            return
        partition = self._history.partition
        if source[0] != partition:
            raise Violation(
                "I1", topic, partition, offset, f"a source in partition {partition}", str(source)
            )
        first = self._first.setdefault(topic, source[1])
        last = self._first.get(f"last {topic}", first - 1)
        if source[1] <= last:
            raise Violation(
                "I1", topic, partition, offset, f"a source above {last}", str(source[1])
            )
        self._first[f"last {topic}"] = source[1]
        yield _Output(source[1], topic, offset, prediction)

    def _ends(self, source: int) -> bool:
        if source < self._history.committed:
            return False
        self.beyond = source if self.beyond is None else min(source, self.beyond)
        return True

    def _unreadable(self, topic: str, offset: int, error: RecordError) -> Violation:
        expected = "a record that keeps the contract"
        return Violation("I1", topic, self._history.partition, offset, expected, str(error))


class _Counts:
    """I2 to I5: the running counts, the versions and the log lines along the predictions."""

    def __init__(
        self,
        history: History,
        barred: Callable[[int], bool],
        findings: Findings,
        logs: Iterable[Iterator[Line]],
    ) -> None:
        self.recounted = Tally()
        self._history = history
        self._barred = barred
        self._findings = findings
        self._last: Prediction | None = None
        # Where retention has taken the beginning, the first prediction there is anchors the counts.
        self._counts = (0, 0) if history.predictions_start == 0 else None
        self._logs = [(lines, next(lines, None)) for lines in logs]

    def follow(self, offset: int, prediction: Prediction, value: bytes | None) -> None:
        """Take in the next prediction of the topic."""
        self._check_counts(offset, prediction, value)
        self._check_version(offset, prediction)
        counted = self.recounted.count(prediction.prediction, prediction.label, prediction.seen)
        if counted and prediction.n % LOG_EVERY == 0 and self._logs:
            self._logs = [(rest, self._check_line(rest, line)) for rest, line in self._pass(prediction)]
        self._counts, self._last = (prediction.n, prediction.correct), prediction
        self._findings.models.add(prediction.model)
