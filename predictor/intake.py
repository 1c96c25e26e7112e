"""What was read of both topics and is not committed yet: in which order it is taken, what waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from kafka import TopicPartition

from predictor import metrics
from predictor.consumed import Consumed, ConsumedLabel
from predictor.group import Group
from predictor.label_feed import LabelFeed
from predictor.order import merge
from predictor.settings import PredictorSettings
from predictor.state import State
from predictor.waiting import Queue, Waiting
from stream.kafka_workarounds import progress
from stream.layout import Layout
from stream.service import Stop

MAX_RECORDS = 5_000
MAX_BYTES = 32 * 2**20
"""Bytes at which a unit is full; what the last poll returned comes on top."""

MAX_LABEL_BYTES = 4 * 2**20
"""Bytes at which no more labels of a partition are read; the last poll comes on top."""


IDLE_SECONDS = 0.1
"""How long the first record is waited for at least: with ``COMMIT_INTERVAL_MS=1``, a predictor with
nothing to do would use a whole core."""

LONGEST_POLL_SECONDS = 1.0
"""How long one poll waits at most, so that the predictor soon looks whether it is to stop."""

HURRY_SECONDS = 0.02
"""How long records are waited for while something else is there to read."""


class Lag(NamedTuple):
    """The records of a partition that wait to be predicted.

    Attributes
    ----------
    read : int
        Those that were read.
    unread : int
        Offsets behind them; aborted records and the ends of transactions have some, too.
    """

    read: int
    unread: int


class Pending:
    """What was read of a partition and is not committed yet, in the order of each topic."""

    def __init__(self) -> None:
        self.records: deque[Consumed] = deque()
        self.labels: deque[ConsumedLabel] = deque()

    def drop(self, offset: int, label: int) -> None:
        """Drop the records before `offset`, and the labels before `label`."""
        while self.records and self.records[0].offset < offset:
            self.records.popleft()
        while self.labels and self.labels[0].offset < label:
            self.labels.popleft()


class Intake:
    """Reads records and labels, and keeps them until they are committed.

    Attributes
    ----------
    waiting : Waiting
        The records that were read and wait for a model.
    labels : LabelFeed
        To be closed at the end.
    """

    def __init__(self, settings: PredictorSettings, group: Group, stop: Stop) -> None:
        self.waiting = Waiting()
        self.labels = LabelFeed(settings, stop)
        self._settings = settings
        self._group = group
        self._stop = stop
        self._states: Mapping[int, State] = {}
        self._pending: dict[int, Pending] = {}

    def begin(self, states: Mapping[int, State]) -> None:
        """Read the partitions of these states, from where they stand."""
        self.waiting = Waiting()
        self._states, self._pending = states, {partition: Pending() for partition in states}
        self.labels.assign({p: state.tally.labels for p, state in states.items()})
        self._seek({p: state.offset for p, state in states.items()})

    def hold(self, model: int, barred: set[int], layout: Layout) -> None:
        """Hold the partitions that `model` must not predict; read the others from where they wait.

        What waits is read once, to say what it is, and not all of it.
        """
        held = [p for p, state in self._states.items() if not state.tally.allows(model, barred)]
        self._seek(self.waiting.hold(held, layout))
        self._seek({p: self._states[p].offset for p in held if self._pending[p].records})
        for place, at in progress(self._group.consumer).items() if self.waiting.queues else ():
            if self.waiting.skips(place.partition, at.readable - at.position):
                with suppress(ValueError):  # unassigned meanwhile
                    self._group.consumer.seek(place, at.readable)

    def read(self, most: int) -> None:
        """Read both topics for ``COMMIT_INTERVAL_MS``, or until so many records are there.

        Raises
        ------
        KafkaError
        """
        end = time.monotonic() + self._settings.commit_interval_ms / 1000
        missing = self._read_labels()
        ready = {  # others can go no further before their labels come
            partition: pending.records
            for partition, pending in self._pending.items()
            if partition not in missing or pending.labels
        }
        self._pause_all_but(p for p, records in ready.items() if len(records) < most)
        hurry = bool(missing) or any(state.rebuilding for state in self._states.values())
        size = sum(_size(pending.records) for pending in self._pending.values())
        while not self._stop and not self._group.changed and size < MAX_BYTES:
            left, room = end - time.monotonic(), most - sum(map(len, ready.values()))
            if left <= 0 or room <= 0:
                return
            if not self.queued:
                left = max(left, IDLE_SECONDS)
            timeout_ms = max(
                1, int(1000 * min(left, HURRY_SECONDS if hurry else LONGEST_POLL_SECONDS))
            )
            polled = self._group.consumer.poll(timeout_ms=timeout_ms, max_records=room)
            if self._group.changed:
                return  # these may be of partitions that were just assigned: all are read again
            for place, records in polled.items():
                metrics.RECORDS_READ.inc(len(records))
                new = self.waiting.sort(map(Consumed.of, records))
                self._pending[place.partition].records += new
                size += _size(new)
            if hurry and not polled:
                return

    def take(self, most: int) -> tuple[list[Consumed], set[int]]:
        """Return the records and labels that come next, at most so many together.

        Returns
        -------
        list of Consumed
            In the order of each partition. They are kept until `drop`.
        set of int
            Partitions where these are all records that the labels so far can be for.
        """
        events: list[Consumed] = []
        ended: set[int] = set()
        merged = {partition: self._merged(partition) for partition in self._pending}
        busy = sum(bool(pending.records or pending.labels) for pending in self._pending.values())
        found = {p: list(islice(each, most // max(1, busy))) for p, each in merged.items()}
        for partition, pending in self._pending.items():
            room = most - sum(map(len, found.values()))  # what others have no use for
            of_this = found[partition]
            of_this += islice(merged[partition], max(0, room))
            events += of_this
            state = self._states[partition]
            labels = sum(isinstance(event, ConsumedLabel) for event in of_this)
            records = len(of_this) - labels
            state.labels_left = self._misses(partition) or labels < len(pending.labels)
            state.labels_behind = state.labels_left and not (records and self._meets(partition))
            if records == len(pending.records) and self._is_behind(partition):
                ended.add(partition)
        return events, ended

    def drop(self, states: Mapping[int, State]) -> None:
        """Drop what is committed with these states."""
        for partition, state in states.items():
            self._pending[partition].drop(state.offset, state.tally.labels)

    @property
    def queued(self) -> int:
        """How many records are pending."""
        return sum(len(pending.records) for pending in self._pending.values())

    def lag(self) -> dict[int, Lag]:
        """Return how many records of each partition wait to be predicted.

        What is behind an open transaction does not wait yet.
        """
        found, queues = progress(self._group.consumer), self.waiting.queues
        lags = {}
        for partition, pending in self._pending.items():
            queue, at = queues.get(partition, Queue(0)), found.get(self._place(partition))
            unread = queue.skipped + (max(0, at.readable - at.position) if at else 0)
            lags[partition] = Lag(queue.read + len(pending.records), unread)
        return lags

    def _read_labels(self) -> set[int]:
        """Return the partitions whose records have to wait for labels that were not read yet."""
        room = {
            partition: MAX_RECORDS - len(pending.labels)
            if _size(pending.labels) < MAX_LABEL_BYTES
            else 0
            for partition, pending in self._pending.items()
        }
        for label in self.labels.poll(room):
            self._pending[label.partition].labels.append(label)
        return {p for p in self._pending if self._meets(p) and self._misses(p)}

    def _meets(self, partition: int) -> bool:
        """Tell whether labels can meet their predictions now; else they wait."""
        return not self._states[partition].rebuilding and partition not in self.waiting.held

    def _merged(self, partition: int) -> Iterator[Consumed]:
        """Return what comes next in a partition, one by one."""
        pending = self._pending[partition]
        if not self._meets(partition):
            return iter(pending.records)
        ended, more = self._is_behind(partition), self._misses(partition)
        return merge(pending.records, pending.labels, ended, more)

    def _misses(self, partition: int) -> bool:
        """Tell whether labels on the topic come before what was read."""
        return partition in self.labels.missing and not self._states[partition].labels_paused

    def _is_behind(self, partition: int) -> bool:
        """Tell whether all records were read that the labels so far can be for."""
        at = progress(self._group.consumer).get(self._place(partition))
        return (
            self._meets(partition)
            and at is not None
            and self.labels.is_behind(partition, at.position)
        )

    def _pause_all_but(self, partitions: Iterable[int]) -> None:
        read = {self._place(partition) for partition in partitions}
        with suppress(ValueError, KeyError):  # unassigned meanwhile: the next poll recovers
            self._group.consumer.pause(*(self._group.consumer.assignment() - read))
            self._group.consumer.resume(*read)

    def _seek(self, offsets: Mapping[int, int]) -> None:
        """Read partitions of the data topic from these offsets on."""
        self.waiting.forget(offsets)
        with suppress(ValueError, KeyError):  # unassigned meanwhile: the next poll recovers
            for partition, offset in offsets.items():
                self._pending[partition].records.clear()
                self._group.consumer.seek(self._place(partition), offset)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.data_topic, partition)


def _size(consumed: Iterable[Consumed]) -> int:
    return sum(len(each.value or b"") for each in consumed)
