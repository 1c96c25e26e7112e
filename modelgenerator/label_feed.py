"""The records that get their labels later, from the label topic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from kafka import KafkaConsumer, TopicPartition
from msgspec.structs import replace

from modelgenerator.data_feed import DataFeed
from modelgenerator.feed import Feed, log
from modelgenerator.intake import Intake
from modelgenerator.join import Joined, Place
from modelgenerator.outcomes import newest_outcomes
from modelgenerator.settings import Settings
from modelgenerator.window import Labelled
from stream import clients, reading
from stream.records import RecordError
from stream.service import Stop


class LabelFeed(Feed):
    """Reads the label topic, once the data is read.

    It begins with the labels of the newest `WINDOW` outcomes, and goes on behind these. If there is
    no outcome, it begins with the newest `WINDOW` labels.
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
        values = dict(self._read_again(self._settings.data_topic, again))
        return filter(
            None, (self._intake.labelled(j, j.value or values.get(j.place)) for j in joined)
        )

    def _from_outcomes(self) -> list[Joined | None]:
        """Take the labels that predictions have met; labels are read from behind these on.

        An outcome counts if the label that it names says the same: whoever can write predictions
        cannot say what is trained on.
        """
        settings, stop, found = self._settings, self._stop, []
        search = partial(newest_outcomes, settings, stop)
        outcomes = clients.connect(search, settings, stop, log)
        named = [(o.labelled, o, there) for o, there in outcomes if o.labelled]
        labels = dict(self._read_again(self._topic, {place for place, *_ in named}))
        for (partition, offset), outcome, there in named:
            with suppress(RecordError):
                label = self._intake.decode_label(labels.get((partition, offset)))
                if (
                    label.label == outcome.label
                    and label.id in (None, outcome.id)
                    and label.source in (None, outcome.source)
                ):
                    place = TopicPartition(self._topic, partition)
                    self._positions[place] = max(offset + 1, self._positions.get(place, 0))
                    if there:
                        exact = replace(label, id=outcome.id, source=outcome.source)
                        found.append(self._join.match(outcome.source[0], exact))
        return found

    def _look(self, client: KafkaConsumer) -> None:
        """Assign new partitions too, and begin again where the topic was recreated."""
        topic = self._topic
        starts, ends, moved = self._assign_all(client)
        for place, start in starts.items():
            end = ends[place]
            position = self._positions.get(place, max(start, end - self._settings.window))
            if position > end:
                log.warning("%s was deleted and recreated; it is read from its beginning", topic)
                position = start
            goal = max(start, position)
            if moved or goal != self._positions.get(place):
                client.seek(place, goal)
            self._positions[place] = goal

    def _read_again(self, topic: str, places: set[Place]) -> Iterator[tuple[Place, bytes]]:
        """Yield the records at these places of a topic, those that it still has."""
        if not places:
            return
        make = partial(clients.connected, clients.consumer, self._settings, self._stop, log)
        with clients.closing(make()) as client:
            for partition in sorted({partition for partition, _ in places}):
                offsets = [offset for p, offset in places if p == partition]
                place = TopicPartition(topic, partition)
                for record in reading.read_at(client, place, offsets, self._stop):
                    yield (partition, record.offset), record.value
