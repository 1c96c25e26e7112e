"""Where a partition goes on: at its committed offset, or where that is lost, after its outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from kafka import KafkaConsumer, TopicPartition

from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import reading
from stream.records import (
    Prediction,
    RecordError,
    Rejected,
    decode_prediction,
    decode_rejected,
)
from stream.service import Stop

T = TypeVar("T")

INCARNATION = "incarnation"
"""Header of the last output of each partition in a unit: the id of the data topic it came from."""

GROUP = "group"
"""Header beside it: whose output it is; the topic of rejected records may be several groups'."""

LOOKED_BACK = 10_000
"""Rejected records among which one's own beyond the committed offset is looked for."""


class Position(NamedTuple):
    """Where a partition goes on.

    Attributes
    ----------
    offset : int
        The next record to predict.
    tally : Tally
    never_seen : int
        Records of the topic before `offset` that are gone and were not predicted.
    remark : str
        What became of the topic, where it is not as it was left.
    """

    offset: int
    tally: Tally
    never_seen: int
    remark: str = ""

    def __str__(self) -> str:
        remark = f"{self.remark}; " if self.remark else ""
        return f"{remark}going on at {self.offset}, {self.never_seen} records never seen"


def from_outputs(
    reader: KafkaConsumer,
    settings: PredictorSettings,
    partition: int,
    incarnation: str | None,
    stop: Stop,
) -> Position | None:
    """Take counts and position over from what was published last.

    Parameters
    ----------
    reader : KafkaConsumer
    settings : PredictorSettings
    partition : int
    incarnation : str or None
        Id of the data topic as it is now.
    stop : Stop

    Returns
    -------
    Position or None
        ``None`` when nothing was ever published of this partition.
    """
    prediction = _newest_prediction(reader, settings, partition, stop)
    rejected = _newest_rejected(reader, settings, partition, stop)
    outputs = [found for found in (prediction, rejected) if found is not None]
    if not outputs:
        return None
    # Of a topic that was made again there may be predictions while all rejected records are older.
    outputs = [found for found in outputs if found.incarnation == incarnation] or outputs
    last = max(outputs, key=lambda found: found.content.source[1])
    tally = Tally(carried=(0, 0), incarnation=last.incarnation)
    if prediction is not None:
        n, correct = prediction.content.n, prediction.content.correct
        tally = replace(tally, model=prediction.content.model, carried=(n, correct))
    bounds = reading.bounds(reader, TopicPartition(settings.data_topic, partition))
    return on_the_topic(bounds, last.content.source[1] + 1, tally, incarnation)


def answered_beyond(
    reader: KafkaConsumer,
    settings: PredictorSettings,
    partition: int,
    incarnation: str | None,
    offset: int,
    stop: Stop,
) -> int | None:
    """Return the offset of the record answered last if it is not below the committed `offset`.

    Both are committed together, so there is none unless a broker kept only half of a commit.
    """
    prediction = _newest_prediction(reader, settings, partition, stop)
    rejected = _newest_rejected(reader, settings, partition, stop, LOOKED_BACK)
    sources = [
        found.content.source[1]
        for found in (prediction, rejected)
        if found is not None and found.incarnation is not None and found.incarnation == incarnation
    ]
    last = max(sources, default=-1)
    return last if last >= offset else None


def on_the_topic(
    bounds: tuple[int, int], offset: int, tally: Tally, incarnation: str | None
) -> Position:
    """Go on at `offset` if the data topic still has it, else where nothing comes twice.

    Parameters
    ----------
    bounds : tuple of int
        First offset of the data partition, and the one after its last.
    offset : int
        The next record to predict.
    tally : Tally
        As it was at `offset`.
    incarnation : str or None
        Id of the data topic as it is now; ``None`` where the broker (before 2.8) gives none.
    """
    beginning, end = bounds
    same = tally.incarnation == incarnation
    known = tally.incarnation is not None and incarnation is not None
    tally = replace(tally, incarnation=incarnation)
    if (known and not same) or (not known and offset > end):
        return Position(beginning, tally, beginning, "the topic was made again")
    if offset > end:
        remark = f"the topic ends at {end}, its broker lost records that were predicted"
        return Position(end, tally, 0, remark)
    return Position(max(beginning, offset), tally, max(0, beginning - offset))


class _Output(NamedTuple, Generic[T]):
    content: T
    incarnation: str | None


def _newest_prediction(
    reader: KafkaConsumer, settings: PredictorSettings, partition: int, stop: Stop
) -> _Output[Prediction] | None:
    place = TopicPartition(settings.prediction_topic, partition)
    return reading.newest(reader, place, partial(_last, decode_prediction, settings.group_id), stop)


def _newest_rejected(
    reader: KafkaConsumer,
    settings: PredictorSettings,
    partition: int,
    stop: Stop,
    most: int | None = None,
) -> _Output[Rejected] | None:
    place = TopicPartition(settings.rejected_topic, partition)
    return reading.newest(
        reader, place, partial(_last, decode_rejected, settings.group_id), stop, most
    )


def _last(decode: Callable[[bytes | None], T], group: str, records: list[Any]) -> _Output[T] | None:
    """Return the last record of this group that can be decoded.

    Those without a mark belong to the next that has one.
    """
    own = True
    for record in reversed(records):
        headers = dict(record.headers)
        if GROUP in headers:
            own = headers[GROUP] == group.encode()
        if not own:
            continue
        with suppress(RecordError):  # somebody else's record
            found = headers.get(INCARNATION)
            return _Output(decode(record.value), found.decode() if found else None)
    return None
