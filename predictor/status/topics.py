"""What the topics say now: only what the window needs is read of them, backwards from the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from tqdm import tqdm

from predictor.settings import PredictorSettings
from predictor.tally import Tally
from quality.quality import Quality
from quality.windows import TimeWindow
from stream import clients, reading
from stream.follower import Follower, Said
from stream.model_topic import ModelTopic
from stream.records import (
    RecordError,
    Status,
    decode_prediction,
    decode_rejected,
    decode_status,
)
from stream.seal import decode_sealed, own_seal
from stream.service import Fatal, Stop
from stream.topics import partition_counts

STATUSES = 1_000
"""Latest records of the status topic that are read."""

LAST = 3
"""How many refusals and rejected records are kept to show them."""

COMMITTED_TIMEOUT_MS = 30_000
"""Longer than the transaction of a killed predictor stays open."""

DESCRIBED = 10
"""How many of the newest models are looked up on the model topic."""

MODEL_SECONDS = 5.0
"""Longest that they are searched there."""


class Standing(NamedTuple):
    """Where the group stands in a partition of the data topic.

    Attributes
    ----------
    committed : int or None
        The next record; ``None`` before the first commit.
    end : int
        The offset after the last record.
    lag : int
        Offsets that are not predicted yet.
    tally : Tally or None
        ``None`` where none is committed.
    """

    partition: int
    committed: int | None
    end: int
    lag: int
    tally: Tally | None


class Topics:
    """Follows the output topics; connected until the stack closes.

    Attributes
    ----------
    quality : Quality
        Has the one window that was asked for.
    rejections : deque of Said
        The last rejected records.

    Raises
    ------
    Fatal
        When a topic is missing.
    """

    def __init__(self, settings: PredictorSettings, seconds: float, stack: ExitStack) -> None:
        self._settings = settings
        self._stop = Stop()
        self._admin = stack.enter_context(clients.closing(clients.admin(settings)))
        wanted = [settings.data_topic, settings.prediction_topic, settings.rejected_topic]
        found = partition_counts(
            self._admin, [*wanted, settings.status_topic, settings.model_topic]
        )
        if missing := [topic for topic in wanted if topic not in found]:
            raise Fatal(f"{settings.kafka_bootstrap_servers}: no topic {', '.join(missing)}")
        self._has_statuses = settings.status_topic in found

        def consumer(**options: Any) -> KafkaConsumer:
            return stack.enter_context(clients.closing(clients.consumer(settings, **options)))

        self._group = consumer(group_id=settings.group_id)
        self._other = consumer()
        self._models: ModelTopic | None = None
        trusted = None if settings.allow_unsigned_models else settings.trusted_keys
        if settings.model_topic in found and (trusted is None or any(trusted.glob("*.pem"))):
            self._models = ModelTopic(settings, consumer(), self._stop, trusted)
        self.quality = Quality([TimeWindow(seconds)])
        self.rejections: deque[Said] = deque(maxlen=LAST)
        self._follower = Follower(
            consumer(max_poll_records=5_000),
            {
                settings.prediction_topic: decode_prediction,
                settings.rejected_topic: decode_rejected,
            },
            self.window.start(1_000 * time.time()),
        )

    @property
    def window(self) -> TimeWindow:
        """The window that was asked for."""
        (window,) = self.quality.times.values()
        return window

    @property
    def limited(self) -> bool:
        """Whether the window has more records than are read."""
        return bool(self._follower.limited)

    def update(self) -> None:
        """Read what was written until now.

        Raises
        ------
        KafkaError
        """
        ends = self._follower.ends()
        left, silent_since = self._follower.left(ends), time.monotonic()
        with tqdm(total=left, unit=" records", disable=None, leave=False, delay=1) as progress:
            while left:
                for said in self._follower.poll():
                    self._add(said)
                now = self._follower.left(ends)
                progress.update(left - now)
                if now != left:
                    silent_since = time.monotonic()
                elif time.monotonic() - silent_since > reading.SILENCE_SECONDS:
                    raise KafkaTimeoutError(
                        f"no record of the outputs within {reading.SILENCE_SECONDS:g} s"
                    )
                left = now

    def standings(self) -> list[Standing]:
        """Return where the group stands in each partition."""
        topic = self._settings.data_topic
        partitions = partition_counts(self._admin, [topic])[topic]
        return [self._standing(TopicPartition(topic, number)) for number in range(partitions)]

    def refusals(self) -> list[Said]:
        """Tell the quality which models serve and are barred; return the last refusals.

        Without the predictors' secret, statuses count as they stand.
        """
        found: deque[Said] = deque(maxlen=LAST)
        for time_ms, status in self._statuses():
            self.quality.told(status, time_ms)
            if status.status != "serving":
                found.append(Said(time_ms, status))
        return list(found)

    def describe(self) -> None:
        """Tell the quality what its newest models are; where no key is trusted, nothing is read."""
        serving = self.quality.serving
        if serving is None or self._models is None or self.quality.model(serving).algorithm:
            return
        oldest = sorted(self.quality.served)[-DESCRIBED:][0]
        with suppress(KafkaError):  # it is not found in time
            self._models.newest(lambda model: model.version <= oldest, MODEL_SECONDS)
        for model in self._models.index.models():
            if model.version in self.quality.served:
                served = self.quality.model(model.version)
                served.algorithm, served.reason = model.envelope.algorithm, model.envelope.reason

    def _add(self, said: Said) -> None:
        record, now_ms = said.record, 1_000 * time.time()
        if said.topic == self._settings.prediction_topic:
            self.quality.predicted(record, said.time_ms, now_ms)
        else:
            source = (record.source[0], record.last)
            self.quality.rejected(source, record.reason, said.time_ms, now_ms)
            self.rejections.append(said)

    def _standing(self, place: TopicPartition) -> Standing:
        start, end = reading.bounds(self._other, place)
        found = self._group.committed(place, metadata=True, timeout_ms=COMMITTED_TIMEOUT_MS)
        if found is None:
            return Standing(place.partition, None, end, end - start, None)
        tally = None
        with suppress(RecordError):
            tally = Tally.from_metadata(found.metadata)
        lag = max(0, end - max(start, found.offset))
        return Standing(place.partition, found.offset, end, lag, tally)

    def _statuses(self) -> Iterator[tuple[int, Status]]:
        if not self._has_statuses:
            return
        place, seal = TopicPartition(self._settings.status_topic, 0), own_seal(self._settings)
        start, end = reading.bounds(self._other, place)
        first = max(start, end - STATUSES)
        for record in reading.read_range(self._other, place, first, end, self._stop):
            with suppress(RecordError):
                sealed = seal and decode_sealed(decode_status, record, seal)
                yield record.timestamp, sealed or decode_status(record.value)
