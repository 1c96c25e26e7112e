"""The models of the model topic, by their versions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from predictor.settings import PredictorSettings
from stream import classifier, reading
from stream.classifier import Model
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, Part, unpack, verify
from stream.service import Stop

MODELS_IN_MEMORY = 8


class ModelLibrary:
    """Finds all models in one pass over the topic, and loads each when it is asked for."""

    def __init__(self, settings: PredictorSettings, consumer: KafkaConsumer, stop: Stop) -> None:
        self._settings = settings
        self._consumer = consumer
        self._stop = stop
        self._trusted = TrustedKeys(settings.trusted_keys)
        self._place = TopicPartition(settings.model_topic, 0)
        self._places: dict[int, tuple[Envelope, int, int]] = {}
        self._refused: dict[int, str] = {}
        self.model = lru_cache(MODELS_IN_MEMORY)(self._load)
        self._find()

    def envelope(self, version: int) -> Envelope | str:
        """Return what a model is, or the reason why it cannot be checked."""
        if version in self._places:
            return self._places[version][0]
        return self._refused.get(version, "not on the model topic")

    def _find(self) -> None:
        first: dict[int, int] = {}
        start, end = reading.bounds(self._consumer, self._place)
        for record in reading.read_range(self._consumer, self._place, start, end, self._stop):
            try:
                part = self._part(record)
            except ModelError as error:
                self._refuse(record.value, str(error))
                continue
            version = part.envelope.version
            if part.part == 1:
                first[version] = record.offset
            if part.part == part.parts and version in first:
                # The first of a version counts: a replayed one is never served.
                place = (part.envelope, first.pop(version), record.offset + 1)
                self._places.setdefault(version, place)

    def _load(self, version: int) -> Model | str:
        envelope = self.envelope(version)
        if isinstance(envelope, str):
            return envelope
        _, start, end = self._places[version]
        assembler = Assembler(self._settings.model_max_bytes)
        try:
            classifier.check(envelope, None, None)
            for record in reading.read_range(self._consumer, self._place, start, end, self._stop):
                whole = assembler.add(self._part(record))
                if whole:
                    return classifier.load(*whole, self._settings.model_max_bytes)
        except ModelError as error:
            return str(error)
        return "incomplete"

    def _part(self, record: Any) -> Part:
        if record.value is not None and not self._settings.allow_unsigned_models:
            verify(record.value, record.headers, self._trusted)
        return unpack(record.value)

    def _refuse(self, value: bytes | None, reason: str) -> None:
        try:
            self._refused.setdefault(unpack(value).envelope.version, reason)
        except ModelError:
            return  # it does not even say which model it is
