"""The newest outcomes of the prediction topic: which records have got labels that came later."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.settings import Settings
from stream import clients
from stream.reading import bounds, newest, read_range
from stream.records import Prediction, RecordError, decode_prediction
from stream.service import Stop
from stream.topics import partition_counts

LOOKED_AT = 1_000_000
"""Latest offsets of each partition among which outcomes are looked for."""


def newest_outcomes(settings: Settings, stop: Stop) -> list[tuple[Prediction, bool]]:
    """Return the newest ``WINDOW`` outcomes whose labels came, by rising timestamp.

    Beside each stands whether its record may still be on the data topic. A record that is older
    than the oldest one there is gone: retention has deleted it, or the topic was recreated and has
    another record at that offset.

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

    topics = [settings.label_topic, settings.prediction_topic, settings.data_topic]
    with clients.closing(clients.admin(settings)) as admin:
        counts = partition_counts(admin, topics)
    labels, predictions, data = (
        [TopicPartition(topic, n) for n in range(counts.get(topic, 0))] for topic in topics
    )
    with clients.closing(clients.consumer(settings, max_poll_records=5_000)) as consumer:
        if not any(consumer.end_offsets(labels, clients.REQUEST_TIMEOUT_MS).values()):
            return []
        for place in predictions:
            latest.clear()
            newest(consumer, place, choose, stop, LOOKED_AT)
            found += latest
        oldest = {place.partition: _oldest(consumer, place, stop) for place in data}
    kept = [each for _, each in sorted(found, key=lambda one: one[0])[-settings.window :]]
    return [(each, (each.time or 0) >= oldest.get(each.source[0], math.inf)) for each in kept]


def _oldest(consumer: KafkaConsumer, place: TopicPartition, stop: Stop) -> float:
    """Return the timestamp of the first record of a partition, in ms."""
    records = read_range(consumer, place, *bounds(consumer, place, stop), stop)
    return next((float(record.timestamp) for record in records), math.inf)
