"""The records that get their labels later, from the label topic."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.data_feed import DataFeed
from modelgenerator.feed import Feed, log
from modelgenerator.intake import Intake
from modelgenerator.join import Joined
from modelgenerator.outcomes import newest_outcomes
from modelgenerator.settings import Settings
from modelgenerator.trainer import Labelled
from stream import clients, reading
from stream.records import Label
from stream.service import Stop

NEAR = 1_000
"""Offsets that are read over rather than fetched anew."""


class LabelFeed(Feed):
    """Reads the label topic, once the data is read.

    It begins with the newest `WINDOW` outcomes, whose labels predictions have met already, and goes
    on behind these; without any, with the newest `WINDOW` labels.
    """

    def __init__(self, settings: Settings, intake: Intake, data: DataFeed, stop: Stop) -> None:
        super().__init__(settings, settings.label_topic, stop)
        self._intake = intake
        self._join = intake.join
        self._data = data

    def poll(self) -> Iterator[Labelled]:
        """Return the next records that have got their labels, in the order of these; no waiting.

        Each is decoded when it is asked for.

        Raises
        ------
        Stopped
        """
        if not self._data.caught_up:
            return iter(())
        found = [] if self._positions else self._from_outcomes()
        found += [
            self._intake.match(place.partition, message.offset, message.value)
            for place, messages in self.fetch().items()
            for message in messages
        ]
        joined = [each for each in found if each]
        again = {each.place for each in joined if each.value is None and not each.revises}
        values = dict(self._read_again(again)) if again else {}
        return filter(
            None, (self._intake.labelled(j, j.value or values.get(j.place)) for j in joined)
        )

    def _from_outcomes(self) -> list[Joined | None]:
        """Take the labels that predictions have met; labels are read from behind these on."""
        settings, stop, found = self._settings, self._stop, []
        for outcome in clients.connect(
            partial(newest_outcomes, settings, stop), settings, stop, log
        ):
            if outcome.labelled and outcome.label is not None:
                partition, offset = outcome.labelled
                place = TopicPartition(self._topic, partition)
                self._positions[place] = max(offset + 1, self._positions.get(place, 0))
                revises = outcome.outcome == "revised"
                label = Label(outcome.label, outcome.id, outcome.source, revises)
                found.append(self._join.match(outcome.source[0], label))
        return found

    def _look(self, client: KafkaConsumer) -> None:
        """Assign new partitions too, and begin again where the topic was recreated."""
        topic = self._topic
        partitions = [TopicPartition(topic, n) for n in client.partitions_for_topic(topic)]
        starts = client.beginning_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        ends = client.end_offsets(partitions, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        moved = client.assignment() != set(partitions)
        if moved:
            client.assign(partitions)
        for place in partitions:
            start, end = starts[place], ends[place]
            position = self._positions.get(place, max(start, end - self._settings.window))
            if position > end:
                log.warning("%s was deleted and recreated; it is read from its beginning", topic)
                position = start
            goal = max(start, position)
            if moved or goal != self._positions.get(place):
                client.seek(place, goal)
            self._positions[place] = goal

    def _read_again(self, places: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Yield the records at these places of the data topic, those that it still has."""
        topic, settings = self._settings.data_topic, self._settings
        with clients.closing(
            clients.connected(clients.consumer, settings, self._stop, log)
        ) as client:
            for partition in sorted({partition for partition, _ in places}):
                place = TopicPartition(topic, partition)
                start, end = reading.bounds(client, place, self._stop)
                offsets = sorted(o for p, o in places if p == partition and start <= o < end)
                for first, last in runs(offsets):
                    for record in reading.read_range(client, place, first, last + 1, self._stop):
                        if (partition, record.offset) in places:
                            yield (partition, record.offset), record.value


def runs(offsets: list[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of offsets that are near each other.

    Examples
    --------
    >>> list(runs([3, 4, 900, 5_000]))
    [(3, 900), (5000, 5000)]
    """
    first = last = -1
    for offset in offsets:
        if first >= 0 and offset - last > NEAR:
            yield first, last
            first = -1
        first, last = (offset if first < 0 else first), offset
    if offsets:
        yield first, last
