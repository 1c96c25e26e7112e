"""Check the invariants I1 to I7 on the topics: ``python -m predictor.verify [--log FILE] [--json]``.

Exit status: 0 when all hold, 1 when one does not or the topics cannot be read, 2 for a wrong
setting. A running system can be verified, too: what is committed is noted first, then everything
that was written until then is read, and what came later is left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from tqdm import tqdm

from predictor import model as models
from predictor.invariants import (
    INVARIANTS,
    Findings,
    History,
    Line,
    Stored,
    Stretch,
    Violation,
    check_log,
    check_partition,
    made_again,
    read_line,
)
from predictor.model import Model
from predictor.settings import PredictorSettings
from stream import clients
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, Part, unpack, verify
from stream.records import RecordError, decode_status
from stream.service import Fatal, Stop
from stream.settings import SettingsError, read

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
        for record in _read(self._consumer, place, self._stop):
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
            models.check(envelope, None, None)
            for record in clients.read_range(self._consumer, place, start, end, self._stop):
                part = self._part(record)
                whole = assembler.add(part)
                if whole:
                    return models.load(*whole)
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
            for record in _read(self._consumer, self._place, self._stop):
                try:
                    status = decode_status(record.value)
                except RecordError:
                    continue  # the predictor ignores and names it
                if status.status == "barred":
                    self._versions.add(status.version)
        return version in self._versions


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
        self._parts: list[tuple[Path, TextIO, int]] = []
        older = [path.with_name(f"{path.name}.{number}") for number in ROTATED_LOGS]
        for part in (*(each for each in older if each.exists()), path):
            # Rotation moves an open file without changing it, and later lines are left out.
            file = files.enter_context(part.open(encoding="utf-8", errors="replace"))
            self._parts.append((part, file, part.stat().st_size))

    def lines(self, partition: int | None = None) -> Iterator[Line]:
        """Yield the lines, oldest first, all or those about one partition.

        Raises
        ------
        Violation
            When a line cannot be read; a torn last one is left out.
        """
        for path, file, size in self._parts:
            position, number = 0, 0
            while position < size:
                file.seek(position)
                text = file.readline()
                position, number = file.tell(), number + 1
                if position > size or not text.endswith("\n"):
                    if path is self._parts[-1][0]:
                        return
                line = read_line(path, number, text.rstrip("\n"))
                if partition in (None, line.partition):
                    yield line


class Verifier:
    """Reads the topics and hands their records to the checks, partition by partition.

    Parameters
    ----------
    settings : PredictorSettings
    logs : list of Log
    quiet : bool
        Show no progress.
    """

    def __init__(self, settings: PredictorSettings, logs: list[Log], quiet: bool) -> None:
        self.findings = Findings()
        self._settings = settings
        self._logs = logs
        self._quiet = quiet
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
            When the topics cannot be read.
        """
        settings = self._settings
        counts = self._partition_counts()
        for log in self._logs:
            for line in check_log(log.lines()):
                if line.partition >= counts[settings.data_topic]:
                    expected = f"a partition of {settings.data_topic}"
                    found = f"partition={line.partition}"
                    raise Violation(
                        "I4", str(line.path), line.partition, line.number, expected, found
                    )
        self._group = self._consumer(group_id=settings.group_id)
        self._ends = self._consumer(isolation_level="read_uncommitted")
        self._readers = [self._consumer() for _ in range(3)]
        committed = {p: self._committed(p) for p in range(counts[settings.data_topic])}
        library = ModelLibrary(settings, self._consumer(), self._stop)
        barred = Barred(settings, self._consumer(), self._stop)
        ends = {p: self._end(settings.data_topic, p) for p in committed}
        with self._progress(sum(offset for offset, _ in committed.values())) as progress:
            for partition, (offset, metadata) in committed.items():
                self._check(partition, offset, metadata, counts, library, barred, progress)
                self.findings.pending += ends[partition] - offset

    def _check(self, partition, offset, metadata, counts, library, barred, progress): ...
