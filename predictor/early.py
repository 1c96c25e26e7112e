"""The labels of a partition that came before their records."""

from __future__ import annotations

from collections.abc import Iterator

from predictor.consumed import ConsumedLabel
from stream.records import Id, Label, Source


class EarlyLabels:
    """Labels that are held until their records are predicted, by their offsets.

    Their offsets stand in the metadata of the committed label offset, from where they are read
    again after a restart.
    """

    MOST = 256

    def __init__(self) -> None:
        self._held: dict[int, tuple[ConsumedLabel, Label]] = {}
        self._named: dict[Id | Source, tuple[int, ...]] = {}
        self._since: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[ConsumedLabel]:
        """Return what is held, in the order of the label topic."""
        return iter([consumed for _, (consumed, _) in sorted(self._held.items())])

    @property
    def offsets(self) -> list[int]:
        """The offsets on the label topic, ascending."""
        return sorted(self._held)

    def hold(self, consumed: ConsumedLabel) -> None:
        """Hold a valid label."""
        label = consumed.label()
        assert isinstance(label, Label)
        self._held[consumed.offset] = consumed, label
        name = _name(label)
        self._named[name] = (*self._named.get(name, ()), consumed.offset)

    def drop(self, offset: int) -> None:
        """Hold a label no longer."""
        _, label = self._held.pop(offset)
        self._since.pop(offset, None)
        name = _name(label)
        left = tuple(each for each in self._named.pop(name) if each != offset)
        if left:
            self._named[name] = left

    def of(self, id: Id, source: Source) -> list[ConsumedLabel]:
        """Return the labels that mean a record, in the order of the label topic."""
        offsets = self._named.get(id, ()) + self._named.get(source, ())
        return [self._held[offset][0] for offset in sorted(offsets)]

    def data_ended(self, now: float) -> None:
        """Note that the end of the data was reached after these labels were read.

        Parameters
        ----------
        now : float
            Monotonic seconds.
        """
        for offset in self._held:
            self._since.setdefault(offset, now)

    def overdue(self, before: float) -> list[ConsumedLabel]:
        """Return those for which the end of the data was reached before a time."""
        return [each for each in self if self._since.get(each.offset, before) < before]

    def copy(self) -> EarlyLabels:
        """Return a copy that changes on its own."""
        copy = EarlyLabels()
        copy._held, copy._named = self._held.copy(), self._named.copy()
        copy._since = self._since.copy()
        return copy


def _name(label: Label) -> Id | Source:
    if label.source is not None:
        return label.source
    assert label.id is not None  # one of them is given
    return label.id
