"""I4: a predictor's log file has a line for every 10th counted prediction, equal to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from predictor.verify.report import Findings, Violation
from stream.records import Prediction

LOG_EVERY = 10
ROTATED = (3, 2, 1)

_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    r" partition=(\d+) n=(\d+) accuracy=([01]\.\d{6}) model=(\d+)"
)


class Line(NamedTuple):
    """A line of a log file: its file and number, and what it says."""

    path: Path
    number: int
    partition: int
    n: int
    accuracy: str
    model: int

    def violation(self, expected: str, found: str) -> Violation:
        """Return a violation of I4 at this line."""
        return Violation("I4", str(self.path), self.partition, self.number, expected, found)


class LogFile:
    """A log file and its rotated, older files, as they are when this is made.

    Parameters
    ----------
    path : Path
        The newest file; ``.1``, ``.2`` and ``.3`` beside it are older.
    files : ExitStack
        Closes the files.
    """

    def __init__(self, path: Path, files: ExitStack) -> None:
        self._parts: list[tuple[Path, BinaryIO, int]] = []
        older = [path.with_name(f"{path.name}.{number}") for number in ROTATED]
        for part in (*(each for each in older if each.exists()), path):
            # Rotation renames an open file and nothing else. Its size tells what came later.
            file = files.enter_context(part.open("rb"))
            self._parts.append((part, file, os.fstat(file.fileno()).st_size))

    def lines(self, partition: int | None = None) -> Iterator[Line]:
        """Yield the lines of all partitions or of one, oldest first; not an incomplete last one."""
        wanted = b"" if partition is None else b" partition=%d " % partition
        newest = self._parts[-1][0]
        for path, file, left in self._parts:
            file.seek(0)
            for number, text in enumerate(file, start=1):
                left -= len(text)
                if left < 0 or (path == newest and not text.endswith(b"\n")):
                    break
                if wanted in text:
                    yield _read(path, number, text.decode(errors="replace").rstrip("\n"))

    def check_lines(self, partitions: int) -> None:
        """Check that in each of so many partitions, `n` rises by ten from line to line."""
        last: dict[int, int] = {}
        for line in self.lines():
            if line.partition >= partitions:
                raise line.violation(f"a partition of 0 to {partitions - 1}", str(line.partition))
            if line.n < LOG_EVERY or line.n % LOG_EVERY:
                raise line.violation(f"n a multiple of {LOG_EVERY}", f"n={line.n}")
            expected = last.get(line.partition, line.n - LOG_EVERY) + LOG_EVERY
            if line.n != expected:
                raise line.violation(f"n={expected}", f"n={line.n}")
            last[line.partition] = line.n


def _read(path: Path, number: int, text: str) -> Line:
    match = _LINE.fullmatch(text)
    if not match:
        expected = "'<time>Z partition=0 n=10 accuracy=0.900000 model=3'"
        raise Violation("I4", str(path), -1, number, expected, repr(text[:100]))
    partition, n, accuracy, model = match.groups()
    return Line(path, number, int(partition), int(n), accuracy, int(model))


class LogCheck:
    """Compares the lines of one log and partition with the predictions, as they come."""

    def __init__(self, lines: Iterable[Line], findings: Findings) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)
        self._findings = findings

    def add(self, prediction: Prediction) -> None:
        """Compare the next counted prediction with its line, if it is one of those logged."""
        if prediction.n % LOG_EVERY:
            return
        while self._next and self._next.n < prediction.n:
            self._findings.not_checked["I4: retention has deleted the line's prediction"] += 1
            self._next = next(self._lines, None)
        line = self._next
        if line is None or line.n > prediction.n:
            return
        expected = f"accuracy={prediction.accuracy:.6f} model={prediction.model}"
        found = f"accuracy={line.accuracy} model={line.model}"
        if found != expected:
            raise line.violation(expected, found)
        self._findings.checked["I4"] += 1
        self._next = next(self._lines, None)

    def finish(self) -> None:
        """Check that no line is left over."""
        if self._next:
            found = f"n={self._next.n}, which no prediction has"
            raise self._next.violation("the line of a committed prediction", found)
