"""The labelled records that models are trained on; knows no Kafka."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelgenerator.categories import Encoder, Features
from stream.layout import Layout, Matrix
from stream.records import Cell
from stream.service import Warnings

log = logging.getLogger("modelgenerator")

CELLS = 2**24
"""Features of all records of the window together, at most; each takes 8 bytes, and a fit makes a
few copies."""

Place = tuple[int, int]


class Labelled(NamedTuple):
    """A labelled record and its place on the data topic; a missing feature is ``None``.

    If it `revises`, it corrects the label of a record that was labelled before, and says nothing of
    the features.
    """

    partition: int
    offset: int
    features: Features
    label: int
    revises: bool = False

    @property
    def place(self) -> Place:
        """Partition and offset."""
        return self.partition, self.offset


class Window:
    """The newest labelled records, each with its features as a row of float64.

    Parameters
    ----------
    size : int
        How many records it holds, at most.
    layout : Layout
        By which their features were read; says which are categories.

    Attributes
    ----------
    ones : int
        How many of the records are labelled 1.
    encoder : Encoder
        The texts of the categories.
    """

    def __init__(self, size: int, layout: Layout) -> None:
        self._size = size
        self._records = OrderedDict[Place, Labelled]()  # a dict is slow at its front
        self._cells = self.ones = 0
        self.encoder = Encoder(layout)
        self._warnings = Warnings(log)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._records)

    def __contains__(self, place: object) -> bool:
        return place in self._records

    def add(self, record: Labelled) -> None:
        """Take a record, and let go of the oldest that there is no room for."""
        # As a list of Python's floats, they would take four times the memory.
        record = record._replace(features=self.encoder.add(record.features))
        self._records[record.place] = record
        self.ones += record.label
        self._cells += len(record.features)
        while len(self) > self._size or self._cells > CELLS:
            if self._cells > CELLS:
                self._warnings.warn(
                    "cells",
                    f"the window holds {len(self) - 1} records instead of WINDOW={self._size}:"
                    f" they have {len(record.features)} features each, and {CELLS} numbers are"
                    " kept",
                )
            self._remove(next(iter(self._records)))

    def revise(self, record: Labelled) -> None:
        """Correct the label of a record, if it is there."""
        if before := self._records.get(record.place):
            self.ones += record.label - before.label
            self._records[record.place] = before._replace(label=record.label)

    @property
    def commonest_width(self) -> int:
        """The number of features that most records have."""
        widths = Counter(len(record.features) for record in self._records.values())
        return widths.most_common(1)[0][0]

    def keep(self, width: int) -> int:
        """Let go of the records with another number of features; return how many they were."""
        others = [place for place, record in self._records.items() if len(record.features) != width]
        for place in others:
            self._remove(place)
        return len(others)

    def matrix(
        self, layout: Layout, places: Iterable[Place] | None = None, *, to_fit: bool = False
    ) -> tuple[Matrix, NDArray[np.int64]]:
        """Return features, as models of a layout take them, and labels.

        Parameters
        ----------
        places : iterable of (int, int), optional
            Of these records, as far as they are still here; by default of all.
        to_fit : bool
            Whether a column of numbers without any value is zeros: it cannot be split into bins,
            and a constant says as little.
        """
        records = self._records
        places = [*records] if places is None else [place for place in places if place in records]
        rows = self._rows(places)
        if to_fit:
            for index in np.flatnonzero(np.isnan(rows).all(axis=0)):
                if index not in self.encoder.vocabularies:
                    rows[:, index] = 0.0
        labels = np.array([records[place].label for place in places], dtype=np.int64)
        return self.encoder.matrix(rows, layout), labels

    def newest_places(self, count: int) -> list[Place]:
        """Return the places of the newest records, in their order."""
        return [*islice(reversed(self._records), count)][::-1]

    def newest(self, count: int) -> list[list[Cell]]:
        """Return the features of the newest records, the newest first."""
        return self.encoder.cells(self._rows(islice(reversed(self._records), count)))

    def _remove(self, place: Place) -> None:
        record = self._records.pop(place)
        self.ones -= record.label
        self._cells -= len(record.features)
        self.encoder.remove(np.asarray(record.features))

    def _rows(self, places: Iterable[Place]) -> NDArray[np.float64]:
        return np.array([self._records[place].features for place in places], dtype=np.float64)
