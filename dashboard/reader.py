"""Reads the topics into the state of the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError

from dashboard.settings import DashboardSettings
from dashboard.state import DAY, State, decode_described
from quality.quality import MODELS
from stream import clients
from stream.follower import Follower, Said
from stream.records import (
    decode_label,
    decode_prediction,
    decode_record,
    decode_rejected,
    decode_status,
)
from stream.service import Stop

log = logging.getLogger("dashboard")

LOOK_SECONDS = 1.0
"""How often the ends of the topics are asked for, and the page gets what is new."""

RECORDS = 1_000
"""Records of a poll, so that a page that asks for a model is answered meanwhile."""

FIRST_RECORDS = 10_000
"""Newest records, and as many labels, from which is said what the first model needs."""

STATUSES = 1_000


@contextmanager
def reader(settings: DashboardSettings, state: State, stop: Stop) -> Iterator[Reader]:
    """Return what reads the topics, from a day ago on; it waits until a broker answers.

    Raises
    ------
    Fatal, KafkaError, Stopped
    """
    make = partial(clients.consumer, max_poll_records=RECORDS)
    with clients.closing(clients.connected(make, settings, stop, log)) as consumer:
        state.begin()
        yield stop.until_stopped(partial(Reader, settings, state, stop, consumer))


class Reader:
    """Follows the topics, and tells the state what they say.

    Raises
    ------
    KafkaError
        When the brokers do not answer, or what was read has to be read again.
    """

    def __init__(
        self, settings: DashboardSettings, state: State, stop: Stop, consumer: KafkaConsumer
    ) -> None:
        self._settings = settings
        self._state = state
        self._stop = stop
        self._next_look = 0.0
        self._caught_up = False
        decoders = {
            settings.prediction_topic: decode_prediction,
            settings.rejected_topic: decode_rejected,
            settings.status_topic: decode_status,
            settings.model_topic: decode_described,
            settings.data_topic: decode_record,
            settings.label_topic: decode_label,
        }
        most = {
            settings.status_topic: STATUSES,
            settings.model_topic: 2 * MODELS,
            settings.data_topic: FIRST_RECORDS,
            settings.label_topic: FIRST_RECORDS,
        }
        self._follower = Follower(consumer, decoders, 1_000 * (time.time() - DAY), most)

    def read(self) -> None:
        """Take in what has come, and once a second say how far it is."""
        come, now_ms = list(self._follower.poll()), 1_000 * time.time()
        with self._state.lock:
            for said in come:
                self._take(said, now_ms)
        if time.monotonic() >= self._next_look:
            self._look()

    def _take(self, said: Said, now_ms: float) -> None:
        settings, state = self._settings, self._state
        if said.topic == settings.prediction_topic:
            state.quality.predicted(said.record, said.time_ms, now_ms)
        elif said.topic == settings.rejected_topic:
            state.rejected(said, now_ms)
        elif said.topic == settings.status_topic:
            state.status(said)
        elif said.topic == settings.model_topic:
            state.described(said.record, said.time_ms)
        elif said.topic == settings.data_topic:
            state.first_model.written(said.record)
        else:
            state.first_model.labelled(said.record)

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_SECONDS
        settings = self._settings
        try:
            ends = self._stop.until_stopped(self._follower.ends)
            unread = self._follower.left(ends)
        except KafkaTimeoutError as error:
            self._state.lost(str(error))
            return
        if self._state.quality.serving is not None:
            self._follower.pause(settings.data_topic, settings.label_topic)
        self._caught_up = self._caught_up or not unread
        found = {place.topic for place in ends}
        wanted = (settings.data_topic, settings.prediction_topic, settings.rejected_topic)
        self._state.followed(
            {p.partition: end for p, end in ends.items() if p.topic == settings.data_topic},
            [topic for topic in wanted if topic not in found],
            0 if self._caught_up else unread,
            settings.prediction_topic in self._follower.limited,
        )
