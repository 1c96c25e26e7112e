"""Sends records, and their labels with them or later."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import msgspec

from datagenerator.late_labels import MOST_WAITING, LateLabels
from datagenerator.outbox import Outbox
from datagenerator.pace import TICK_SECONDS
from datagenerator.rows import Source, Timed
from datagenerator.settings import Settings
from datagenerator.sources import READ_SECONDS
from datagenerator.topics import Sent, prepare, unlabelled
from stream.clients import connect
from stream.records import Label, encode_label, encode_record
from stream.service import Stop, shared_warnings


class Sender:
    """Sends through an outbox; the labels that come later go to a topic of their own."""

    def __init__(self, settings: Settings, outbox: Outbox, log: logging.Logger) -> None:
        self._settings = settings
        self._outbox = outbox
        self._log = log
        self._offsets: dict[int, int] = {}  # of records with ids of the file, which may repeat
        self.late = LateLabels(settings)

    def resume(self, source: Source, stop: Stop) -> list[int]:
        """Return the id that each partition takes next.

        The labels of records that were sent before and have none yet are taken again.

        Raises
        ------
        Stopped, Fatal
        """
        settings, log = self._settings, self._log
        look_up = partial(prepare, settings, source, self._outbox, stop, log)
        next_ids = connect(look_up, settings, stop, log)
        if settings.labels_come_later:
            search = partial(unlabelled, settings, source, len(next_ids), stop)
            found = connect(search, settings, stop, log)
            stop.deadline(READ_SECONDS, partial(self._take_again, source, max(next_ids), found))
            log.info("%d labels of records that were sent are still to come", len(self.late))
        return next_ids

    def send(self, number: int, timed: Timed, partition: int) -> None:
        """Send a record, after the labels that are due."""
        self.send_labels(self.late.due(number))
        record, later = timed.record, self._settings.labels_come_later
        takes = later and self._take(number, timed, partition)
        by_source = takes and self._settings.id is not None
        tell = partial(self._offsets.__setitem__, number) if by_source else None
        if later or not self.late.has_label(number):
            record = msgspec.structs.replace(record, label=None)
        row = None if record.id == number else number
        value = encode_record(record)
        self._outbox.send(self._settings.data_topic, value, partition, row=row, tell=tell)

    def send_labels(self, labels: Iterator[tuple[int, Label, int]]) -> None:
        """Send labels; those of records with ids of the file name the offset of their record."""
        if len(self.late) > MOST_WAITING:
            shared_warnings(self._log).warn(
                "waiting",
                f"more than {MOST_WAITING} labels wait to be sent; those that are due first are"
                " sent before their time",
            )
        for number, label, partition in labels:
            if self._settings.id is not None:
                if number not in self._offsets:
                    self._outbox.flush()
                place = partition, self._offsets[number]
                label = msgspec.structs.replace(label, source=place)
            self._offsets.pop(number, None)
            self._outbox.send(self._settings.label_topic, encode_label(label), partition)

    def finish(self, stop: Stop) -> None:
        """Send the labels that still wait, each in its time."""
        while len(self.late):
            self.send_labels(self.late.rest())
            self._outbox.poll()
            stop.wait(TICK_SECONDS)
        self._outbox.flush()

    def _take_again(self, source: Source, end: int, sent: dict[int, Sent]) -> None:
        numbers = range(min(sent, default=end), end)
        for number, timed in zip(numbers, source.records(numbers.start), strict=False):
            if number in sent and self._take(number, timed, *sent[number][:2]):
                self._offsets[number] = sent[number].offset

    def _take(self, number: int, timed: Timed, partition: int, sent: float | None = None) -> bool:
        """Keep the label of a record, if it ever gets one; return whether it does."""
        record = timed.record
        if record.label is None or not self.late.has_label(number):
            return False
        label = Label(record.label, id=record.id)
        self.late.add(number, label, partition, sent, timed.label_delay)
        return True
