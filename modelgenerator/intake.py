"""What was read of data and labels, and why there is no model yet; knows no Kafka."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from difflib import SequenceMatcher
from typing import Self

from msgspec.structs import replace

from modelgenerator.join import Join, Joined
from modelgenerator.training.trainer import Trainer
from modelgenerator.window import Labelled
from stream.quoting import one_line
from stream.reasons import Reasons
from stream.records import Label, RecordError, decode_label, decode_record, parse
from stream.service import Stopped, Warnings

log = logging.getLogger("modelgenerator")

FIRST_SECONDS = 10.0
EVERY_SECONDS = 60.0

SAMPLED = 100
"""Records with a missing field whose other fields are looked at."""

_FIELDS = {"id", "features", "label"}


class Intake:
    """Sorts records into labelled, unlabelled and invalid ones, and counts each kind.

    Records without a label are kept until one comes on the label topic.

    A line in the log says why there is no model: after 10 seconds, then once a minute, and when the
    service is told to stop.

    Parameters
    ----------
    trainer : Trainer
        Says by which layout records are read, and what the first model still needs.
    join : Join
        Keeps the records without a label.
    has_model : bool
        Whether a model was published for the stream. It may be set later.
    clock, now : callable
        Monotonic seconds, and seconds since 1970.

    Attributes
    ----------
    read : int
        How many records were read, valid or not.

    Examples
    --------
    >>> intake = Intake(Trainer(), Join(200), has_model=False)
    >>> intake.sort(0, 7, b'{"id":1,"features":[0.5],"lable":1}')
    >>> str(intake)
    '1 records read: 0 labelled 0, 0 labelled 1, 1 without a label; unknown fields: lable'
    """

    def __init__(
        self,
        trainer: Trainer,
        join: Join,
        has_model: bool,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.has_model = has_model
        self._trainer = trainer
        self.join = join
        self._now = now
        self.read = 0
        self._labels: Counter[int | None] = Counter()
        self._invalid = Reasons()
        self._misfits = 0
        self._warnings = Warnings(log)
        self._samples = 0
        self._unknown: Counter[str] = Counter()
        self._clock = clock
        self._next_line = clock() + FIRST_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind in (None, Stopped):
            self._next_line = -math.inf
            self.say_why_no_model()

    def sort(
        self, partition: int, offset: int, value: bytes | None, timestamp: int = 0
    ) -> Labelled | None:
        """Count a record, and return it to be trained on if it is valid and has a label."""
        self.join.read(partition, offset)
        try:
            given = decode_record(value)
        except RecordError as error:
            self.reject(partition, offset, str(error))
            if str(error).endswith(": missing"):
                self._add_unknown_fields(value)
            return None
        try:
            record = self._trainer.layout.read(given)
        except RecordError as error:
            self.reject(partition, offset, str(error))
            self._misfits += 1
            self._warnings.warn(
                "misfit",
                f"partition={partition} offset={offset}: {error}; such records are not trained on,"
                f" {self._misfits:,} so far",
            )
            return None
        self.read += 1
        self._labels[record.label] += 1
        if record.label is None:
            self._add_unknown_fields(value)
            joined = self.join.add(partition, offset, record.id, value or b"", timestamp)
            return self.labelled(joined, joined.value) if joined else None
        self.join.remember(partition, offset, record.id)
        return Labelled(partition, offset, record.features, record.label)

    def match(self, partition: int, offset: int, value: bytes | None) -> Joined | None:
        """Take a record of the label topic, and return the record whose label it is."""
        try:
            return self.join.match(partition, self.decode_label(value))
        except RecordError as error:
            self._invalid.add(f"label topic: {error}", f"partition {partition} offset {offset}")
            return None

    def decode_label(self, value: bytes | None) -> Label:
        """Read a record of the label topic, whose label becomes 0 or 1.

        Raises
        ------
        RecordError
        """
        label = decode_label(value)
        return replace(label, label=self._trainer.layout.label(label.label))

    def labelled(self, joined: Joined, value: bytes | None) -> Labelled | None:
        """Return a record that has got its label, to be trained on if it is that record."""
        if joined.revises:
            return Labelled(*joined.place, [], joined.label, revises=True)
        try:
            record = self._trainer.layout.read(decode_record(value))
        except RecordError:
            return None
        if record.label is not None or joined.id not in (None, record.id):
            return None
        self._labels.update({joined.label: 1, None: -1})
        return Labelled(*joined.place, record.features, joined.label)

    def reject(self, partition: int, offset: int, reason: str) -> None:
        """Count an invalid record."""
        self.read += 1
        self._invalid.add(reason, f"partition {partition} offset {offset}")

    def say_why_no_model(self) -> None:
        """Say why there is no model, if there is none and a line is due."""
        if not self.has_model and self._clock() >= self._next_line:
            self._next_line = self._clock() + EVERY_SECONDS
            log.info("no model yet: %s; %s%s", self, self._waiting, self._trainer.needs)

    def __str__(self) -> str:
        kinds = [f"{self._labels[label]:,} labelled {label}" for label in (0, 1)]
        if self._labels[None] > 0:
            kinds.append(f"{self._labels[None]:,} without a label")
        if self._invalid.total:
            kinds.append(f"invalid {self._invalid}")
        text = f"{self.read:,} records read: {', '.join(kinds)}"
        names = sorted(self._unknown, key=lambda name: (-_likeness(name), name))
        return f"{text}; unknown fields: {', '.join(names[:3])}" if names else text

    @property
    def _waiting(self) -> str:
        """Say how many records wait for a label that comes later, and for how long."""
        oldest = self.join.oldest
        if oldest is None:
            return ""
        seconds = max(0.0, self._now() - oldest / 1_000)
        return f"{self.join.waiting:,} records wait for a label, the oldest for {seconds:,.0f} s; "

    def _add_unknown_fields(self, value: bytes | None) -> None:
        """Remember the fields of a record that lacks one: a name may be misspelt."""
        self._samples += 1
        if self._samples <= SAMPLED:
            with suppress(RecordError):
                self._unknown.update(one_line(name, 40) for name in set(parse(value)) - _FIELDS)


def _likeness(name: str) -> float:
    return max(SequenceMatcher(None, name.lower(), field).ratio() for field in _FIELDS)
