"""The newest records of the data topic."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator import metrics
from modelgenerator.feed import Feed, StartOver, log
from modelgenerator.intake import Intake
from modelgenerator.settings import Settings
from modelgenerator.window import Labelled
from stream import clients
from stream.batches import UndecodableBatch
from stream.service import Stop

REACH = 200_000
"""Latest records of all partitions together that are read, for those that wait for a label."""


class DataFeed(Feed):
    """Reads the data topic, from `WINDOW` records before its end on.

    Where labels come later, it reads from further back, for records that still wait for theirs.
    """

    wait_ms = 500

    def __init__(self, settings: Settings, intake: Intake, stop: Stop) -> None:
        super().__init__(settings, settings.data_topic, stop)
        self._intake = intake
        self._skipped = 0
        self._window_from: dict[TopicPartition, int] = {}
        self._reach = settings.window

    @property
    def unread(self) -> int:
        """How many records wait to be read, about."""
        client = self._client
        ends = {p: client.highwater(p) for p in self._positions} if client else {}
        return sum(max(0, (end or 0) - self._positions[p]) for p, end in ends.items())

    @property
    def caught_up(self) -> bool:
        """Whether it has read to within a window of where the topic ended at the start."""
        starts = self._window_from.items()
        return bool(starts) and all(self._positions[p] >= offset for p, offset in starts)

    def poll(self) -> Iterator[Labelled]:
        """Return the next labelled records; none after half a second without any.

        Each is decoded when it is asked for: decoded, they may take ten times their size.
        Unlabelled and invalid records are left out; the predictor rejects the invalid ones.

        Raises
        ------
        StartOver
            When the topic ends before a record that was read.
        Stopped
        """
        fetched = self.fetch()
        metrics.RECORDS_READ.inc(sum(map(len, fetched.values())))
        for place in fetched:
            end = self._client and self._client.highwater(place)
            if (end or 0) - self._positions[place] > self._reach:
                self._next_look = 0.0
        return filter(None, map(self._sorted, chain.from_iterable(fetched.values())))

    def _sorted(self, message: Any) -> Labelled | None:
        partition, offset = message.partition, message.offset
        if isinstance(message, UndecodableBatch):
            self._intake.reject(partition, message.first, message.reason)
            return None
        record = self._intake.sort(partition, offset, message.value, message.timestamp)
        in_window = offset >= self._window_from[TopicPartition(self._topic, partition)]
        return record if in_window else None

    def _look(self, client: KafkaConsumer) -> None:
        """Assign new partitions too, and skip records where more than a window of them waits."""
        topic = self._topic
        starts, ends, moved = self._assign_all(client)
        if any(ends[p] < position for p, position in self._positions.items() if p in ends):
            raise StartOver(f"{topic} was deleted and recreated")
        self._reach = self._how_far_back(client, len(starts))
        window = self._settings.window
        reach = f"WINDOW={window}" if self._reach == window else self._reach
        for partition, start in starts.items():
            nearest = max(start, ends[partition] - self._reach)
            window_from = max(start, ends[partition] - window)
            self._window_from.setdefault(partition, window_from)
            position = self._positions.get(partition)
            if position is None:
                where = (topic, partition.partition, nearest)
                log.info("reading %s partition=%d from offset=%d", *where)
            elif nearest > position:
                self._skipped += nearest - position
                self._warnings.warn(
                    "behind",
                    f"{topic}: partition={partition.partition} was more than {reach} records"
                    f" behind, skipped to offset={nearest};"
                    f" {self._skipped} records were not trained on so far",
                )
            goal = max(nearest, position or 0)
            self._positions[partition] = goal
            if moved or goal != position:
                client.seek(partition, goal)

    def _how_far_back(self, client: KafkaConsumer, partitions: int) -> int:
        """Return how many records of a partition are read: more, where labels come later."""
        topic, window = self._settings.label_topic, self._settings.window
        labels = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic) or ()]
        ends = client.end_offsets(labels, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        return max(window, REACH // partitions) if any(ends.values()) else window
