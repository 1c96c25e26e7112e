"""What the first model still needs, from the records and labels that are there."""

from __future__ import annotations

from collections import Counter

from stream.records import Label, Record

FIRST_MODEL = 200
"""Labelled records that the modelgenerator trains the first model on."""

_TEXT = -1
"""Stands for a label that is a text: which one it means, only a model can say."""


class FirstModel:
    """Counts the records of the data topic and the labels that come later."""

    def __init__(self) -> None:
        self._labels: Counter[int | None] = Counter()

    def written(self, record: Record) -> None:
        """Take in a record of the data topic."""
        self._labels[_known(record.label)] += 1

    def labelled(self, label: Label) -> None:
        """Take in a record of the label topic."""
        self._labels[_known(label.label)] += 1
        self._labels[None] -= 1

    def needs(self) -> str:
        """Say what the first model still needs.

        Examples
        --------
        >>> first = FirstModel()
        >>> first.written(Record(1, [0.5], 1))
        >>> first.needs()
        '1 of 200 labelled records so far, none labelled 0'
        """
        labelled = self._labels[0] + self._labels[1] + self._labels[_TEXT]
        text = f"{min(labelled, FIRST_MODEL)} of {FIRST_MODEL} labelled records so far"
        absent = [str(label) for label in (0, 1) if not self._labels[label]]
        if labelled and absent and not self._labels[_TEXT]:
            text += f", none labelled {absent[0]}"
        if self._labels[None] > 0:
            text += f", {self._labels[None]:,} without a label"
        return text


def _known(label: int | str | None) -> int | None:
    return _TEXT if isinstance(label, str) else label
