"""The texts of categories as numbers, for as long as the window holds them; knows no Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.layout import Layout, Matrix
from stream.records import Cell

TEXTS = 10_000
"""Distinct texts of a feature that are kept at once, at most."""

TEXTS_TOGETHER = 2**18
"""Distinct texts of all features that are kept at once, at most: each feature has an equal share.
Each takes about 250 bytes, or 1,300 if it is long."""

Features = Sequence[Cell] | NDArray[np.float64]
"""The features of one record."""


class Vocabulary:
    """The texts of one feature that the window holds, each with its code.

    A text that left the window makes room for another. While there is no room, a new text counts
    as missing. So a stream of ever new texts takes bounded memory, and a text that comes again and
    again is kept soon after the oldest leave.

    Parameters
    ----------
    limit : int
        Distinct texts that are kept, at most.

    Examples
    --------
    >>> plans = Vocabulary(limit=2)
    >>> [plans.add(text) for text in ("free", "pro", "free", "team", None)]
    [0, 1, 0, None, None]
    >>> plans.remove(1)
    >>> plans.add("team")
    1
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._codes: dict[str, int] = {}
        self._texts: list[Cell] = []
        self._counts: list[int] = []
        self._free: list[int] = []

    def add(self, text: Cell) -> int | None:
        """Return the code of a text; ``None`` where it is missing, or there is no room for it."""
        if not isinstance(text, str):
            return None
        code = self._codes.get(text)
        if code is None:
            if self._free:
                code = self._free.pop()
                self._texts[code] = text
            elif len(self._texts) < self._limit:
                code = len(self._texts)
                self._texts.append(text)
                self._counts.append(0)
            else:
                return None
            self._codes[text] = code
        self._counts[code] += 1
        return code

    def remove(self, code: int) -> None:
        """Take a text away that was added before; after its last one, its code is free."""
        self._counts[code] -= 1
        text = self._texts[code]
        if not self._counts[code] and isinstance(text, str):
            del self._codes[text]
            self._texts[code] = None
            self._free.append(code)

    def commonest(self, most: int) -> list[str]:
        """Return the commonest texts, and of those that are as common the first by alphabet."""
        counts = Counter({text: self._counts[code] for text, code in self._codes.items()})
        return sorted(counts, key=lambda text: (-counts[text], text))[:most]

    def texts(self, codes: NDArray[np.float64], missing: Cell) -> NDArray[np.object_]:
        """Return the texts of codes, with `missing` in place of NaN."""
        table = np.array([*self._texts, missing], dtype=object)
        found: NDArray[np.object_] = table[np.nan_to_num(codes, nan=-1).astype(np.intp)]
        return found


class Encoder:
    """Keeps the cells of records as rows of float64: a category is the code of its text.

    Parameters
    ----------
    layout : Layout
        Says which features are categories.
    """

    def __init__(self, layout: Layout) -> None:
        share = min(TEXTS, TEXTS_TOGETHER // max(1, len(layout.categories)))
        self.vocabularies = {index: Vocabulary(share) for index in layout.categories}

    def add(self, cells: Features) -> NDArray[np.float64]:
        """Return cells as a row, with NaN for a missing one, and keep its texts."""
        if self.vocabularies:
            cells = [*cells]
            for index, vocabulary in self.vocabularies.items():
                cells[index] = vocabulary.add(cells[index])
        return np.array(cells, dtype=np.float64)

    def remove(self, row: NDArray[np.float64]) -> None:
        """Take the texts of a row away that was added before."""
        for index, vocabulary in self.vocabularies.items():
            if not np.isnan(row[index]):
                vocabulary.remove(int(row[index]))

    def matrix(self, rows: NDArray[np.float64], layout: Layout) -> Matrix:
        """Return rows as what a model of this layout takes."""
        if not self.vocabularies:
            return rows
        return layout.frame(
            self.vocabularies[index].texts(column, np.nan) if index in self.vocabularies else column
            for index, column in enumerate(rows.T)
        )

    def cells(self, rows: NDArray[np.float64]) -> list[list[Cell]]:
        """Return rows as lists of cells, with ``None`` for a missing one."""
        found = rows.astype(object)
        found[np.isnan(rows)] = None
        for index, vocabulary in self.vocabularies.items():
            found[:, index] = vocabulary.texts(rows[:, index], None)
        cells: list[list[Cell]] = found.tolist()
        return cells
