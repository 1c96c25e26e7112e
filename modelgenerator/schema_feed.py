"""Notices that the stream has got another number of features."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.feed import Feed, StartOver, log
from modelgenerator.settings import Settings
from stream.reading import last_readable, newest_schema
from stream.records import Schema, decode_schema
from stream.service import Stop
from stream.topics import create_missing_topics


class SchemaFeed(Feed):
    """Follows the schema topic; its newest readable record counts."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        super().__init__(settings, settings.schema_topic, stop)
        self._newest: Schema | None = None

    def check(self, width: int | None) -> None:
        """Raise `StartOver` if the newest schema names another number of features than `width`."""
        for records in self.fetch().values():
            self._newest = last_readable(decode_schema, records) or self._newest
        check_width(self._settings, self._newest, width)

    def _look(self, client: KafkaConsumer) -> None:
        if client.assignment():
            return
        super()._look(client)  # first the end, so that nothing is missed during the search
        self._newest = newest_schema(client, self._settings, self._stop) or self._newest
        place = TopicPartition(self._topic, 0)
        client.seek(place, self._positions[place])


def check_width(settings: Settings, schema: Schema | None, width: int | None) -> None:
    """Raise `StartOver` if a schema names another number of features than `width`."""
    if schema and width not in (None, named := len(schema.feature_names)):
        raise StartOver(f"{settings.schema_topic} names {named} features, the models have {width}")


def look_up_schema(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Schema | None:
    """Return the newest schema; missing topics are created first."""
    create_missing_topics(settings, log)
    return newest_schema(consumer, settings, stop)
