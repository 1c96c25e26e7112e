"""The newest labelled records of the data topic, whatever happens to the topic or the broker."""

from __future__ import annotations

import logging
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from modelgenerator.settings import Settings
from modelgenerator.trainer import Labelled
from stream import clients, refusals
from stream.deadlines import DeadlineExceeded
from stream.records import RecordError, decode_record
from stream.service import Stop, Warnings

log = logging.getLogger("modelgenerator")

LOOK_SECONDS = 5.0
"""How often new partitions and the ends of the partitions are looked for."""

LOOK_TIMEOUT_SECONDS = 20.0


class TopicRemade(Exception):
    """The data topic is not the one that was read so far: its records are other records."""


class DataFeed:
    """Reads the data topic from `WINDOW` records before its end on, in no consumer group.

    Parameters
    ----------
    settings : Settings
    stop : Stop
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._warnings = Warnings(log)
        self._client: KafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._next_look = 0.0
        self._skipped = 0

    def poll(self) -> list[Labelled]:
        """Return the next labelled records, none after half a second without.

        Records that have no label or do not keep the contract are left out: the predictor
        answers for them. A client that fails is replaced.

        Raises
        ------
        TopicRemade
            When the topic ends before a record that was read.
        Stopped
        """
        try:
            client = self._connected()
            if time.monotonic() >= self._next_look:
                self._stop.deadline(LOOK_TIMEOUT_SECONDS, lambda: self._look(client))
                self._next_look = time.monotonic() + LOOK_SECONDS
            fetched = client.poll(timeout_ms=500)
        except (KafkaError, DeadlineExceeded, OSError) as error:
            self._stop.check()
            refusals.raise_if_refused(error, self._settings)
            if not isinstance(error, OffsetOutOfRangeError):  # the next look finds where to go on
                self._warnings.warn("data", f"{self._settings.data_topic}: {error!r}; reconnecting")
            self.close()
            self._stop.wait(0.2)
            return []
        found = []
        for partition, messages in fetched.items():
            position = self._positions[partition] = messages[-1].offset + 1
            if (client.highwater(partition) or 0) - position > self._settings.window:
                self._next_look = 0.0
            for message in messages:
                try:
                    record = decode_record(message.value)
                except RecordError:
                    continue
                if record.label is not None:
                    found.append(
                        Labelled(partition.partition, message.offset, record.features, record.label)
                    )
        return found

    def close(self) -> None:
        """Disconnect; the next poll connects again and goes on where this one was."""
        clients.close(self._client)
        self._client, self._next_look = None, 0.0

    def _connected(self) -> KafkaConsumer:
        if self._client is None:
            self._client = clients.connect(
                lambda: clients.consumer(
                    self._settings,
                    max_poll_records=1_000,
                    metadata_max_age_ms=int(1_000 * LOOK_SECONDS),
                ),
                self._settings,
                self._stop,
                log,
            )
        return self._client

    def _look(self, client: KafkaConsumer) -> None:
        """Take in new partitions, and go on nearer to the end of those that are too far behind."""
        topic, window = self._settings.data_topic, self._settings.window
        partitions = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic)]
        starts = client.beginning_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        ends = client.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        if any(ends[p] < position for p, position in self._positions.items() if p in ends):
            self._positions.clear()
            raise TopicRemade
        moved = client.assignment() != set(partitions)
        if moved:
            client.assign(partitions)
        for partition in partitions:
            nearest = max(starts[partition], ends[partition] - window)
            position = self._positions.get(partition)
            if position is None:
                log.info("%s: partition=%d from offset=%d on", topic, partition.partition, nearest)
            elif nearest > position:
                self._skipped += nearest - position
                self._warnings.warn(
                    "behind",
                    f"{topic}: partition={partition.partition} was more than WINDOW={window}"
                    f" records behind, goes on from offset={nearest};"
                    f" {self._skipped} records were not trained on so far",
                )
            goal = max(nearest, position or 0)
            self._positions[partition] = goal
            if moved or goal != position:
                client.seek(partition, goal)
