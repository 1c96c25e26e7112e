"""Reads back the predictions that labels may still come for, from the prediction topic.

It happens in steps between units, so that the group membership is kept and predicting goes on. What
is predicted meanwhile is read back, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from predictor.marks import Marks
from predictor.outputs import short_seal
from predictor.result import Result
from predictor.settings import PredictorSettings
from predictor.state import State
from stream import refusals
from stream.kafka_workarounds import progress
from stream.reading import bounds
from stream.records import RecordError, decode_prediction
from stream.seal import ShortSeal, own_seal
from stream.service import Stop, Warnings

log = logging.getLogger("predictor")

STEP_SECONDS = 0.2
MOST_RECORDS = 2_000
"""Records that are taken in before the clock is looked at."""


@dataclass
class _Reading:
    """A partition that is read back.

    Attributes
    ----------
    at : int
        The next offset to read.
    end : int or None
        What has to be reached; ``None`` if there may be more by now.
    """

    state: State
    at: int
    end: int | None
    began: float
    read: int = 0


class Rebuild:
    """Fills the states of partitions that were taken over.

    Parameters
    ----------
    reader : KafkaConsumer
        May be used for something else before `begin`.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        admin: KafkaAdminClient,
        reader: KafkaConsumer,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._reader = reader
        self._stop = stop
        self._warnings = Warnings(log)
        self._seal = own_seal(settings, log, make=True)
        self._short: ShortSeal | None = None
        self._readings: dict[int, _Reading] = {}
        self._marks: dict[int, Marks] = {}

    def begin(
        self, new: Mapping[int, State], kept: Collection[int], incarnation: str | None
    ) -> None:
        """Read back what partitions know.

        Parameters
        ----------
        new : mapping of int to State
            Partitions whose known predictions are read back.
        kept : collection of int
            Partitions that know theirs; a rebuild that had begun goes on. All others are gone.
        incarnation : str or None
            Id of the data topic.

        Raises
        ------
        KafkaError
            When the end of the prediction topic is not known; nothing was changed then.
        """
        ends = {partition: self._end(partition) for partition in new}
        self._short = short_seal(self._seal, self._settings, incarnation)
        self._marks = {p: marks for p, marks in self._marks.items() if p in kept}
        self._readings = {p: reading for p, reading in self._readings.items() if p in kept}
        for partition, state in new.items():
            end = ends[partition]
            if state.tally.known_from is None:  # of the version before, or nothing is known
                state.tally.known_from = end
            start = state.tally.known_from
            self._marks[partition] = Marks(start)
            self._readings[partition] = _Reading(state, start, end, time.monotonic())
            state.rebuilding = True
        self._assign()
        self._finish()

    @property
    def unfinished(self) -> bool:
        """Whether there is something left to read."""
        return bool(self._readings)

    def step(self) -> None:
        """Read for `STEP_SECONDS` at most, or until nothing more comes."""
        until = time.monotonic() + STEP_SECONDS
        try:
            while self._readings and time.monotonic() < until:
                polled = self._reader.poll(timeout_ms=20, max_records=MOST_RECORDS)
                for place, records in polled.items():
                    self._take(place.partition, records)
                self._finish()
                if not polled:
                    return
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            for partition, reading in self._readings.items():  # retention was faster
                start = bounds(self._reader, self._place(partition), self._stop)[0]
                reading.at = max(reading.at, start)
            self._assign()
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            topic = self._settings.prediction_topic
            self._warnings.warn("rebuild", f"reading {topic}: {error!r}; retrying")

    def committed(self, result: Result, offsets: Iterable[int]) -> None:
        """Take in a result that is committed, with the offset of each prediction on its topic."""
        for (prediction, _), offset in zip(result.predictions, offsets, strict=True):
            partition, source = prediction.source
            # Where predictions are still read back, so is this one.
            if prediction.outcome is None and offset >= 0 and partition not in self._readings:
                self._marks[partition].add(source, offset)
        for partition, state in result.states.items():
            self._marks[partition].expire(state.tally.expired_to)
        for reading in self._readings.values():
            reading.end = None

    def known_from(self, partition: int, expired_to: int) -> int:
        """Return an offset from which on all predictions stand that are not expired."""
        return self._marks[partition].known_from(expired_to)

    def _take(self, partition: int, records: Sequence[Any]) -> None:
        reading, marks = self._readings[partition], self._marks[partition]
        reading.read += len(records)
        for record in records:
            if self._short and not self._short.holds(record.value, record.headers):
                continue  # not this group's, or of another data topic
            with suppress(RecordError):
                prediction = decode_prediction(record.value)
                if prediction.source[0] == partition:
                    reading.state.restore(prediction)
                    if prediction.outcome is None:
                        marks.add(prediction.source[1], record.offset)
        if records:
            reading.at = records[-1].offset + 1

    def _finish(self) -> None:
        """End each rebuild that has reached the end of the topic."""
        found = progress(self._reader)
        finished = []
        for partition, reading in self._readings.items():
            at = found.get(self._place(partition))
            reading.at = max(reading.at, at.position if at else 0)
            if reading.end is None and at and at.position >= at.readable:
                reading.end = self._end(partition)
            if reading.end is not None and reading.at >= reading.end:
                finished.append(partition)
        for partition in finished:
            self._tell(partition, self._readings.pop(partition))
        if finished:
            self._assign()

    def _tell(self, partition: int, reading: _Reading) -> None:
        gone, tally = reading.state.rebuilt(), reading.state.tally
        if reading.read:
            log.info(
                "partition %d: %d predictions wait for their labels; %d records were read back in"
                " %.1f s",
                partition,
                tally.waiting,
                reading.read,
                time.monotonic() - reading.began,
            )
        if gone:
            log.warning(
                "partition %d: %d waiting predictions are no longer on %s; they are expired",
                partition,
                gone,
                self._settings.prediction_topic,
            )

    def _assign(self) -> None:
        self._reader.assign([self._place(partition) for partition in self._readings])
        for partition, reading in self._readings.items():
            self._reader.seek(self._place(partition), reading.at)

    def _end(self, partition: int) -> int:
        """Return where the topic ends, with records whose transaction is still to be marked."""
        place = self._place(partition)
        ask = partial(self._admin.list_partition_offsets, {place: OffsetSpec.LATEST})
        return int(self._stop.until_stopped(ask)[place].offset)

    def _place(self, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.prediction_topic, partition)
