"""Where to go on when the committed offset of a partition is lost."""

from __future__ import annotations

from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from predictor.tally import Tally
from stream import clients
from stream.records import Prediction, RecordError, Rejected, decode_prediction, decode_rejected
from stream.service import Stop
from stream.settings import StreamSettings


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
        reader, TopicPartition(settings.prediction_topic, partition), _last_prediction, stop
    )
    rejected = clients.newest(
        reader, TopicPartition(settings.rejected_topic, partition), _last_rejected, stop
    )
    if prediction is None and rejected is None:
        return None
    tally = Tally()
    if prediction is not None:
        tally = Tally(model=prediction.model, carried=(prediction.n, prediction.correct))
    sources = [found.source[1] for found in (prediction, rejected) if found is not None]
    place = TopicPartition(settings.data_topic, partition)
    return on_the_topic(clients.bounds(reader, place), max(sources) + 1, tally)


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


def _last_prediction(records: list[Any]) -> Prediction | None:
    for record in reversed(records):
        try:
            return decode_prediction(record.value)
        except RecordError:
            continue
    return None


def _last_rejected(records: list[Any]) -> Rejected | None:
    for record in reversed(records):
        try:
            return decode_rejected(record.value)
        except RecordError:
            continue
    return None
