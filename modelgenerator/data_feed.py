"""The newest labelled records of the data topic, whatever happens to the topic or the broker."""

from __future__ import annotations

import logging
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from modelgenerator.intake import Intake
from modelgenerator.settings import Settings
from modelgenerator.trainer import Labelled
from stream import clients, refusals
from stream.batches import UndecodableBatch
from stream.deadlines import DeadlineExceeded
from stream.service import Stop, Warnings

log = logging.getLogger("modelgenerator")

LOOK_SECONDS = 5.0
"""How often the partitions of the topic and their ends are read."""

LOOK_TIMEOUT_SECONDS = 20.0


class TopicRecreated(Exception):
    """The data topic was deleted and recreated: it holds other records."""


class DataFeed:
    """Reads the data topic, from `WINDOW` records before its end on, without a consumer group."""

    def __init__(self, settings: Settings, intake: Intake, stop: Stop) -> None:
        self._settings = settings
        self._intake = intake
        self._stop = stop
        self._warnings = Warnings(log)
        self._client: KafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._next_look = 0.0
        self._skipped = 0

    def poll(self) -> list[Labelled]:
        """Return the next labelled records; an empty list after half a second without any.

        Unlabelled and invalid records are left out; the predictor rejects the invalid ones. A
        client that fails is replaced.

        Raises
        ------
        TopicRecreated
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
                if isinstance(message, UndecodableBatch):
                    self._intake.reject(partition.partition, message.first, message.reason)
                elif record := self._intake.sort(
                    partition.partition, message.offset, message.value
                ):
                    found.append(record)
        return found

    def close(self) -> None:
        """Disconnect; the next poll connects again and resumes where this one was."""
        if not self._stop:  # the end of the process closes it too, without waiting for a broker
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
        """Assign new partitions too, and skip records where more than a window of them waits."""
        topic, window = self._settings.data_topic, self._settings.window
        partitions = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic)]
        starts = client.beginning_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        ends = client.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        if any(ends[p] < position for p, position in self._positions.items() if p in ends):
            self._positions.clear()
            raise TopicRecreated
        moved = client.assignment() != set(partitions)
        if moved:
            client.assign(partitions)
        for partition in partitions:
            nearest = max(starts[partition], ends[partition] - window)
            position = self._positions.get(partition)
            if position is None:
                where = (topic, partition.partition, nearest)
                log.info("reading %s partition=%d from offset=%d", *where)
            elif nearest > position:
                self._skipped += nearest - position
                self._warnings.warn(
                    "behind",
                    f"{topic}: partition={partition.partition} was more than WINDOW={window}"
                    f" records behind, skipped to offset={nearest};"
                    f" {self._skipped} records were not trained on so far",
                )
            goal = max(nearest, position or 0)
            self._positions[partition] = goal
            if moved or goal != position:
                client.seek(partition, goal)
