"""The topics as the commands read them: one consumer, each record once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.envelope import check
from modelgenerator.models.catalogue import Catalogue, Row
from modelgenerator.scan import scan
from modelgenerator.settings import Settings
from modelgenerator.status_feed import read_status
from stream import clients, reading
from stream.classifier import Model
from stream.model_topic import ModelTopic
from stream.reading import newest_schema
from stream.records import Prediction, RecordError, decode_prediction
from stream.seal import own_seal
from stream.service import Fatal, Stop
from stream.topics import partition_counts


class Topics:
    """Reads the model topic and the status topic; no model is unpickled.

    Attributes
    ----------
    catalogue : Catalogue
        What the topics say of each model.
    models : ModelTopic
        Has read the whole model topic.

    Raises
    ------
    Fatal
        When there is no model topic.
    KafkaError
    """

    def __init__(self, settings: Settings, consumer: KafkaConsumer, stop: Stop) -> None:
        self.settings = settings
        self.consumer = consumer
        self.stop = stop
        self.catalogue = Catalogue()
        self.models = ModelTopic(
            settings, consumer, stop, settings.trusted_keys, self.catalogue.add_untrusted
        )
        self._partitions: dict[str, int] = {}
        self._look_up(settings.model_topic, settings.status_topic)
        if settings.model_topic not in self._partitions:
            raise Fatal(f"{settings.kafka_bootstrap_servers}: no topic {settings.model_topic}")
        self.catalogue.add_models(self.models.read_all(), settings.model_max_bytes)
        seal = own_seal(settings)
        for record in self._records(settings.status_topic):
            with suppress(RecordError):
                self.catalogue.add_status(read_status(record, seal))
                self.catalogue.hear(record.timestamp)

    def listen(self) -> None:
        """Tell the catalogue when the newest prediction of each partition was made.

        Only this, and to count them, takes the right to read predictions.
        """
        for number in range(self.partitions(self.settings.prediction_topic)):
            place = TopicPartition(self.settings.prediction_topic, number)
            last = reading.newest(self.consumer, place, reading.newest_time, self.stop)
            self.catalogue.hear(last or 0)

    def count_predictions(
        self, last: int | None, also: Callable[[Prediction, int], None] = lambda *_: None
    ) -> None:
        """Add to the catalogue what each model predicted.

        Parameters
        ----------
        last : int or None
            How many of the last offsets of each partition are read; ``None`` for all.
        also : callable, optional
            Takes each prediction, too, and its timestamp.
        """
        for record in self._records(self.settings.prediction_topic, last):
            with suppress(RecordError):
                prediction = decode_prediction(record.value)
                self.catalogue.add_prediction(prediction)
                also(prediction, record.timestamp)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 if there is none."""
        if topic not in self._partitions:
            self._look_up(topic)
        return self._partitions.get(topic, 0)

    def records_at(self, partition: int, offsets: Collection[int]) -> Iterator[Any]:
        """Yield the records of the data topic at these offsets, those that it still has."""
        topic = self.settings.data_topic
        if partition >= self.partitions(topic):
            return iter(())
        return reading.read_at(self.consumer, TopicPartition(topic, partition), offsets, self.stop)

    def row(self, version: int) -> Row:
        """Return what the catalogue has of a version that is on the model topic.

        Raises
        ------
        Fatal
            When it is not.
        """
        rows = {row.version: row for row in self.catalogue.rows() if row.envelope is not None}
        if version not in rows:
            known = f"it has {min(rows)} to {max(rows)}" if rows else "it is empty"
            raise Fatal(f"{self.settings.model_topic}: no model {version}; {known}")
        return rows[version]

    def load(self, version: int) -> Model:
        """Return a model after every check that a predictor makes.

        Raises
        ------
        ModelError
        """
        schema = newest_schema(self.consumer, self.settings, self.stop)
        return check(self.settings, *self.models.get(version), schema, self.stop)

    def _look_up(self, *topics: str) -> None:
        with clients.closing(clients.admin(self.settings)) as admin:
            self._partitions |= partition_counts(admin, list(topics))

    def _records(self, topic: str, last: int | None = None) -> Iterator[Any]:
        return scan(self.consumer, topic, range(self.partitions(topic)), last, self.stop)
