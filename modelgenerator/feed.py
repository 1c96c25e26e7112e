"""Topics read without a consumer group, whatever happens to them or to the broker."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from modelgenerator.settings import Settings
from stream import clients, reading, refusals
from stream.deadlines import DeadlineExceeded
from stream.service import Stop, Warnings
from stream.topics import create_missing_topics

log = logging.getLogger("modelgenerator")

LOOK_SECONDS = 5.0
"""How often the partitions of the topic and their ends are read."""

LOOK_TIMEOUT_SECONDS = 20.0

FETCH_MS = 100
"""How long a fetch waits for records: meanwhile the broker answers nothing else that is asked by
the same client, such as where the topic ends."""


class StartOver(Exception):
    """What was trained on so far no longer counts; the message says why."""


class Feed:
    """Follows a topic from the end of its partition 0 on.

    A client that fails is replaced, and reading resumes where it was.

    Attributes
    ----------
    wait_ms : int
        How long `fetch` waits for records.
    """

    wait_ms = 0

    def __init__(self, settings: Settings, topic: str, stop: Stop) -> None:
        self._settings = settings
        self._topic = topic
        self._stop = stop
        self._warnings = Warnings(log)
        self._client: KafkaConsumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._next_look = 0.0

    def fetch(self) -> dict[TopicPartition, list[Any]]:
        """Return the next records of each partition.

        Raises
        ------
        Stopped, Fatal
            Also what `_look` raises.
        """
        try:
            if self._client is None:
                self._client = clients.connect(self._connect, self._settings, self._stop, log)
            client = self._client
            if time.monotonic() >= self._next_look:
                self._stop.deadline(LOOK_TIMEOUT_SECONDS, partial(self._look_at_topic, client))
                self._next_look = time.monotonic() + LOOK_SECONDS
            fetched: dict[TopicPartition, list[Any]] = client.poll(timeout_ms=self.wait_ms)
        except (KafkaError, DeadlineExceeded, OSError) as error:
            self._stop.check()
            refusals.raise_if_refused(error, self._settings)
            if not isinstance(error, OffsetOutOfRangeError):  # the next look finds where to go on
                self._warnings.warn("feed", f"{self._topic}: {error!r}; reconnecting")
            self.close()
            self._stop.wait(0.2)
            return {}
        self._positions |= {place: found[-1].offset + 1 for place, found in fetched.items()}
        return fetched

    def close(self) -> None:
        """Disconnect; the next fetch connects again and resumes where this one was."""
        if not self._stop:  # the end of the process closes it too, without waiting for a broker
            clients.close(self._client)
        self._client, self._next_look = None, 0.0

    def _connect(self) -> KafkaConsumer:
        if self._positions:
            create_missing_topics(self._settings, log)  # one may have been deleted meanwhile
        return clients.consumer(
            self._settings,
            max_poll_records=1_000,
            fetch_max_wait_ms=FETCH_MS,
            metadata_max_age_ms=int(1_000 * LOOK_SECONDS),
        )

    def _look_at_topic(self, client: KafkaConsumer) -> None:
        if not client.partitions_for_topic(self._topic):
            raise UnknownTopicOrPartitionError(self._topic)  # it is created with a new client
        self._look(client)

    def _assign_all(
        self, client: KafkaConsumer
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int], bool]:
        """Assign all partitions; return their starts and ends, and whether the assignment changed.

        If it changed, each partition needs a seek.
        """
        topic = self._topic
        partitions = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic)]
        starts = client.beginning_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        ends = client.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        moved = client.assignment() != set(partitions)
        if moved:
            client.assign(partitions)
        return starts, ends, moved

    def _look(self, client: KafkaConsumer) -> None:
        """Assign the partitions to a new client, and look after them from time to time."""
        if not client.assignment():
            place = TopicPartition(self._topic, 0)
            start, end = reading.bounds(client, place)
            position = self._positions.get(place, end)
            self._positions[place] = position if start <= position <= end else end
            client.assign([place])
            client.seek(place, self._positions[place])
