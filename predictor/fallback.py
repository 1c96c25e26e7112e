"""Where to go on when the committed offset of a partition is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from kafka import KafkaConsumer, TopicPartition

from predictor.tally import Tally
from stream import clients
from stream.records import RecordError, decode_prediction, decode_rejected
from stream.service import Stop
from stream.settings import StreamSettings

T = TypeVar("T")


class Position(NamedTuple):
    """Where a partition goes on.

    Attributes
    ----------
    offset : int
        The next record to predict.
    tally : Tally
    never_seen : int
        Records between the last one predicted and `offset` that are gone.
    """

    offset: int
    tally: Tally
    never_seen: int


def from_outputs(
    reader: KafkaConsumer, settings: StreamSettings, partition: int, stop: Stop
) -> Position | None:
    """Take counts and position over from what was published last.

    Returns
    -------
    Position or None
        ``None`` when nothing was ever published of this partition.
    """
    prediction = clients.newest(
        reader,
        TopicPartition(settings.prediction_topic, partition),
        partial(_last, decode_prediction),
        stop,
    )
    rejected = clients.newest(
        reader,
        TopicPartition(settings.rejected_topic, partition),
        partial(_last, decode_rejected),
        stop,
    )
    outputs = [found for found in (prediction, rejected) if found is not None]
    if not outputs:
        return None
    tally = Tally(carried=(0, 0))
    if prediction is not None:
        last = prediction.content
        tally = Tally(model=last.model, carried=(last.n, last.correct))
    place = TopicPartition(settings.data_topic, partition)
    bounds = clients.bounds(reader, place)
    first = next(clients.read_range(reader, place, *bounds, stop), None)
    if first is not None and first.timestamp > max(found.timestamp for found in outputs):
        # Younger than all that was published: the topic was made again.
        return Position(bounds[0], tally, 0)
    return on_the_topic(bounds, max(found.content.source[1] for found in outputs) + 1, tally)


def on_the_topic(bounds: tuple[int, int], offset: int, tally: Tally) -> Position:
    """Go on at `offset` if the data topic still has it, else at its beginning.

    Parameters
    ----------
    bounds : tuple of int
        First offset of the data partition, and the one after its last.
    offset : int
        The next record to predict.
    tally : Tally
    """
    beginning, end = bounds
    if beginning <= offset <= end:
        return Position(offset, tally, 0)
    # Behind the end: the topic was made again, and how much of the old one is missing is unknown.
    return Position(beginning, tally, max(0, beginning - offset))


class _Output(NamedTuple, Generic[T]):
    content: T
    timestamp: int


def _last(decode: Callable[[bytes | None], T], records: list[Any]) -> _Output[T] | None:
    """Return the last record that can be decoded, with its milliseconds."""
    for record in reversed(records):
        with suppress(RecordError):  # somebody else's record
            return _Output(decode(record.value), record.timestamp)
    return None
