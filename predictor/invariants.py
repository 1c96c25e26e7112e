"""The invariants I1 to I7 of a partition, checked on its records as a stream, without Kafka."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from predictor.tally import Tally
from stream.classifier import Model
from stream.models import Envelope, ModelError
from stream.records import (
    Prediction,
    RecordError,
    Rejected,
    decode_prediction,
    decode_record,
    decode_rejected,
    parse,
)

INVARIANTS = {
    "I1": "records predicted or rejected exactly once",
    "I2": "predictions whose counts follow from the ones before",
    "I3": "committed tallies equal to the last published counts",
    "I4": "log lines equal to their predictions",
    "I5": "predictions by a version that does not fall, or off a barred one",
    "I6": "predictions made again with the same result",
    "I7": "predictions counted unless their model was trained on the record",
}
"""What each count of `Findings.checked` counts."""

LOG_EVERY = 10
PROBABILITY_TOLERANCE = 1e-6
LABEL_TOLERANCE = 1e-9
"""How near to the threshold a probability must be for the label to be either."""

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
class Stretch:
    """The records of one partition of a topic, oldest first.

    Attributes
    ----------
    topic : str
    records : iterable of (int, bytes or None)
        Offset and value.
    start : int
        First offset there is: above 0, retention has taken the records before it.
    since : int
        Records below belong to a data topic that was deleted and made again.
    """

    topic: str
    records: Iterable[Stored]
    start: int = 0
    since: int = 0


@dataclass(frozen=True)
class Partition:
    """What each topic holds under one partition number, and what the group committed.

    Attributes
    ----------
    number : int
    data, predictions, rejected : Stretch
        The data below the committed offset.
    committed : int
        Offset below which every record has been predicted or rejected.
    metadata : str or None
        What the commit carries; ``None`` when nothing has been committed since the data topic
        was made again.
    """

    number: int
    data: Stretch
    predictions: Stretch
    rejected: Stretch
    committed: int
    metadata: str | None


class Models(Protocol):
    """Where the checks get a model from; a string is the reason why there is none."""

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is."""

    def model(self, version: int) -> Model | str:
        """Return a model."""


def check_partition(
    partition: Partition,
    models: Models,
    barred: Callable[[int], bool],
    findings: Findings,
    logs: Iterable[Iterator[Line]] = (),
) -> int | None:
    """Check the invariants on one partition, in bounded memory.

    Parameters
    ----------
    partition : Partition
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
    counts = _Counts(partition, barred, findings, logs)
    outputs = _Outputs(partition, counts, findings)
    recheck = _Recheck(partition, models, findings)
    try:
        _match(partition, outputs, recheck, findings)
        counts.finish()
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
        before = last.get(line.partition, line.n - LOG_EVERY)
        if line.n < LOG_EVERY or line.n % LOG_EVERY:
            raise _in_log(line, f"n a multiple of {LOG_EVERY}", f"n={line.n}")
        if line.n != before + LOG_EVERY:
            raise _in_log(line, f"n={before + LOG_EVERY}", f"n={line.n}")
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


def made_again(predictions: Iterable[tuple[int, int, bytes | None]], first_data_ms: float) -> int:
    """Find where the predictions of the data topic as it is now begin.

    When a data topic is deleted and made again, its offsets start again, and so do the sources.
    Sources also fall when a record is predicted twice; what tells the two apart is that the
    predictions before the fall are older than the first record there is now.

    Parameters
    ----------
    predictions : iterable of (int, int, bytes or None)
        Offset, time in ms and value.
    first_data_ms : float
        Time of the first record of the data topic, in ms.

    Returns
    -------
    int
        Offset of the first prediction since the topic was last made again, 0 if it never was.
    """
    since, last = 0, -1
    for offset, time_ms, value in predictions:
        try:
            source = decode_prediction(value).source[1]
        except RecordError:
            break  # the check itself will come to it
        if source <= last:
            since = offset
        if time_ms >= first_data_ms:
            break
        last = source
    return since


class _Output(NamedTuple):
    """What became of one record: its prediction, or ``None`` where it was rejected."""

    source: int
    topic: str
    offset: int
    prediction: Prediction | None


def _match(partition: Partition, outputs: _Outputs, recheck: _Recheck, findings: Findings) -> None:
    """I1: walk along the data and its outputs side by side."""
    topic, number = partition.data.topic, partition.number
    data = iter(partition.data.records)

    def missing(offset: int) -> None:
        if offset >= outputs.complete_from():
            expected = "a prediction or a rejected record"
            raise Violation("I1", topic, number, offset, expected, "neither")
        findings.not_checked["I1: retention may have taken what became of the record"] += 1

    last = -1
    for output in outputs:
        _, where, offset, prediction = output
        if output.source == last:
            raise Violation("I1", where, number, offset, f"a source above {last}", f"{last}")
        last = output.source
        if prediction:
            recheck.check_seen(offset, prediction)
        if output.source < partition.data.start:
            findings.not_checked["I1, I6: retention has taken the record"] += 1
            continue
        stored: Stored = (-1, None)
        for stored in data:
            if stored[0] >= output.source:
                break
            missing(stored[0])
        if stored[0] != output.source:
            found = f"{output.source}, where no record is"
            raise Violation("I1", where, number, offset, "the source of a record", found)
        findings.checked["I1"] += 1
        if prediction:
            recheck.add(offset, prediction, stored[1])
    for stored in data:
        missing(stored[0])


class _Outputs:
    """The predictions and the rejected records of a partition, in the order of their sources."""

    def __init__(self, partition: Partition, counts: _Counts, findings: Findings) -> None:
        self.beyond: int | None = None
        self._partition = partition
        self._counts = counts
        self._findings = findings
        self._first: dict[str, int] = {}

    def __iter__(self) -> Iterator[_Output]:
        return heapq.merge(
            self._read(self._partition.predictions, decode_prediction),
            self._read(self._partition.rejected, decode_rejected),
            key=attrgetter("source"),
        )

    def complete_from(self) -> int:
        """Return the source from which on retention has taken no output."""
        both = (self._partition.predictions, self._partition.rejected)
        cut = [stretch.topic for stretch in both if stretch.start > stretch.since]
        return max((self._first.get(t, self._partition.committed) for t in cut), default=0)

    def _read(
        self, stretch: Stretch, decode: Callable[[bytes | None], Prediction | Rejected]
    ) -> Iterator[_Output]:
        last, partition = -1, self._partition
        for offset, value in stretch.records:

            def violation(expected: str, found: str, offset: int = offset) -> Violation:
                return Violation("I1", stretch.topic, partition.number, offset, expected, found)

            try:
                record = decode(value)
            except RecordError as error:
                raise violation("a record that keeps the contract", str(error)) from None
            number, source = record.source
            current = offset >= stretch.since
            if current and source >= partition.committed:
                self.beyond = min(source, self.beyond or source)
                return
            if current and number != partition.number:
                raise violation(f"a source in partition {partition.number}", f"{record.source}")
            if current and source <= last:
                raise violation(f"a source above {last}", f"{source}")
            if isinstance(record, Prediction):
                if record.label not in (0, 1, None):
                    raise violation("label 0, 1 or null", repr(record.label))
                prediction = record
                self._counts.follow(offset, record, value)
                self._findings.predictions += 1
            else:
                prediction = None
                self._counts.recounted.rejected += 1
                self._findings.rejected += 1
            if not current:
                self._findings.not_checked["I1, I6, I7: the data topic was made again since"] += 1
                continue
            last = source
            self._first.setdefault(stretch.topic, source)
            yield _Output(source, stretch.topic, offset, prediction)


class _Counts:
    """I2 to I5: the running counts, the versions and the log lines along the predictions."""

    def __init__(
        self,
        partition: Partition,
        barred: Callable[[int], bool],
        findings: Findings,
        logs: Iterable[Iterator[Line]],
    ) -> None:
        self.recounted = Tally()
        self._partition = partition
        self._barred = barred
        self._findings = findings
        self._logs = [_Log(lines, findings) for lines in logs]
        self._whole = partition.predictions.start == 0
        # Where retention has taken the beginning, the first prediction there is anchors the counts.
        self._counts = (0, 0) if self._whole else None
        self._model: int | None = None

    def follow(self, offset: int, prediction: Prediction, value: bytes | None) -> None:
        """Take in the next prediction of the topic."""
        self._check_counts(offset, prediction, value)
        self._check_version(offset, prediction.model)
        counted = self.recounted.count(prediction.prediction, prediction.label, prediction.seen)
        if counted and prediction.n % LOG_EVERY == 0:
            for log in self._logs:
                log.check(prediction)

    def finish(self) -> None:
        """Compare the last counts with the tally of the commit and with the logs."""
        self._check_tally()
        for log in self._logs:
            log.finish()
        n, correct = self._counts or (0, 0)
        self._findings.n += n
        self._findings.correct += correct

    def _check_counts(self, offset: int, prediction: Prediction, value: bytes | None) -> None:
        found = (prediction.n, prediction.correct)
        if self._counts:
            n, correct = self._counts
            if prediction.label is not None and not prediction.seen:
                n, correct = n + 1, correct + (prediction.prediction == prediction.label)
            if found != (n, correct):
                raise self._violation(
                    "I2",
                    offset,
                    f"n={n} correct={correct}",
                    f"n={prediction.n} correct={prediction.correct}",
                )
        accuracy = parse(value).get("accuracy")
        if accuracy != prediction.accuracy:
            raise self._violation("I2", offset, f"accuracy={prediction.accuracy}", str(accuracy))
        self._counts = found
        self._findings.checked["I2"] += 1

    def _check_version(self, offset: int, version: int) -> None:
        last, self._model = self._model, version
        self._findings.checked["I5"] += 1
        if version == last:
            return
        self._findings.models.add(version)
        if last is None:
            return
        if version < last and not self._barred(last):
            expected = f"model {last} or newer, as {last} is not barred"
            raise self._violation("I5", offset, expected, f"model {version}")
        self._findings.swapped_to.add(version)

    def _check_tally(self) -> None:
        partition, own = self._partition, self.recounted
        if self._counts is None:
            self._findings.not_checked["I3: retention has taken all predictions"] += 1
            return
        if partition.metadata is None:
            reason = "I3: nothing committed since the data topic was made again"
            self._findings.not_checked[reason] += 1
            return
        n, correct = self._counts

        def violation(expected: str, found: str) -> Violation:
            place = (partition.data.topic, partition.number, partition.committed)
            return Violation("I3", *place, f"the committed tally to have {expected}", found)

        try:
            tally = Tally.from_metadata(partition.metadata)
        except RecordError as error:
            raise violation(f"n={n} correct={correct}", f"{error}") from None
        if (tally.n, tally.correct) != (n, correct):
            raise violation(f"n={n} correct={correct}", f"n={tally.n} correct={tally.correct}")
        if self._model is not None and tally.model != self._model:
            raise violation(f"model={self._model}", f"model={tally.model}")
        self._findings.checked["I3"] += 1
        if tally.carried is not None or not self._whole or partition.rejected.start > 0:
            self._findings.not_checked["I3: only the sums, as not all history is there"] += 1
            return
        for name in ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected"):
            expected, found = getattr(own, name), getattr(tally, name)
            if expected != found:
                raise violation(f"{name}={expected}", f"{name}={found}")

    def _violation(self, invariant: str, offset: int, expected: str, found: str) -> Violation:
        topic, number = self._partition.predictions.topic, self._partition.number
        return Violation(invariant, topic, number, offset, expected, found)


class _Log:
    """I4: one log's lines about one partition, held against the predictions as they come."""

    def __init__(self, lines: Iterator[Line], findings: Findings) -> None:
        self._lines = lines
        self._next = next(lines, None)
        self._findings = findings

    def check(self, prediction: Prediction) -> None:
        """Take in the next prediction that belongs into a log."""
        while self._next and self._next.n < prediction.n:
            self._findings.not_checked["I4: retention has taken the line's prediction"] += 1
            self._next = next(self._lines, None)
        line = self._next
        if line is None or line.n > prediction.n:
            return
        expected = f"accuracy={prediction.accuracy:.6f} model={prediction.model}"
        found = f"accuracy={line.accuracy} model={line.model}"
        if found != expected:
            raise _in_log(line, expected, found)
        self._findings.checked["I4"] += 1
        self._next = next(self._lines, None)

    def finish(self) -> None:
        """Check that no line is left that no prediction belongs to."""
        if self._next:
            expected = "the line of a committed prediction"
            raise _in_log(self._next, expected, f"n={self._next.n}, which none has")


class _Recheck:
    """I6 and I7: the records predicted again, many at a time, with the model that is named."""

    def __init__(self, partition: Partition, models: Models, findings: Findings) -> None:
        self._topic = partition.predictions.topic
        self._number = partition.number
        self._models = models
        self._findings = findings
        self._envelope: tuple[int, Envelope | str] = (-1, "")
        self._rows: list[list[float | None]] = []
        self._held: list[tuple[int, Prediction]] = []

    def check_seen(self, offset: int, prediction: Prediction) -> None:
        """I7: compare whether it was counted with what the model was trained on."""
        envelope = self._look_up(prediction.model)
        if isinstance(envelope, str):
            self._findings.not_checked[f"I6, I7: model {prediction.model}: {envelope}"] += 1
            return
        seen = envelope.trained_on_record(*prediction.source)
        if seen != prediction.seen:
            to = envelope.trained_to.get(str(self._number), "none")
            raise self._violation(
                "I7",
                offset,
                f"seen {str(seen).lower()} for source {prediction.source[1]}, as model"
                f" {prediction.model} was trained to {to}",
                f"seen {str(prediction.seen).lower()}",
            )
        self._findings.checked["I7"] += 1

    def add(self, offset: int, prediction: Prediction, value: bytes | None) -> None:
        """Take in the next prediction and its record."""
        try:
            record = decode_record(value)
        except RecordError as error:
            raise self._violation(
                "I6", offset, "a rejected record", f"predicted: {error}"
            ) from None
        if record.id != prediction.id:
            expected, found = f"id {record.id!r}", f"{prediction.id!r}"
            raise self._violation("I1", offset, expected[:100], found[:100])
        if record.label != prediction.label:
            raise self._violation("I2", offset, f"label {record.label}", f"{prediction.label}")
        envelope = self._look_up(prediction.model)
        if isinstance(envelope, str):
            return
        if len(record.features) != envelope.features:
            expected = f"a record of the model's {envelope.features} features"
            raise self._violation("I6", offset, expected, str(len(record.features)))
        if self._held and (
            len(self._held) == _BATCH or self._held[-1][1].model != prediction.model
        ):
            self.flush()
        self._held.append((offset, prediction))
        self._rows.append(record.features)

    def flush(self) -> None:
        """I6: predict what is held, and compare."""
        held, rows = self._held, self._rows
        self._held, self._rows = [], []
        if not held:
            return
        version = held[0][1].model
        model = self._models.model(version)
        if isinstance(model, str):
            self._findings.not_checked[f"I6: model {version}: {model}"] += len(held)
            return
        try:
            labels, probabilities = model.predict(np.array(rows, dtype=np.float64))
        except ModelError as error:
            expected = f"model {version} to predict again"
            raise self._violation("I6", held[0][0], expected, str(error)) from None
        for (offset, prediction), label, probability in zip(
            held, labels, probabilities, strict=True
        ):
            if not _same(prediction, label, probability, model.envelope.threshold):
                raise self._violation(
                    "I6",
                    offset,
                    f"prediction {label} probability {probability} of model {version}",
                    f"{prediction.prediction} and {prediction.probability}",
                )
        self._findings.checked["I6"] += len(held)

    def _look_up(self, version: int) -> Envelope | str:
        if self._envelope[0] != version:
            self._envelope = (version, self._models.envelope(version))
        return self._envelope[1]

    def _violation(self, invariant: str, offset: int, expected: str, found: str) -> Violation:
        return Violation(invariant, self._topic, self._number, offset, expected, found)


def _same(
    prediction: Prediction, label: int, probability: float | None, threshold: float | None
) -> bool:
    published = prediction.probability
    if probability is None or not isinstance(published, (int, float)):
        return probability is published and label == prediction.prediction
    either = abs(probability - (0.5 if threshold is None else threshold)) < LABEL_TOLERANCE
    return abs(probability - published) <= PROBABILITY_TOLERANCE and (
        either or label == prediction.prediction
    )


def _in_log(line: Line, expected: str, found: str) -> Violation:
    return Violation("I4", str(line.path), line.partition, line.number, expected, found)
