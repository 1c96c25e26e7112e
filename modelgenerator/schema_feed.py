"""The newest schema: other names count at once, another width, order or type starts over."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.feed import Feed, StartOver, log
from modelgenerator.settings import Settings
from modelgenerator.training.trainer import Trainer
from stream import layout
from stream.layout import Layout
from stream.quoting import shown
from stream.reading import last_readable, newest_schema
from stream.records import Schema, decode_schema
from stream.service import Stop
from stream.topics import create_missing_topics


class SchemaFeed(Feed):
    """Follows the schema topic; its newest readable record counts."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        super().__init__(settings, settings.schema_topic, stop)
        self._newest: Schema | None = None
        self._followed: Schema | None = None

    def follow(self, trainer: Trainer, read: int) -> None:
        """Let the trainer take the next records by the newest schema, if there is one.

        Parameters
        ----------
        read : int
            How many records were read by the layout before.

        Raises
        ------
        StartOver
            When the schema has features of another number, order or type than these.
        """
        for records in self.fetch().values():
            self._newest = last_readable(decode_schema, records) or self._newest
        if self._newest is not self._followed:
            if read:
                check_layout(self._settings, self._newest, trainer.layout)
            trainer.follow(layout.of(self._newest))
            self._followed = self._newest

    def _look(self, client: KafkaConsumer) -> None:
        if client.assignment():
            return
        super()._look(client)  # first the end, so that nothing is missed during the search
        self._newest = newest_schema(client, self._settings, self._stop) or self._newest
        place = TopicPartition(self._topic, 0)
        client.seek(place, self._positions[place])


def check_layout(settings: Settings, schema: Schema | None, before: Layout) -> None:
    """Raise `StartOver` if a schema has another number, order or type of features."""
    if schema is None:
        return
    topic, named = settings.schema_topic, len(schema.feature_names)
    if before.width not in (None, named):
        raise StartOver(f"{topic} names {named} features, the models have {before.width}")
    numbers = ["number"] * named
    pairs = zip(before.types or numbers, schema.types or numbers, strict=True)
    for index, (was, now) in enumerate(pairs):
        if now != was:
            name = shown(schema.feature_names[index])
            raise StartOver(f"{topic}: feature {index} {name} is now a {now}, not a {was}")
    names = layout.of(schema).names or []
    if before.names and names != before.names and sorted(names) == sorted(before.names):
        raise StartOver(f"{topic} names the features in another order")


def look_up_schema(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Schema | None:
    """Return the newest schema; missing topics are created first."""
    create_missing_topics(settings, log)
    return newest_schema(consumer, settings, stop)
