"""The models of the model topic by their versions, and which of them are barred."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

from kafka import KafkaConsumer, TopicPartition

from predictor.settings import PredictorSettings
from stream import classifier, reading
from stream.classifier import Model
from stream.model_topic import ModelTopic
from stream.models import Envelope, ModelError, unpack
from stream.records import RecordError, decode_status
from stream.service import Stop

MODELS_IN_MEMORY = 8
LABELS_IN_MEMORY = 100


class Models(Protocol):
    """Where the models come from; a string is the reason why there is none."""

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is."""

    def model(self, version: int) -> Model | str:
        """Return a model."""

    def barred(self, version: int) -> bool:
        """Tell whether a version is barred."""

    def label(self, text: str) -> set[int | None]:
        """Return what the models say that the text of a label means."""


class ModelLibrary:
    """Finds all models in one pass over the topic, and loads each when it is asked for."""

    def __init__(
        self,
        settings: PredictorSettings,
        consumer: KafkaConsumer,
        statuses: KafkaConsumer,
        stop: Stop,
    ) -> None:
        self._max_bytes = settings.model_max_bytes
        self._ignored: dict[int, str] = {}
        trusted = None if settings.allow_unsigned_models else settings.trusted_keys
        self._barred: set[int] = set()
        self._statuses = statuses
        self._status_place = TopicPartition(settings.status_topic, 0)
        self._stop = stop
        self._topic = ModelTopic(settings, consumer, stop, trusted, self._ignore)
        self._topic.read_all()
        self.model = lru_cache(MODELS_IN_MEMORY)(self._load)
        self.label = lru_cache(LABELS_IN_MEMORY)(self._meanings)

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is, or the reason why it cannot be checked."""
        found = self._topic.index.find(version)
        if found is None:
            return self._ignored.get(version, "not on the model topic")
        return found.envelope if found.whole else found.missing

    def barred(self, version: int) -> bool:
        """Tell whether a version is barred; unless it is known, the statuses are read again."""
        if version not in self._barred:
            bounds = reading.bounds(self._statuses, self._status_place)
            for record in reading.read_range(
                self._statuses, self._status_place, *bounds, self._stop
            ):
                with suppress(RecordError):  # the predictor ignores such a record, with a warning
                    status = decode_status(record.value)
                    if status.status == "barred":
                        self._barred.add(status.version)
        return version in self._barred

    def _load(self, version: int) -> Model | str:
        envelope = self.envelope(version)
        if isinstance(envelope, str):
            return envelope
        try:
            classifier.check(envelope, None, None)
            return classifier.load(*self._topic.get(version), self._max_bytes)
        except ModelError as error:
            return str(error)

    def _meanings(self, text: str) -> set[int | None]:
        found: set[int | None] = set()
        for model in self._topic.index.models():
            with suppress(RecordError):  # it has other texts
                found.add(model.envelope.layout.label(text))
        return found

    def _ignore(self, record: Any, reason: str) -> None:
        with suppress(ModelError):  # it does not even say which version it is
            self._ignored.setdefault(unpack(record.value).envelope.version, reason)
