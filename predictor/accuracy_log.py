"""The log file: the running accuracy at every 10th counted prediction of a partition.

A line is written after its prediction was committed. Missing lines are filled in from the
prediction topic, so the file can be lost or unwritable for a while.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO
from os import fstat
from os.path import samestat
from pathlib import Path

from stream.records import Prediction
from stream.service import Warnings
from stream.settings import SettingsError
from stream.times import instant

log = logging.getLogger("predictor")

EVERY = 10
OLDER_FILES = 3
RETRY_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0

_LINE = re.compile(rb"^\S+ partition=(\d{1,10}) n=(\d{1,18}) accuracy=\S+ model=\d+$")

History = Callable[[int, int, int], Iterable[tuple[Prediction, int]]]
"""Given a partition, n and n: yields the counted predictions above the first n up to the second,
each with the timestamp of its record in ms, oldest first. Raises OSError if they cannot be read."""


class AccuracyLog:
    """Appends lines to a file, rotates it, and fills in missing lines.

    Parameters
    ----------
    path : Path
        The file; three older ones are kept beside it as ``.1``, ``.2`` and ``.3``.
    max_bytes : int
        Size at which the file is rotated.
    history : callable
        Where missing lines come from.

    Raises
    ------
    SettingsError
        When another process writes the file, which its lock tells. It ends with the process,
        however that ends. Raised by `fill_in`, `append` and `catch_up`, too: the file may be new.
    """

    def __init__(self, path: Path, max_bytes: int, history: History) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._history = history
        self._warnings = Warnings(log)
        self._file: FileIO | None = None
        with suppress(OSError):  # tried again before the first line
            if path.exists():
                self._open()
        self._last: dict[int, int] | None = None
        self._due: dict[int, int] = {}
        self._pause, self._next_try, self._unwritable_until = RETRY_SECONDS, 0.0, 0.0

    def fill_in(self, n: dict[int, int]) -> None:
        """Write the lines that are missing up to n of each partition."""
        self._project((partition, count, ()) for partition, count in n.items())

    def _set_aside(self, partition: int, n: int, last: int) -> None:
        log.warning(
            "%s ends at n=%d of partition %d, but its count is %d: counting has started over;"
            " the old log files now end in .old",
            self._path,
            last,
            partition,
            n,
        )
        for number in range(OLDER_FILES + 1):
            path = self._older(number)
            if path.exists():
                path.replace(path.with_name(f"{path.name}.old"))
        self._last = {}

    def append(self, counted: Iterable[Prediction]) -> None:
        """Write the lines of committed predictions, and those missing before them."""
        lines: dict[int, list[tuple[Prediction, int]]] = {}
        now = int(1000 * time.time())
        for prediction in counted:
            if prediction.n % EVERY == 0:
                lines.setdefault(prediction.source[0], []).append((prediction, now))
        self._project((partition, found[-1][0].n, found) for partition, found in lines.items())
        self.catch_up()

    def catch_up(self) -> None:
        """Retry, now and then, to write the lines that are still missing."""
        last = self._last or {}
        missing = {p: n for p, n in self._due.items() if last.get(p, 0) < n}
        now = time.monotonic()
        if not missing:
            self._pause, self._next_try = RETRY_SECONDS, now + RETRY_SECONDS
        elif now >= self._next_try:
            self.fill_in(missing)
            if self._last is not None:
                # The missing predictions may be gone: retry less often.
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._next_try = time.monotonic() + self._pause

    def _project(self, due: Iterable[tuple[int, int, Iterable[tuple[Prediction, int]]]]) -> None:
        due = list(due)
        self._due |= {partition: n - n % EVERY for partition, n, _ in due}
        if time.monotonic() < self._unwritable_until:
            return
        try:
            if self._last is None:
                self._last = self._read()
            for partition, n, found in due:
                last = self._last.get(partition, 0)
                if n < last:
                    self._set_aside(partition, n, last)
                    last = 0
                new = [each for each in found if each[0].n > last]
                before = new[0][0].n - EVERY if new else n - n % EVERY
                missing = list(self._missing(partition, last, before))
                # Committed predictions may not be readable yet: then the new ones wait for them.
                caught_up = before <= last or (missing and missing[-1][0].n == before)
                self._write(missing + new if caught_up else missing)
        except OSError as error:
            # The end of the file is unknown now: read it again before the next line.
            self._last = None
            self._unwritable_until = time.monotonic() + RETRY_SECONDS
            self._warnings.warn(
                "log", f"{self._path}: {error}; predictions go on, the log catches up later"
            )

    def _missing(self, partition: int, last: int, n: int) -> Iterator[tuple[Prediction, int]]:
        if n <= last:
            return
        for prediction, milliseconds in self._history(partition, last, n):
            if prediction.n % EVERY == 0 and last < prediction.n <= n:
                yield prediction, milliseconds

    def _write(self, found: Iterable[tuple[Prediction, int]]) -> None:
        """Append lines, all or none, and remember the last n."""
        assert self._last is not None
        lines: list[bytes] = []
        last: dict[int, int] = {}
        for prediction, milliseconds in found:
            lines.append(line(prediction, milliseconds))
            last[prediction.source[0]] = prediction.n
        if not lines:
            return
        if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
            self._rotate()
        file = self._open()
        size = fstat(file.fileno()).st_size
        try:
            content = b"".join(lines)
            while content:  # a full disk cuts the first write short, and fails the second
                content = content[file.write(content) :]
        except OSError:
            file.truncate(size)
            raise
        self._last.update(last)

    def _rotate(self) -> None:
        for number in range(OLDER_FILES, 0, -1):
            source = self._older(number - 1)
            if source.exists():
                source.replace(self._older(number))

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _open(self) -> FileIO:
        """Return the file, open and locked; a new one where it was renamed or deleted."""
        path = self._path
        if self._file:
            if path.exists() and samestat(path.stat(), fstat(self._file.fileno())):
                return self._file
            self._file.close()
            self._file = None
        file = FileIO(path, "a")
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            file.close()
            raise SettingsError(
                f"LOG_FILE={path}: another predictor writes this file; give each one a file or a"
                " folder of its own"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked: %s; let no other predictor write it", path, error)
        self._file = file
        return file

    def _read(self) -> dict[int, int]:
        """Return the last n of each partition in the files; drop an incomplete last line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._open()
            content = self._path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self._path.open("r+b") as file:
                    file.truncate(whole)
        last: dict[int, int] = {}
        for number in range(OLDER_FILES, -1, -1):
            path = self._older(number)
            if path.exists():
                with path.open("rb") as lines:
                    for line in lines:
                        match = _LINE.match(line)
                        if match:
                            last[int(match[1])] = int(match[2])
        return last


def line(prediction: Prediction, milliseconds: int) -> bytes:
    """Return a line of the log: the running accuracy at a prediction, and when it was made."""
    return (
        f"{instant(milliseconds)} partition={prediction.source[0]} n={prediction.n}"
        f" accuracy={prediction.accuracy:.6f} model={prediction.model}\n"
    ).encode()
