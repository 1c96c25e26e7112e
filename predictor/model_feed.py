"""Models as they arrive: checked and unpickled beside the loop, then served by one assignment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from predictor.settings import PredictorSettings
from stream import classifier, clients
from stream.classifier import Model
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, Part, unpack, verify
from stream.records import (
    RecordError,
    Schema,
    Status,
    decode_schema,
    decode_status,
    encode_status,
)
from stream.service import DeadlineExceeded, Fatal, Stop, Stopped, Warnings

_STATUS_TIMEOUT_SECONDS = 15.0


class ModelFeed:
    """Reads the model topic on a thread; the loop takes `current` between two units.

    Parameters
    ----------
    settings : PredictorSettings
    stop : Stop
    log : logging.Logger

    Attributes
    ----------
    current : Model or None
        The model to serve.
    previous : Model or None
        The one served before it.
    barred : set of int
        Versions taken out of service, by this predictor or another.
    swaps : int
        How often a model was replaced.
    refused : int
        How often a model, or a record that is none, was refused.
    """

    def __init__(self, settings: PredictorSettings, stop: Stop, log: logging.Logger) -> None:
        self.current: Model | None = None
        self.previous: Model | None = None
        self.barred: set[int] = set()
        self.swaps = 0
        self.refused = 0
        self._settings = settings
        self._stop = stop
        self._log = log
        self._warnings = Warnings(log)
        self._trusted = TrustedKeys(settings.trusted_keys)
        self._schema: Schema | None = None
        self._refused: set[int] = set()
        self._swap = threading.Lock()
        self._search_again = False
        self._failure: BaseException | None = None
        self._producer: KafkaProducer | None = None
        self._thread = threading.Thread(target=self._run, name="model feed", daemon=True)

    def __enter__(self) -> ModelFeed:
        if self._settings.allow_unsigned_models:
            self._log.warning(
                "ALLOW_UNSIGNED_MODELS=1: whoever can write %s runs code in this process",
                self._settings.model_topic,
            )
        self._producer = clients.connect(
            lambda: clients.producer(self._settings), self._settings, self._stop, self._log
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(self._producer)

    def serve(self) -> Model | None:
        """Return the model to predict the next unit with, ``None`` while there is none.

        Raises
        ------
        Fatal
            When the thread that reads the models has ended.
        """
        if isinstance(self._failure, Fatal):
            raise self._failure
        if self._failure:
            raise Fatal(f"the model feed ended: {self._failure!r}")
        return self.current

    def bar(self, model: Model, reason: str) -> None:
        """Take a model out of service, on record, before another one predicts in its place."""
        self._log.error("barred model %d: %s", model.version, reason)
        self._publish(Status(model.version, "barred", {}, reason, self._settings.replica))
        self._bar(model.version)

    def served(self, model: Model, since: dict[str, int]) -> None:
        """Put on record since which offsets a model predicts."""
        with suppress(KafkaError):  # the predictions themselves say it too
            self._send(Status(model.version, "serving", since, None, self._settings.replica))

    def _bar(self, version: int) -> None:
        with self._swap:
            self.barred.add(version)
            if self.current and self.current.version == version:
                self.current, self.previous = self.previous, None
            if self.previous and self.previous.version == version:
                self.previous = None
            self._search_again = self.current is None

    def _publish(self, status: Status) -> None:
        """Send a status and wait until the broker has it."""
        while True:
            try:
                future = self._send(status)
                self._stop.deadline(
                    _STATUS_TIMEOUT_SECONDS, partial(future.get, _STATUS_TIMEOUT_SECONDS)
                )
            except (KafkaError, DeadlineExceeded) as error:
                self._stop.check()
                clients.give_up_if_refused(error, self._settings, "Write")
                self._warnings.warn("status", f"{self._settings.status_topic}: {error!r}")
                self._make_topics()
            else:
                return

    def _make_topics(self) -> None:
        make = partial(clients.make_topics, self._settings, self._log)
        clients.connect(make, self._settings, self._stop, self._log)

    def _send(self, status: Status) -> Any:
        assert self._producer is not None
        topic, value = self._settings.status_topic, encode_status(status)
        # As long as the client knows no broker that has the topic, it waits for one.
        future = self._stop.heeded(partial(self._producer.send, topic, value, partition=0))
        return future.add_errback(self._not_sent)

    def _not_sent(self, error: BaseException) -> None:
        if line := clients.refusal(error, self._settings, "Write"):
            self._failure = Fatal(line)

    def _run(self) -> None:
        # Unpickling the first model would load it anyway; by then the wait for the model is over.
        import_module("sklearn.ensemble")
        try:
            while not self._stop:
                try:
                    self._follow()
                except (KafkaError, OSError) as error:
                    clients.give_up_if_refused(error, self._settings)
                    self._warnings.warn("feed", f"reading the models: {error!r}; trying again")
                    self._stop.wait(1.0)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the loop has to learn of it, whatever it is
            self._failure = error

    def _follow(self) -> None:
        settings, self._search_again = self._settings, False
        topics = (settings.schema_topic, settings.status_topic, settings.model_topic)
        consumer = clients.connect(
            lambda: clients.consumer(settings), settings, self._stop, self._log
        )
        try:
            places = [TopicPartition(topic, 0) for topic in topics]
            ends = {place: clients.bounds(consumer, place)[1] for place in places}
            for place, read in zip(places[:2], (self._read_schema, self._read_status), strict=True):
                start = clients.bounds(consumer, place)[0]
                for record in clients.read_range(consumer, place, start, ends[place], self._stop):
                    read(record)
            self._find_newest(consumer, places[2], ends[places[2]])
            consumer.assign(places)
            for place, end in ends.items():
                consumer.seek(place, end)
            readers: dict[str, Callable[..., None]] = {
                settings.schema_topic: self._read_schema,
                settings.status_topic: self._read_status,
                settings.model_topic: _ModelReader(self).read,
            }
            while not self._stop and not self._search_again:
                for place, records in consumer.poll(timeout_ms=200, max_records=10).items():
                    for record in records:
                        readers[place.topic](record)
        finally:
            clients.close(consumer)

    def _find_newest(self, consumer: KafkaConsumer, place: TopicPartition, end: int) -> None:
        """Look back for the newest model that can be served, without reading all the older ones."""
        beginning, before = clients.bounds(consumer, place)[0], self.current
        start, length = end, 8
        while start > beginning and not self._stop:
            start, length = max(beginning, end - length), 8 * length
            while True:
                reader = _ModelReader(self, offer=False)
                for record in clients.read_range(consumer, place, start, end, self._stop):
                    reader.read(record)
                if reader.best is None or self.offer(*reader.best):
                    break  # else it was refused: the next best of the same stretch
            if self.current is not before or reader.reached:
                return

    def offer(self, envelope: Envelope, pickle: bytes) -> bool:
        """Serve a model if it is newer than the one being served and passes every check."""
        if not self.wanted(envelope):
            return False
        try:
            classifier.check(
                envelope, self._schema, self.current.envelope.features if self.current else None
            )
            model = classifier.load_within(self._settings, self._stop, envelope, pickle)
        except ModelError as error:
            self.refuse(str(error), envelope)
            return False
        with self._swap:
            if self.current:
                self.swaps += 1
                self.previous = self.current
            self.current = model
        self._log.info(
            "model %d (%s) is next, trained on %d records",
            model.version,
            envelope.recipe,
            envelope.trained_on,
        )
        return True

    def wanted(self, envelope: Envelope) -> bool:
        """Tell whether a model would be served if it passes the checks."""
        newest = self.current.version if self.current else 0
        return (
            envelope.version > newest
            and envelope.version not in self.barred
            and envelope.version not in self._refused
        )

    def refuse(self, reason: str, envelope: Envelope | None = None, offset: int = -1) -> None:
        """Say once that a model is not served; on record, where its envelope can be believed."""
        self.refused += 1
        if envelope is None:
            self._warnings.warn(
                f"refused {reason}",  # whoever can write there could otherwise fill the log
                f"refused {self._settings.model_topic} offset {offset}: {reason}",
            )
            return
        self._refused.add(envelope.version)
        self._log.warning("refused model %d: %s", envelope.version, reason)
        self._send(Status(envelope.version, "refused", {}, reason, self._settings.replica))

    def part(self, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> Part:
        """Read one record of the model topic, its signature first.

        Raises
        ------
        ModelError
        """
        if value is None:
            raise ModelError("value: expected a model, got null")
        if not self._settings.allow_unsigned_models:
            verify(value, list(headers), self._trusted)
        return unpack(value)

    def _read_schema(self, record: Any) -> None:
        try:
            self._schema = decode_schema(record.value)
        except RecordError as error:
            self._log.warning("%s offset %d: %s", record.topic, record.offset, error)

    def _read_status(self, record: Any) -> None:
        try:
            status = decode_status(record.value)
        except RecordError as error:
            self._log.warning("%s offset %d: %s", record.topic, record.offset, error)
            return
        if status.status == "barred":
            self._bar(status.version)


class _ModelReader:
    """Puts the records of the model topic together, and offers or remembers the best model.

    Parameters
    ----------
    feed : ModelFeed
    offer : bool
        Whether a whole model is offered at once; otherwise the newest is kept as `best`.

    Attributes
    ----------
    best : tuple of Envelope and bytes, or None
    reached : bool
        Whether the model being served, or an older one, was among what was read.
    """

    def __init__(self, feed: ModelFeed, offer: bool = True) -> None:
        self._feed = feed
        self._offer = offer
        self._assembler = Assembler(feed._settings.model_max_bytes, self._given_up)
        self.best: tuple[Envelope, bytes] | None = None
        self.reached = False

    def read(self, record: Any) -> None:
        envelope = None
        try:
            part = self._feed.part(record.value, record.headers)
            envelope = part.envelope
            current = self._feed.current
            self.reached |= current is not None and envelope.version <= current.version
            if not self._feed.wanted(envelope):
                return
            whole = self._assembler.add(part)
        except ModelError as error:
            self._feed.refuse(str(error), envelope, record.offset)
            return
        if whole is None:
            return
        if self._offer:
            self._feed.offer(*whole)
        elif self.best is None or whole[0].version > self.best[0].version:
            self.best = whole

    def _given_up(self, envelope: Envelope, reason: str) -> None:
        self._feed.refuse(reason, envelope)
