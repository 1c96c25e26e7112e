"""Reads the label topic: the labels of the partitions whose records this predictor reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from predictor.consumed import ConsumedLabel
from predictor.settings import PredictorSettings
from stream import clients, reading, refusals
from stream.kafka_workarounds import progress
from stream.service import Stop, Warnings

log = logging.getLogger("predictor")

STALLED_SECONDS = 5.0
"""How long records wait for labels that are on the topic and do not come."""

LONGEST_STEP_SECONDS = 0.1
"""Most that one poll counts of that time: between two polls, nobody listens."""


class LabelFeed:
    """Reads labels with a consumer of its own, which is in no group.

    Attributes
    ----------
    consumer : KafkaConsumer
        Reads the labels; to be closed at the end.
    asking : KafkaConsumer
        Asks where the data ends, and reads nothing: while a fetch waits for labels, the broker
        answers nothing else that is asked by the same client. To be closed, too.
    missing : set of int
        Partitions with labels on the topic that have not been read yet. One of which nothing comes
        for `STALLED_SECONDS` is left out: its records do not wait for ever.
    """

    def __init__(self, settings: PredictorSettings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._warnings = Warnings(log)
        self._data_ends: dict[int, int] = {}
        self._unasked: set[int] = set()
        self.missing: set[int] = set()
        self._silent: dict[int, float] = {}
        self._polled_at = 0.0
        connect = partial(clients.connected, clients.consumer, settings, stop, log)
        self.consumer: KafkaConsumer = connect()
        self.asking: KafkaConsumer = connect()

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions, and no other, from these offsets on."""
        self._data_ends, self._unasked = {}, set(offsets)
        self._silent = dict.fromkeys(offsets, 0.0)
        self.consumer.assign([self._place(partition) for partition in offsets])
        for partition, offset in offsets.items():
            self.consumer.seek(self._place(partition), offset)

    def poll(self, room: Mapping[int, int]) -> list[ConsumedLabel]:
        """Return the labels that have come, and ask where the data ends now.

        Parameters
        ----------
        room : mapping of int to int
            How many labels of each partition may come, about.

        Raises
        ------
        NoOffsetForPartitionError, OffsetOutOfRangeError
            When the next label is not on the topic.
        """
        found: list[ConsumedLabel] = []
        left = dict(room)
        try:
            while open := {self._place(partition) for partition, most in left.items() if most > 0}:
                self.consumer.pause(*(self.consumer.assignment() - open))
                self.consumer.resume(*open)
                polled = self.consumer.poll(timeout_ms=0, max_records=max(left.values()))
                for place, labels in polled.items():
                    found += map(ConsumedLabel.of, labels)
                    left[place.partition] -= len(labels)
                    self._unasked.add(place.partition)
                if not polled:
                    break
            self._look_what_is_missing({p for p in left if left[p] < room[p] or left[p] <= 0})
            self._ask_where_the_data_ends()
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            raise
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            self._warnings.warn(
                "labels", f"reading {self._settings.label_topic}: {error!r}; retrying"
            )
        return found

    def is_behind(self, partition: int, offset: int) -> bool:
        """Tell whether no record before a label that was read is at an offset or after it.

        A label's record was written before it. So the end of the data as it was asked for after the
        label was read is behind all records that the label can be for.
        """
        return partition not in self._unasked and offset >= self._data_ends[partition]

    def read(self, partition: int, offsets: Sequence[int]) -> Iterator[ConsumedLabel]:
        """Read labels again, at these offsets; what retention took is left out.

        Assigns only that partition to the consumer.

        Raises
        ------
        KafkaError
        """
        place = self._place(partition)
        return map(ConsumedLabel.of, reading.read_at(self.consumer, place, offsets, self._stop))

    def _look_what_is_missing(self, heard: Collection[int]) -> None:
        read = {
            place.partition
            for place, at in progress(self.consumer).items()
            if at.position >= at.readable
        }
        now = time.monotonic()
        step, self._polled_at = min(now - self._polled_at, LONGEST_STEP_SECONDS), now
        for partition in self._silent:
            self._silent[partition] += step
        self._silent |= dict.fromkeys(read.union(heard) & self._silent.keys(), 0.0)
        stalled = sorted(p for p, silent in self._silent.items() if silent > STALLED_SECONDS)
        if stalled:
            self._warnings.warn(
                "stalled",
                f"no label has come from partitions {stalled} of {self._settings.label_topic} for"
                f" {STALLED_SECONDS:g} s, although more are there; records no longer wait for them",
            )
        self.missing = self._silent.keys() - read - set(stalled)

    def _ask_where_the_data_ends(self) -> None:
        if self._unasked:
            topic = self._settings.data_topic
            places = [TopicPartition(topic, partition) for partition in self._unasked]
            ask = partial(self.asking.end_offsets, places, timeout_ms=clients.REQUEST_TIMEOUT_MS)
            ends = self._stop.until_stopped(ask)
            self._data_ends |= {place.partition: end for place, end in ends.items()}
            self._unasked = set()

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.label_topic, partition)
