"""The labels of records that got theirs later, as the commands read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from heapq import merge
from itertools import chain
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from msgspec.structs import replace

from modelgenerator.join import WAITING, Join
from modelgenerator.publish.newest import Found
from modelgenerator.settings import Settings
from stream import clients, layout, reading
from stream.records import RecordError, decode_label, decode_record
from stream.service import Stop

_NONE = 2


class LateLabels:
    """The labels that came later for a range of records of one partition; a byte a record.

    Records and labels are read in the order of their timestamps, so that a label by an id that
    repeats is of the record that was the newest then. Texts are read by the newest schema.

    Parameters
    ----------
    consumer : KafkaConsumer
        Reads the records.
    first, end : int
        Offsets of the data topic, `end` not included.

    Raises
    ------
    KafkaError
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        settings: Settings,
        partition: int,
        first: int,
        end: int,
        stop: Stop,
    ) -> None:
        self._first, self._labels = first, bytearray()
        place = TopicPartition(settings.label_topic, partition)
        if partition not in (consumer.partitions_for_topic(place.topic) or ()) or first >= end:
            return
        self._labels = bytearray([_NONE]) * (end - first)
        join, data = Join(WAITING), TopicPartition(settings.data_topic, partition)
        with clients.closing(clients.consumer(settings, max_poll_records=5_000)) as other:
            records = reading.read_range(consumer, data, first, end, stop)
            self._layout = layout.of(reading.newest_schema(other, settings, stop))
            oldest = next(records, None)
            if oldest is None:
                return
            labels = _since(other, place, oldest.timestamp, stop)
            for record in merge(
                chain([oldest], records), labels, key=lambda each: int(each.timestamp)
            ):
                with suppress(RecordError):
                    self._take(join, record, of_data=record.topic == data.topic)

    def of(self, offset: int) -> int | None:
        """Return the label of a record, ``None`` where none came."""
        at = offset - self._first
        label = self._labels[at] if 0 <= at < len(self._labels) else _NONE
        return None if label == _NONE else label

    def _take(self, join: Join, record: Any, of_data: bool) -> None:
        if of_data:
            join.read(record.partition, record.offset)
            found = self._layout.read(decode_record(record.value))
            place = record.partition, record.offset
            if found.label is not None:
                join.remember(*place, found.id)
                return
            joined = join.add(*place, found.id, b"", record.timestamp)
        else:
            label = decode_label(record.value)
            label = replace(label, label=self._layout.label(label.label))
            joined = join.match(record.partition, label)
        at = joined.offset - self._first if joined else -1
        in_range = 0 <= at < len(self._labels)
        if joined and in_range and (joined.revises or self._labels[at] == _NONE):
            self._labels[at] = joined.label


def _since(client: KafkaConsumer, place: TopicPartition, time: int, stop: Stop) -> Iterator[Any]:
    """Return the labels that are not older than a timestamp, in ms."""
    _, end = reading.bounds(client, place, stop)
    return reading.read_range(client, place, reading.offset_at(client, place, time, end), end, stop)


def with_late_labels(
    consumer: KafkaConsumer, settings: Settings, found: list[Found], stop: Stop
) -> list[Found]:
    """Return records with the labels that came later for them."""
    offsets: dict[int, list[int]] = {}
    for each in found:
        offsets.setdefault(each.partition, []).append(each.offset)
    labels = {
        partition: LateLabels(consumer, settings, partition, min(some), max(some) + 1, stop)
        for partition, some in offsets.items()
    }
    return [
        each
        if each.record.label is not None
        else each._replace(
            record=replace(each.record, label=labels[each.partition].of(each.offset))
        )
        for each in found
    ]
