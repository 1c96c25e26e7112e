"""Writes a model to the model topic: signed parts, as small as the topic asks, one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from modelgenerator.settings import Settings
from stream.keys import SigningKey
from stream.models import PART_BYTES, Envelope, Message, pack
from stream.refusals import TopicError, causes
from stream.service import Stop

TRANSACTION_SECONDS = 60
OUTSTANDING_PARTS = 4
SMALLEST_PART_BYTES = 1_000


class ModelWriter:
    """Writes models, each whole or not at all; remembers what size of parts the topic takes.

    Parameters
    ----------
    key : SigningKey
        Signs each part.
    """

    def __init__(self, settings: Settings, key: SigningKey, stop: Stop) -> None:
        self._topic = settings.model_topic
        self._key = key
        self._stop = stop
        self._part_bytes = PART_BYTES

    def write(self, producer: KafkaProducer, envelope: Envelope, pickle: bytes) -> None:
        """Write a model in one transaction; its parts become smaller until the topic takes them.

        Raises
        ------
        TopicError
        KafkaError
        Stopped
        """
        while True:
            part_bytes = min(self._part_bytes, len(pickle))
            producer.begin_transaction()
            try:
                self._send(producer, pack(envelope, pickle, self._key, part_bytes))
            except KafkaError as error:
                too_large = any(isinstance(e, MessageSizeTooLargeError) for e in causes(error))
                if part_bytes < 2 * SMALLEST_PART_BYTES or not too_large:
                    raise
                producer.abort_transaction()
                self._part_bytes = part_bytes // 2
            else:
                producer.commit_transaction()
                return

    def _send(self, producer: KafkaProducer, parts: Iterable[Message]) -> None:
        outstanding: deque[tuple[Any, int]] = deque()  # a producer buffers any number of parts
        for part in parts:
            self._stop.check()
            if len(outstanding) == OUTSTANDING_PARTS:
                self._delivered(*outstanding.popleft())
            size = len(part.value)
            try:
                future = producer.send(self._topic, part.value, headers=part.headers, partition=0)
            except KafkaError as error:  # also where an earlier part was refused
                raise TopicError(self._topic, error, size) from None
            outstanding.append((future, size))
        while outstanding:
            self._delivered(*outstanding.popleft())

    def _delivered(self, future: Any, size: int) -> None:
        """Wait until the brokers have a record; an error names its topic and size."""
        try:
            future.get(timeout=TRANSACTION_SECONDS)
        except KafkaError as error:
            raise TopicError(self._topic, error, size) from None
