"""The newest labelled records of the data topic."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.feed import Feed, StartOver, log
from modelgenerator.intake import Intake
from modelgenerator.settings import Settings
from modelgenerator.trainer import Labelled
from stream import clients
from stream.batches import UndecodableBatch
from stream.service import Stop


class DataFeed(Feed):
    """Reads the data topic, from `WINDOW` records before its end on."""

    wait_ms = 500

    def __init__(self, settings: Settings, intake: Intake, stop: Stop) -> None:
        super().__init__(settings, settings.data_topic, stop)
        self._intake = intake
        self._skipped = 0

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
        for place in fetched:
            end = self._client and self._client.highwater(place)
            if (end or 0) - self._positions[place] > self._settings.window:
                self._next_look = 0.0
        return filter(None, map(self._sorted, chain.from_iterable(fetched.values())))

    def _sorted(self, message: Any) -> Labelled | None:
        if isinstance(message, UndecodableBatch):
            self._intake.reject(message.partition, message.first, message.reason)
            return None
        return self._intake.sort(message.partition, message.offset, message.value)

    def _look(self, client: KafkaConsumer) -> None:
        """Assign new partitions too, and skip records where more than a window of them waits."""
        topic, window = self._topic, self._settings.window
        partitions = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic)]
        starts = client.beginning_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        ends = client.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        if any(ends[p] < position for p, position in self._positions.items() if p in ends):
            raise StartOver(f"{topic} was deleted and recreated")
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
