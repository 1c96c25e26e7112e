"""The newest outcomes of the prediction topic: which records have got labels that came later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.settings import Settings
from stream import clients
from stream.reading import newest
from stream.records import Prediction, RecordError, decode_prediction
from stream.service import Stop

LOOKED_AT = 1_000_000
"""Latest offsets of each partition among which outcomes are looked for."""


def newest_outcomes(settings: Settings, stop: Stop) -> list[Prediction]:
    """Return the newest ``WINDOW`` outcomes whose labels came, by rising timestamp.

    Raises
    ------
    KafkaError, Stopped
    """
    found: list[tuple[int, Prediction]] = []
    latest: deque[tuple[int, Prediction]] = deque(maxlen=settings.window)

    def choose(records: Iterator[Any]) -> bool | None:
        latest.clear()  # of a shorter range
        for record in records:
            with suppress(RecordError):
                prediction = decode_prediction(record.value)
                if prediction.labelled:
                    latest.append((record.timestamp, prediction))
        return len(latest) == settings.window or None

    with clients.closing(clients.consumer(settings, max_poll_records=5_000)) as consumer:
        labels = _places(consumer, settings.label_topic)
        if not any(consumer.end_offsets(labels, clients.REQUEST_TIMEOUT_MS).values()):
            return []
        for place in _places(consumer, settings.prediction_topic):
            latest.clear()
            newest(consumer, place, choose, stop, LOOKED_AT)
            found += latest
    return [each for _, each in sorted(found, key=lambda one: one[0])[-settings.window :]]


def _places(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic) or ())]
