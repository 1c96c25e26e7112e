"""The predictions of a partition that a label may still be for: a million within 150 MB.

Python's own objects would take ten times as much. So each field is an array, and a prediction is a
row number. Rows are in the order of offsets.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from stream.records import Prediction

_PREDICTION, _SEEN, _LABELLED, _LABEL = 1, 2, 4, 8
_NONE = -1
_INSIDE = -1
"""Stands for the place of a label that came inside its record."""

_COMPACT = 1_000
"""How many expired rows are worth moving the others for, at least."""

_BUCKETS = 1_024


class Given(NamedTuple):
    """The label that a known prediction has.

    Attributes
    ----------
    at : int or None
        Its offset on the label topic; ``None`` where it came inside the record.
    """

    label: int
    at: int | None


class Oldest(NamedTuple):
    """The oldest known prediction: its data offset, and its timestamp in ms, if it has one."""

    offset: int
    time: int | None


class Known:
    """Known predictions, found by id or by offset; those without a label wait for one.

    Changes since the last `commit` are taken back by `rollback`. A row number is good until then.
    """

    def __init__(self) -> None:
        self._first = 0
        self._offsets = array("q")
        self._times = array("q")
        self._probabilities = array("d")
        self._models = array("q")
        self._flags = array("B")
        self._labels_at = array("q")
        self._ids = array("B")  # a bytearray is copied to another place when it has lost its start
        self._ends = array("I")
        self._all, self._waiting = _Chains(), _Chains()
        self._committed, self._committed_first = 0, 0
        self._before: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self._offsets) - self._first

    @property
    def waiting(self) -> int:
        """How many predictions wait for a label, counted one by one."""
        return sum(not flags & _LABELLED for flags in self._flags[self._first :])

    @property
    def newest(self) -> int:
        """Offset of the newest prediction that was added; -1 before the first."""
        return self._offsets[-1] if self._offsets else -1

    @property
    def newest_time(self) -> float:
        """Timestamp of that prediction in ms; minus infinity where it has none."""
        return self._times[-1] if self._times and self._times[-1] != _NONE else -math.inf

    @property
    def oldest(self) -> Oldest | None:
        """The oldest prediction that is known."""
        if not len(self):
            return None
        time = self._times[self._first]
        return Oldest(self._offsets[self._first], None if time == _NONE else time)

    @property
    def expired_to(self) -> int:
        """The data offset after the last prediction dropped since the last commit, or 0."""
        return self._offsets[self._first - 1] + 1 if self._first else 0

    def add(self, prediction: Prediction) -> None:
        """Add a prediction with a higher offset than all before."""
        label, time, probability = prediction.label, prediction.time, prediction.probability
        flags = prediction.prediction | (_SEEN if prediction.seen else 0)
        if label is not None:
            flags |= _LABELLED | (_LABEL if label else 0)
        self._offsets.append(prediction.source[1])
        self._times.append(_NONE if time is None else time)
        self._probabilities.append(math.nan if probability is None else probability)
        self._models.append(prediction.model)
        self._flags.append(flags)
        self._labels_at.append(_INSIDE)
        self._ids.frombytes(id := _written(prediction.id))
        self._ends.append(len(self._ids))
        if len(self._offsets) > len(self._all.newest):
            self._chain()
            return
        key = hash(id)
        self._all.add(key)
        self._waiting.add(key, linked=label is None)

    def restore(self, prediction: Prediction) -> None:
        """Take in what is read back, in the order of its topic; replays change nothing."""
        if prediction.outcome is None:
            if prediction.source[1] > self.newest:
                self.add(prediction)
        elif (row := self.at(prediction.source[1])) is not None and prediction.labelled:
            assert prediction.label is not None  # checked when it was decoded
            given, at = self.given(row), prediction.labelled[1]
            if given is None or (prediction.outcome == "revised" and at > (given.at or _INSIDE)):
                self.give(row, prediction.label, at)
        self.commit()

    def at(self, offset: int) -> int | None:
        """Return the row of a data offset, if its prediction is known."""
        row = bisect_left(self._offsets, offset, self._first)
        return row if row < len(self._offsets) and self._offsets[row] == offset else None

    def named(self, id: int | str) -> int | None:
        """Return the row that a label by id means: the newest that waits, or else the newest."""
        written = _written(id)
        key = hash(written)
        waiting = self._waiting.rows(key, self._first, self._waits)
        known = self._all.rows(key, self._first, lambda _: True)
        return next((row for row in chain(waiting, known) if self._id(row) == written), None)

    def given(self, row: int) -> Given | None:
        """Return the label of a row, ``None`` while it waits for one."""
        flags, at = self._flags[row], self._labels_at[row]
        if not flags & _LABELLED:
            return None
        return Given(int(bool(flags & _LABEL)), None if at == _INSIDE else at)

    def give(self, row: int, label: int, at: int) -> None:
        """Give a row a label, or another one."""
        self._before.append((row, self._flags[row], self._labels_at[row]))
        self._flags[row] = self._flags[row] & ~_LABEL | _LABELLED | (_LABEL if label else 0)
        self._labels_at[row] = at

    def prediction(self, row: int, partition: int) -> Prediction:
        """Return a row as it was predicted; without a label, and n and correct 0."""
        flags, time, probability = self._flags[row], self._times[row], self._probabilities[row]
        return Prediction(
            _read(self._id(row)),
            flags & _PREDICTION,
            None if math.isnan(probability) else probability,
            None,
            0,
            0,
            self._models[row],
            (partition, self._offsets[row]),
            bool(flags & _SEEN),
            None if time == _NONE else time,
        )

    def expire(self, keep: int, before: float, most: float) -> list[int]:
        """Drop the oldest predictions; return the rows of those that waited.

        Only the leading rows can go. So a row without a timestamp, which has no age, stays until
        there are more than `keep`, and so do those behind it.

        Parameters
        ----------
        keep : int
            How many predictions stay known.
        before : float
            Those with an older timestamp, in ms, are dropped all the same.
        most : float
            How many waiting ones are dropped at most.
        """
        row, end = self._first, len(self._offsets)
        waited: list[int] = []
        while row < end and len(waited) < most:
            if end - row <= keep and not _NONE < self._times[row] < before:
                break
            if self._waits(row):
                waited.append(row)
            row += 1
        self._first = row
        return waited

    def commit(self) -> None:
        """Make the changes final, and free the memory of expired rows."""
        if self._first >= max(_COMPACT, len(self) // 8):
            self._compact()
        self._before.clear()
        self._committed, self._committed_first = len(self._offsets), self._first

    def rollback(self) -> None:
        """Take back the changes since the last commit."""
        self._first = self._committed_first
        if not self._before and len(self._offsets) == self._committed:
            return
        for row, flags, at in reversed(self._before):
            self._flags[row], self._labels_at[row] = flags, at
        self._before.clear()
        for column in self._columns:
            del column[self._committed :]
        del self._ids[self._ends[-1] if self._ends else 0 :]
        self._chain()

    @property
    def _columns(self) -> list[array[Any]]:
        return [
            self._offsets,
            self._times,
            self._probabilities,
            self._models,
            self._flags,
            self._labels_at,
            self._ends,
        ]

    def _compact(self) -> None:
        dead, dead_bytes = self._first, self._ends[self._first - 1]
        for column in self._columns:
            del column[:dead]
        del self._ids[:dead_bytes]
        _view(self._ends, np.uintc)[:] -= dead_bytes
        self._all.drop(dead)
        self._waiting.drop(dead)
        self._first = 0

    def _chain(self) -> None:
        """Make both hash tables anew, with more buckets than rows."""
        buckets = max(_BUCKETS, 1 << len(self._offsets).bit_length())
        self._all, self._waiting = _Chains(buckets), _Chains(buckets)
        start = 0
        for flags, end in zip(self._flags, self._ends, strict=True):
            key = hash(self._ids[start:end].tobytes())
            self._all.add(key)
            self._waiting.add(key, linked=not flags & _LABELLED)
            start = end

    def _id(self, row: int) -> bytes:
        return self._ids[self._ends[row - 1] if row else 0 : self._ends[row]].tobytes()

    def _waits(self, row: int) -> bool:
        return not self._flags[row] & _LABELLED


class _Chains:
    """Rows by the hash of their id, the newest first: a hash table without an object for each row.

    Python salts the hash of bytes, so nobody can choose ids that share a bucket.

    Attributes
    ----------
    newest : array
        The newest row of each bucket, or -1.
    older : array
        The next older row in the bucket of each row, or -1.
    """

    def __init__(self, buckets: int = _BUCKETS) -> None:
        self.newest = array("i", [_NONE]) * buckets
        self.older = array("i")

    def add(self, key: int, linked: bool = True) -> None:
        """Add the next row; one that is not linked only keeps the numbers in step."""
        older = _NONE
        if linked:
            bucket = key & (len(self.newest) - 1)
            older = self.newest[bucket]
            self.newest[bucket] = len(self.older)
        self.older.append(older)

    def rows(self, key: int, first: int, keep: Callable[[int], bool]) -> Iterator[int]:
        """Yield the rows from `first` on of a bucket; those not to be kept are unlinked."""
        links, at = self.newest, key & (len(self.newest) - 1)
        while (row := links[at]) >= first:
            if keep(row):
                yield row
                links, at = self.older, row
            else:
                links[at] = self.older[row]

    def drop(self, rows: int) -> None:
        """Drop the first rows, and number the others from 0."""
        del self.older[:rows]
        for links in (self.newest, self.older):
            found = _view(links, np.intc)
            np.maximum(found - rows, _NONE, out=found)


def _view(column: array[int], dtype: Any) -> Any:
    """Return an array as one of numpy; it must be gone before the array changes its length."""
    return np.frombuffer(column, dtype) if column else np.empty(0, dtype)


def _written(id: int | str) -> bytes:
    """Write an id such that 17 and "17" differ."""
    return b'"' + id.encode(errors="surrogatepass") if isinstance(id, str) else b"%d" % id


def _read(id: bytes) -> int | str:
    return id[1:].decode(errors="surrogatepass") if id[:1] == b'"' else int(id)
