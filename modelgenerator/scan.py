"""The records of a topic, partition by partition, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from tqdm import tqdm

from stream import reading
from stream.service import Stop


def scan(
    consumer: KafkaConsumer, topic: str, partitions: Iterable[int], last: int | None, stop: Stop
) -> Iterator[Any]:
    """Yield the records that stand there now.

    Parameters
    ----------
    last : int or None
        Yield only those among the newest so many offsets of each partition; ``None`` for all.
    """
    bounds = {}
    for number in sorted(partitions):
        place = TopicPartition(topic, number)
        start, end = reading.bounds(consumer, place)
        bounds[place] = (start if last is None else max(start, end - last), end)
    total = sum(end - start for start, end in bounds.values())
    with tqdm(total=total, desc=topic, unit=" records", disable=None, leave=False) as progress:
        for place, (before, end) in bounds.items():
            for record in reading.read_range(consumer, place, before, end, stop):
                yield record
                progress.update(record.offset + 1 - before)
                before = record.offset + 1
