"""What was read of the data topic, and why there is no model yet; knows no Kafka."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher

from modelgenerator.trainer import Labelled
from stream.reasons import Reasons
from stream.records import RecordError, decode_record

FIRST_SECONDS = 10.0
"""How long there may be no model before the first line says why; after that a line a minute."""

EVERY_SECONDS = 60.0

SAMPLED = 100
"""Records with a missing field whose other fields are looked at."""

_FIELDS = {"id", "features", "label"}


class Intake:
    """Sorts records into labelled, unlabelled and invalid ones, and counts each kind.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.

    Examples
    --------
    >>> intake = Intake()
    >>> intake.sort(0, 7, b'{"id":1,"features":[0.5],"lable":1}')
    >>> str(intake)
    '1 records read: 0 labelled 0, 0 labelled 1, 1 without a label; unknown fields: lable'
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = 0
        self._labels: Counter[int | None] = Counter()
        self._invalid = Reasons()
        self._samples = 0
        self._unknown: Counter[str] = Counter()
        self._clock = clock
        self._next_line = clock() + FIRST_SECONDS

    def sort(self, partition: int, offset: int, value: bytes | None) -> Labelled | None:
        """Count a record, and return it to be trained on if it is valid and has a label."""
        try:
            record = decode_record(value)
        except RecordError as error:
            self.reject(partition, offset, str(error))
            if str(error).endswith(": missing"):
                self._add_unknown_fields(value)
            return None
        self._read += 1
        self._labels[record.label] += 1
        if record.label is None:
            self._add_unknown_fields(value)
            return None
        return Labelled(partition, offset, record.features, record.label)

    def reject(self, partition: int, offset: int, reason: str) -> None:
        """Count an invalid record."""
        self._read += 1
        self._invalid.add(reason, f"partition {partition} offset {offset}")

    def line(self, needs: str) -> str | None:
        """Return a line that says why there is no model; ``None`` until it is due.

        Parameters
        ----------
        needs : str
            What the first model still needs.
        """
        if self._clock() < self._next_line:
            return None
        self._next_line = self._clock() + EVERY_SECONDS
        return f"no model yet: {self}; {needs}"

    def __str__(self) -> str:
        kinds = [f"{self._labels[label]:,} labelled {label}" for label in (0, 1)]
        if self._labels[None]:
            kinds.append(f"{self._labels[None]:,} without a label")
        if self._invalid.total:
            kinds.append(f"invalid {self._invalid}")
        text = f"{self._read:,} records read: {', '.join(kinds)}"
        names = sorted(self._unknown, key=lambda name: (-_likeness(name), name))
        return f"{text}; unknown fields: {', '.join(names[:3])}" if names else text

    def _add_unknown_fields(self, value: bytes | None) -> None:
        """Remember the fields of a record that lacks one: a name may be misspelt."""
        self._samples += 1
        if self._samples <= SAMPLED:
            self._unknown.update(name[:40] for name in set(json.loads(value or b"{}")) - _FIELDS)


def _likeness(name: str) -> float:
    return max(SequenceMatcher(None, name.lower(), field).ratio() for field in _FIELDS)
