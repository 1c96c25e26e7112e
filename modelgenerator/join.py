"""Which label is of which record, where labels come later; knows no Kafka."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from stream.records import Label

WAITING = 500_000
"""Records that may wait for a label by their id."""

VALUES_BYTES = 200_000_000
"""Memory of records that wait; those that it has no room for are read again by their offset."""

EARLY = 10_000
"""Labels that may wait for their record."""

_OVERHEAD_BYTES = 350
"""What keeping a record takes besides its value."""

Place = tuple[int, int]
Id = int | str
Named = tuple[int, Id | None]
"""Partition and id; a label is on the partition of its record."""


class Joined(NamedTuple):
    """A record that has got its label.

    Attributes
    ----------
    id : int, str or None
        Which id the record has to have, ``None`` for any.
    value : bytes or None
        The record; ``None`` where it is to be read again.
    revises : bool
        Whether the label corrects one that the record had before.
    """

    partition: int
    offset: int
    id: Id | None
    label: int
    value: bytes | None
    revises: bool = False

    @property
    def place(self) -> Place:
        """Partition and offset."""
        return self.partition, self.offset


class Join:
    """Keeps the records that wait for a label, and the labels that wait for a record.

    A label by id belongs to the newest record of that id that waits in its partition. Predictors do
    the same.

    Parameters
    ----------
    remembered : int
        How many of the latest labelled records are known, so that a second label of one is not
        taken for the first of another.

    Examples
    --------
    >>> join = Join(remembered=10)
    >>> join.add(0, 5, 17, b"...", 0)
    >>> join.match(0, Label(1, id=17)).offset
    5
    >>> join.match(0, Label(0, id=17))
    >>> join.match(0, Label(0, id=17, revises=True)).label
    0
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        # Ordered: the first item of a plain dict is found slowly once many before it are gone.
        self._newest = OrderedDict[Named, int]()  # of an id, the newest offset that waits
        self._older: dict[Place, int] = {}  # to the offset before it of the same id
        self._values = OrderedDict[Place, tuple[Id, bytes, int]]()  # with the timestamp
        self._bytes = 0
        self._labelled = OrderedDict[Place, Id | None]()
        self._labelled_ids: dict[Named, int] = {}
        self._early = OrderedDict[Named | tuple[str, Place], Label]()
        self._next: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """How many records wait for a label."""
        return len(self._newest) + len(self._older)

    @property
    def oldest(self) -> int | None:
        """Timestamp of the oldest one in memory, in ms; ``None`` if there is none."""
        return min((timestamp for _, _, timestamp in self._values.values()), default=None)

    def read(self, partition: int, offset: int) -> None:
        """Remember that a partition of the data topic was read up to this offset."""
        self._next[partition] = offset + 1

    def add(
        self, partition: int, offset: int, id: Id, value: bytes, timestamp: int
    ) -> Joined | None:
        """Keep a record without a label, or join it with a label that was there before."""
        place, named = (partition, offset), (partition, id)
        before = self._newest.get(named)
        if before is not None:
            self._older[place] = before
        self._newest[named] = offset
        self._values[place] = id, value, timestamp
        self._bytes += len(value) + _OVERHEAD_BYTES
        for key in (("source", place), named):
            if label := self._early.pop(key, None):
                return self.match(partition, label)
        while self._bytes > VALUES_BYTES:
            self._take_value(next(iter(self._values)))
        while self.waiting > WAITING:
            self._take_newest(next(iter(self._newest)))
        return None

    def remember(self, partition: int, offset: int, id: Id | None) -> None:
        """Remember that a record has a label."""
        self._labelled[partition, offset] = id
        if id is not None:
            self._labelled_ids[partition, id] = offset
        if len(self._labelled) > self._remembered:
            place, old = self._labelled.popitem(last=False)
            if old is not None and self._labelled_ids.get((place[0], old)) == place[1]:
                del self._labelled_ids[place[0], old]

    def match(self, partition: int, label: Label) -> Joined | None:
        """Join a label with its record; ``None`` if it has none, or not yet, or a label before.

        It is 0 or 1: `Layout.label` reads texts.
        """
        named, zero_or_one = (partition, label.id), int(label.label)
        if label.source:
            where, offset = label.source
            if where != partition or not self._fits(label.source, label.id):
                return None
            if offset >= self._next.get(partition, 0):
                self._keep_early(("source", label.source), label)
                return None
        elif named in self._newest:
            offset = self._newest[named]
        elif named in self._labelled_ids:
            offset = self._labelled_ids[named]
        else:
            self._keep_early(named, label)
            return None
        place = partition, offset
        if place in self._labelled:
            return Joined(*place, label.id, zero_or_one, None, True) if label.revises else None
        id, value = self._take_value(place)
        id = label.id if id is None else id
        waits = id is not None and self._newest.get((partition, id)) == offset
        if waits:
            self._take_newest((partition, id))
        self.remember(*place, id)
        return Joined(*place, label.id, zero_or_one, value, label.revises and not waits)

    def _fits(self, place: Place, id: Id | None) -> bool:
        return id is None or place not in self._values or self._values[place][0] == id

    def _keep_early(self, key: Named | tuple[str, Place], label: Label) -> None:
        self._early.setdefault(key, label)
        if len(self._early) > EARLY:
            self._early.popitem(last=False)

    def _take_newest(self, named: Named) -> None:
        place = named[0], self._newest.pop(named)
        if place in self._older:
            self._newest[named] = self._older.pop(place)

    def _take_value(self, place: Place) -> tuple[Id | None, bytes | None]:
        id, value, _ = self._values.pop(place, (None, None, 0))
        if value is not None:
            self._bytes -= len(value) + _OVERHEAD_BYTES
        return id, value
