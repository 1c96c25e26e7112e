"""Counted predictions and outcomes, read back from the prediction topic."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

from kafka import TopicPartition
from kafka.errors import KafkaError

from predictor.settings import PredictorSettings
from stream import clients, reading, refusals
from stream.records import Prediction, RecordError, decode_prediction
from stream.service import Stop

log = logging.getLogger("predictor")


class History:
    """Finds counted records of a partition by their count."""

    def __init__(self, settings: PredictorSettings, stop: Stop) -> None:
        self._settings = settings
        self._topic = settings.prediction_topic
        self._stop = stop
        self._reader = clients.connected(clients.consumer, settings, stop, log)

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(self._reader)

    def __call__(self, partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        """Yield what counts with `after` < n <= `upto`, with the milliseconds of its record.

        Parameters
        ----------
        after : int
            0 to begin ``LOG_BACKFILL`` predictions before the end, or at the first.

        Raises
        ------
        OSError
            When the topic cannot be read now.
        """
        try:
            yield from self._read(partition, after, upto)
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            raise OSError(f"{self._topic} cannot be read: {error!r}") from None

    def _read(self, partition: int, after: int, upto: int) -> Iterator[tuple[Prediction, int]]:
        place = TopicPartition(self._topic, partition)
        start, end = reading.bounds(self._reader, place)
        if after:
            start = self._first_above(place, after, start, end)
        else:
            start = max(start, end - self._settings.log_backfill)
        for record in reading.read_range(self._reader, place, start, end, self._stop):
            try:
                prediction = decode_prediction(record.value)
            except RecordError:
                continue  # somebody else's record
            if prediction.counts and after < prediction.n <= upto:
                yield prediction, record.timestamp

    def _first_above(self, place: TopicPartition, n: int, low: int, high: int) -> int:
        """Bisect for the first offset whose prediction has a count above `n`."""
        return low + bisect_right(
            range(low, high), float(n), key=lambda offset: self._n_at(place, offset, high)
        )

    def _n_at(self, place: TopicPartition, offset: int, end: int) -> float:
        """Return the count at the first prediction from `offset` on; offsets have gaps."""
        for record in reading.read_range(self._reader, place, offset, end, self._stop):
            with suppress(RecordError):
                return decode_prediction(record.value).n
        return math.inf
