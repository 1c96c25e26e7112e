"""Check the invariants on the topics: ``python -m predictor.verify [--log FILE …] [--json]``.

Exit status: 0 when all hold, 1 when one does not or the topics cannot be read, 2 for a wrong
setting. A running system can be verified, too: what is committed is noted first, then everything
that was written until then is read, and what came later is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from tqdm import tqdm

from predictor.invariants import (
    INVARIANTS,
    Findings,
    Line,
    Partition,
    Stored,
    Stretch,
    Violation,
    check_log,
    check_partition,
    made_again,
    read_line,
)
from predictor.settings import PredictorSettings
from stream import classifier, clients, reading
from stream.classifier import Model
from stream.command import command
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, Part, unpack, verify
from stream.records import RecordError, decode_status
from stream.service import Fatal, Stop
from stream.topics import partition_counts

COMMITTED_TIMEOUT_MS = 30_000
"""Longer than a killed predictor's transaction stays open."""

MODELS_IN_MEMORY = 8
ROTATED_LOGS = (3, 2, 1)


class ModelLibrary:
    """The models of the model topic, found in one pass and loaded when they are asked for.

    Parameters
    ----------
    settings : PredictorSettings
    consumer : KafkaConsumer
        For this library alone.
    stop : Stop
    """

    def __init__(self, settings: PredictorSettings, consumer: KafkaConsumer, stop: Stop) -> None:
        self._settings = settings
        self._consumer = consumer
        self._stop = stop
        self._trusted = TrustedKeys(settings.trusted_keys)
        self._places: dict[int, tuple[Envelope, int, int]] = {}
        self._refused: dict[int, str] = {}
        self._loaded: OrderedDict[int, Model | str] = OrderedDict()
        self._find()

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is, or why it cannot be checked with."""
        if version in self._places:
            return self._places[version][0]
        return self._refused.get(version, "not on the model topic")

    def model(self, version: int) -> Model | str:
        """Return a model, or why it cannot be checked with; the latest few stay in memory."""
        if version not in self._loaded:
            self._loaded[version] = self._load(version)
            if len(self._loaded) > MODELS_IN_MEMORY:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(version)
        return self._loaded[version]

    def _find(self) -> None:
        place = TopicPartition(self._settings.model_topic, 0)
        first: dict[int, int] = {}
        for record in _read_all(self._consumer, place, self._stop):
            try:
                part = self._part(record)
            except ModelError as error:
                self._note_refused(record.value, str(error))
                continue
            version = part.envelope.version
            if part.part == 1:
                first[version] = record.offset
            if part.part == part.parts and version in first:
                # The first of a version counts: a replayed one is never served.
                place_of = (part.envelope, first.pop(version), record.offset + 1)
                self._places.setdefault(version, place_of)

    def _load(self, version: int) -> Model | str:
        envelope = self.envelope(version)
        if isinstance(envelope, str):
            return envelope
        _, start, end = self._places[version]
        place = TopicPartition(self._settings.model_topic, 0)
        assembler = Assembler(self._settings.model_max_bytes)
        try:
            classifier.check(envelope, None, None)
            for record in reading.read_range(self._consumer, place, start, end, self._stop):
                part = self._part(record)
                whole = assembler.add(part)
                if whole:
                    return classifier.load(*whole, self._settings.model_max_bytes)
        except ModelError as error:
            return str(error)
        return "incomplete"

    def _part(self, record: Any) -> Part:
        if record.value is not None and not self._settings.allow_unsigned_models:
            verify(record.value, record.headers, self._trusted)
        return unpack(record.value)

    def _note_refused(self, value: bytes | None, reason: str) -> None:
        try:
            self._refused.setdefault(unpack(value).envelope.version, reason)
        except ModelError:
            return  # it does not even say which model it is


class Barred:
    """The barred versions; the status topic is read again when a version is not among them.

    Parameters
    ----------
    settings : PredictorSettings
    consumer : KafkaConsumer
        For this alone.
    stop : Stop
    """

    def __init__(self, settings: PredictorSettings, consumer: KafkaConsumer, stop: Stop) -> None:
        self._place = TopicPartition(settings.status_topic, 0)
        self._consumer = consumer
        self._stop = stop
        self._versions: set[int] = set()

    def __call__(self, version: int) -> bool:
        """Tell whether a version is barred."""
        if version not in self._versions:
            for record in _read_all(self._consumer, self._place, self._stop):
                try:
                    status = decode_status(record.value)
                except RecordError:
                    continue  # the predictor ignores and names it
                if status.status == "barred":
                    self._versions.add(status.version)
        return version in self._versions


def _read_all(consumer: KafkaConsumer, place: TopicPartition, stop: Stop) -> Iterator[Any]:
    return reading.read_range(consumer, place, *reading.bounds(consumer, place), stop)


class Log:
    """A log with its rotated older files, as it stands when it is opened.

    Parameters
    ----------
    path : Path
    files : ExitStack
        Closes what is opened here.

    Raises
    ------
    OSError
    """

    def __init__(self, path: Path, files: ExitStack) -> None:
        self._parts: list[tuple[Path, BinaryIO, int]] = []
        older = [path.with_name(f"{path.name}.{number}") for number in ROTATED_LOGS]
        for part in (*(each for each in older if each.exists()), path):
            # Rotation moves an open file without changing it; what is appended later is left out.
            file = files.enter_context(part.open("rb"))
            self._parts.append((part, file, os.fstat(file.fileno()).st_size))

    def lines(self, partition: int | None = None) -> Iterator[Line]:
        """Yield the lines, oldest first, all or those about one partition.

        Raises
        ------
        Violation
            When a line cannot be read; a torn last one is left out.
        """
        wanted = b"" if partition is None else b" partition=%d " % partition
        for path, file, size in self._parts:
            position, number = 0, 0
            while position < size:
                file.seek(position)
                text = file.readline(size - position)
                position, number = position + len(text), number + 1
                if not text.endswith(b"\n") and path == self._parts[-1][0]:
                    return
                if wanted in text:
                    yield read_line(path, number, text.decode(errors="replace").rstrip("\n"))


class Verifier:
    """Reads the topics and hands their records to the checks, partition by partition.

    Parameters
    ----------
    settings : PredictorSettings
    logs : list of Log
    findings : Findings
        What was checked is added to it.
    progress : tqdm
        Moved on by every record of the data topic.
    """

    def __init__(
        self, settings: PredictorSettings, logs: list[Log], findings: Findings, progress: tqdm[Any]
    ) -> None:
        self._settings = settings
        self._logs = logs
        self._findings = findings
        self._progress = progress
        self._stop = Stop()
        self._clients: list[Any] = []

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(*self._clients)

    def run(self) -> None:
        """Check every partition.

        Raises
        ------
        Violation
            The first that was found.
        Fatal
            When a topic is missing.
        """
        settings = self._settings
        self._partitions = self._count_partitions()
        self._group = self._consumer(group_id=settings.group_id)
        self._uncommitted = self._consumer(isolation_level="read_uncommitted")
        self._readers = {
            topic: self._consumer(max_poll_records=5_000)
            for topic in (settings.data_topic, settings.prediction_topic, settings.rejected_topic)
        }
        commits = [self._committed(n) for n in range(self._partitions[settings.data_topic])]
        self._models = ModelLibrary(settings, self._consumer(), self._stop)
        self._barred = Barred(settings, self._consumer(), self._stop)
        for log in self._logs:
            for line in check_log(log.lines()):
                if line.partition >= len(commits):
                    expected = f"a partition of {settings.data_topic}, 0 to {len(commits) - 1}"
                    place = (str(line.path), line.partition, line.number)
                    raise Violation("I4", *place, expected, str(line.partition))
        self._progress.reset(total=sum(commit.offset for commit in commits if commit))
        for number, commit in enumerate(commits):
            self._check(number, commit)

    def _check(self, number: int, commit: OffsetAndMetadata | None) -> None:
        settings, findings = self._settings, self._findings
        places = [
            TopicPartition(topic, number)
            for topic in (settings.data_topic, settings.prediction_topic, settings.rejected_topic)
        ]
        (start, end), *outputs = [self._bounds(place) for place in places]
        if commit is None and all(first == after for first, after in outputs):
            findings.pending += end - start
            return
        committed = commit.offset if commit else start
        if committed > end:
            expected = f"a committed offset up to {end}, where the topic ends"
            raise Violation("I3", places[0].topic, number, committed, expected, str(committed))
        findings.pending += end - max(start, committed)
        made_ms = self._time(places[0], start, end)
        if commit:
            since = self._since(places, outputs, made_ms)
        else:
            since = [after for _, after in outputs]
            if any(self._newest_ms(place) >= made_ms for place in places[1:]):
                expected = f"a committed offset of group {settings.group_id}"
                raise Violation("I3", places[0].topic, number, start, expected, "none")
        data, predictions, rejected = places
        partition = Partition(
            number,
            Stretch(data.topic, self._progressing(data, start, committed), start),
            self._stretch(predictions, outputs[0], since[0]),
            self._stretch(rejected, outputs[1], since[1]),
            committed,
            commit.metadata if commit else None,
        )
        logs = [log.lines(number) for log in self._logs]
        beyond = check_partition(partition, self._models, self._barred, findings, logs)
        # What lies beyond was written since, if this runs beside a predictor, and is committed now.
        later = self._committed(number) if beyond is not None else None
        if beyond is not None and (later is None or later.offset <= beyond):
            expected = f"no output yet, as {committed} is committed"
            raise Violation("I3", places[0].topic, number, beyond, expected, "one")

    def _since(
        self, places: list[TopicPartition], outputs: list[tuple[int, int]], made_ms: float
    ) -> list[int]:
        """Return the offsets of the first outputs of the data topic as it is now."""
        _, predictions, rejected = places
        records = self._read(predictions, *outputs[0])
        since = made_again(((r.offset, r.timestamp, r.value) for r in records), made_ms)
        if not since:
            return [0, 0]
        found = self._uncommitted.offsets_for_times({rejected: int(made_ms)})[rejected]
        return [since, found.offset if found else outputs[1][1]]

    def _time(self, place: TopicPartition, start: int, end: int) -> float:
        """Return the time of the first record, in ms; infinite where there is none."""
        return next((float(r.timestamp) for r in self._read(place, start, end)), math.inf)

    def _newest_ms(self, place: TopicPartition) -> float:
        """Return the time of the last record, in ms; -1 where there is none."""
        if place.partition >= self._partitions[place.topic]:
            return -1.0
        last = reading.newest(
            self._readers[place.topic],
            place,
            lambda found: found[-1] if found else None,
            self._stop,
        )
        return float(last.timestamp) if last else -1.0

    def _stretch(self, place: TopicPartition, bounds: tuple[int, int], since: int) -> Stretch:
        return Stretch(place.topic, self._stored(place, *bounds), bounds[0], since)

    def _progressing(self, place: TopicPartition, start: int, end: int) -> Iterator[Stored]:
        for stored in self._stored(place, start, end):
            self._progress.update()
            yield stored

    def _stored(self, place: TopicPartition, start: int, end: int) -> Iterator[Stored]:
        return ((record.offset, record.value) for record in self._read(place, start, end))

    def _read(self, place: TopicPartition, start: int, end: int) -> Iterator[Any]:
        if start < end:
            yield from reading.read_range(self._readers[place.topic], place, start, end, self._stop)

    def _bounds(self, place: TopicPartition) -> tuple[int, int]:
        """Return the first offset and the one after everything written until now.

        That includes a transaction whose offsets are committed but whose records are not yet
        marked so; reading up to there waits for the mark.
        """
        if place.partition >= self._partitions[place.topic]:
            return 0, 0
        return reading.bounds(self._uncommitted, place)

    def _committed(self, number: int) -> OffsetAndMetadata | None:
        place = TopicPartition(self._settings.data_topic, number)
        return self._group.committed(place, metadata=True, timeout_ms=COMMITTED_TIMEOUT_MS)

    def _consumer(self, **options: Any) -> KafkaConsumer:
        self._clients.append(clients.consumer(self._settings, **options))
        return self._clients[-1]

    def _count_partitions(self) -> dict[str, int]:
        settings = self._settings
        admin = clients.admin(settings)
        self._clients.append(admin)
        topics = [
            settings.data_topic,
            settings.prediction_topic,
            settings.rejected_topic,
            settings.model_topic,
            settings.status_topic,
        ]
        found = partition_counts(admin, topics)
        missing = [topic for topic in topics if topic not in found]
        if missing:
            raise Fatal(f"{settings.kafka_bootstrap_servers}: no topic {', '.join(missing)}")
        return found


def report(findings: Findings, violation: Violation | None) -> dict[str, Any]:
    """Return what was checked and found as one JSON object."""
    return {
        "verified": violation is None,
        "predictions": findings.predictions,
        "rejected": findings.rejected,
        "pending": findings.pending,
        "n": findings.n,
        "correct": findings.correct,
        "accuracy": findings.correct / findings.n if findings.n else None,
        "models": sorted(findings.models),
        "swaps": len(findings.swapped_to),
        "checked": {name: findings.checked[name] for name in INVARIANTS},
        "not_checked": dict(findings.not_checked),
        "violations": [
            {
                name: getattr(violation, name)
                for name in ("invariant", "topic", "partition", "offset", "expected", "found")
            }
        ]
        if violation
        else [],
    }


def table(findings: Findings) -> str:
    """Return what was checked, a line an invariant, and what was not, and why."""
    lines = [f"{name} {findings.checked[name]:>12,} {what}" for name, what in INVARIANTS.items()]
    lines += [f"not checked {n:,}: {why}" for why, n in sorted(findings.not_checked.items())]
    if findings.pending:
        lines.append(f"not yet predicted: {findings.pending:,} offsets")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, print the result, and return the exit status."""
    parser = argparse.ArgumentParser("predictor.verify", description=__doc__.splitlines()[0])
    parser.add_argument("--log", nargs="+", action="extend", type=Path, default=[], metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    return command(PredictorSettings, partial(_verify, options.log, options.json))


def _verify(paths: Sequence[Path], as_json: bool, settings: PredictorSettings) -> int:
    findings, violation = Findings(), None
    try:
        with ExitStack() as stack:
            logs = [Log(path, stack) for path in paths]
            progress = stack.enter_context(
                tqdm(unit=" records", disable=as_json or not sys.stderr.isatty())
            )
            stack.enter_context(Verifier(settings, logs, findings, progress)).run()
    except Violation as first:
        violation = first
    found = report(findings, violation)
    if as_json:
        print(json.dumps(found))
    else:
        print(table(findings))
        print(f"not verified: {violation}" if violation else summary(found))
    return 0 if violation is None else 1


def summary(found: dict[str, Any]) -> str:
    """Return the last line of a run in which every invariant holds."""
    accuracy = "none" if found["accuracy"] is None else f"{found['accuracy']:.6f}"
    return (
        f"verified: {found['predictions']} predictions, {found['rejected']} rejected,"
        f" accuracy {accuracy}, {len(found['models'])} models, {found['swaps']} swaps"
    )


if __name__ == "__main__":
    sys.exit(main())
