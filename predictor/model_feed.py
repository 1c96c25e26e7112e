"""Models as they arrive: checked and unpickled beside the loop, then served by one assignment."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from predictor.model_shelf import ModelShelf
from predictor.settings import PredictorSettings
from predictor.statuses import Statuses
from stream import classifier, clients, reading, refusals
from stream.keys import TrustedKeys
from stream.models import Assembler, Envelope, ModelError, Part, unpack, verify
from stream.records import (
    RecordError,
    Schema,
    decode_schema,
    decode_status,
)
from stream.service import Fatal, Stop, Stopped, Warnings

LOOK_SECONDS = 1.0
"""How often the folder of trusted keys is looked at."""

_STATUS_TIMEOUT_SECONDS = 15.0


class ModelFeed:
    """Reads schema, statuses and models on a thread, and puts models on the shelf.

    Parameters
    ----------
    shelf : ModelShelf
    statuses : Statuses
        Where it is put on record that a model is refused.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        shelf: ModelShelf,
        statuses: Statuses,
        stop: Stop,
        log: logging.Logger,
    ) -> None:
        self._settings = settings
        self.shelf = shelf
        self._statuses = statuses
        self._stop = stop
        self._log = log
        self._warnings = Warnings(log)
        self._trusted = TrustedKeys(settings.trusted_keys)
        self._schema: Schema | None = None
        self._torn: set[int] = set()
        self._passed_over: dict[str, set[int]] = {}
        self._keys: frozenset[str] | None = None
        self._next_look = 0.0
        self._searched = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="model feed", daemon=True)

    def __enter__(self) -> ModelFeed:
        if self._settings.allow_unsigned_models:
            self._log.warning(
                "ALLOW_UNSIGNED_MODELS=1: whoever can write %s runs code in this process",
                self._settings.model_topic,
            )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The thread ends by itself when the service is told to end."""

    def check(self) -> None:
        """Wait until the model topic was searched once, and check that the thread still runs.

        A replica that joins the group before it has loaded its model would take partitions from
        others that predict them meanwhile.

        Raises
        ------
        Fatal
            When the thread has ended.
        """
        while not (self._searched or self._failure):
            self._stop.wait(0.05)
        if isinstance(self._failure, Fatal):
            raise self._failure
        if self._failure:
            raise Fatal(f"the model feed ended: {self._failure!r}")

    def _run(self) -> None:
        # Unpickling the first model would load it anyway; by then the wait for the model is over.
        import_module("sklearn.ensemble")
        try:
            while not self._stop:
                try:
                    self._follow()
                except (KafkaError, OSError) as error:
                    refusals.raise_if_refused(error, self._settings)
                    self._warnings.warn("feed", f"reading the models: {error!r}; trying again")
                    self._stop.wait(1.0)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the loop has to learn of it, whatever it is
            self._failure = error

    def _follow(self) -> None:
        settings = self._settings
        topics = (settings.schema_topic, settings.status_topic, settings.model_topic)
        consumer = clients.connect(
            lambda: clients.consumer(settings), settings, self._stop, self._log
        )
        try:
            places = [TopicPartition(topic, 0) for topic in topics]
            ends = {place: reading.bounds(consumer, place)[1] for place in places}
            for place, read in zip(places[:2], (self._read_schema, self._read_status), strict=True):
                start = reading.bounds(consumer, place)[0]
                for record in reading.read_range(consumer, place, start, ends[place], self._stop):
                    read(record)
            self._look_at_keys()
            self.shelf.search_needed = False
            self._find_newest(consumer, places[2], ends[places[2]])
            self._searched = True
            consumer.assign(places)
            for place, end in ends.items():
                consumer.seek(place, end)
            readers: dict[str, Callable[..., None]] = {
                settings.schema_topic: self._read_schema,
                settings.status_topic: self._read_status,
                settings.model_topic: _ModelReader(self).read,
            }
            while not self._stop and not self.shelf.search_needed:
                self._look_at_keys()
                for place, records in consumer.poll(timeout_ms=200, max_records=10).items():
                    for record in records:
                        readers[place.topic](record)
        finally:
            clients.close(consumer)

    def _look_at_keys(self) -> None:
        """Notice what was put into the folder of trusted keys, and what was taken away."""
        now = time.monotonic()
        if self._settings.allow_unsigned_models or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        found = self._trusted.fingerprints()
        if found != self._keys:
            self._log.info("%s", self._trusted)
            # Models that were not trusted when they came may be now.
            self.shelf.search_needed |= self._keys is not None and not found <= self._keys
            self._keys = found
        if (model := self.shelf.serve()[0]) and model.signer not in found:
            self._warnings.warn(
                "revoked",
                f"model {model.version} goes on serving until a newer one comes, though key"
                f" {model.signer} is no longer {self._trusted}",
            )

    def _find_newest(self, consumer: KafkaConsumer, place: TopicPartition, end: int) -> None:
        """Look back for the newest model that can be served, without reading all the older ones.

        What stands last need not be the newest: it may have been replayed. So it looks further
        back until nothing newer can stand before.
        """
        beginning = reading.bounds(consumer, place)[0]
        start, length = end, 8
        while start > beginning and not self._stop:
            start, length = max(beginning, end - length), 8 * length
            while True:
                reader = _ModelReader(self, start)
                for record in reading.read_range(consumer, place, start, end, self._stop):
                    reader.read(record)
                if not reader.best or (start > beginning and not reader.knows(reader.best[0])):
                    break
                if self.offer(*reader.best):
                    break  # else it was refused: the next best of the same stretch
            current = self.shelf.serve()[0]
            if current and reader.knows(current.envelope):
                break
        for reason, versions in self._passed_over.items():
            newest, more = max(versions), len(versions) - 1
            self._tell_refused(newest, reason, f" and {more} older ones" if more else "")
        self._passed_over = {}
        if end > beginning and not self.shelf.serve()[0]:
            self._log.warning("no model of %s can be served; waiting for one", place.topic)

    def offer(self, envelope: Envelope, pickle: bytes, signer: str) -> bool:
        """Serve a model if it is newer than the one being served and passes every check."""
        if not self.wanted(envelope):
            return False
        try:
            loaded = classifier.load_within(self._settings, self._stop, envelope, pickle)
        except ModelError as error:
            self.refuse(str(error), envelope)
            return False
        model = replace(loaded, signer=signer)
        if not self.shelf.put(model):
            return False
        self._log.info(
            "model %d (%s) is next, trained on %d records, signed by %s",
            model.version,
            envelope.recipe,
            envelope.trained_on,
            signer,
        )
        return True

    def wanted(self, envelope: Envelope) -> bool:
        """Tell whether a model would be served if it passes the checks."""
        return self.shelf.wanted(envelope.version)

    def check_fit(self, envelope: Envelope) -> None:
        """Check that a model fits the stream and this process.

        Raises
        ------
        ModelError
        """
        current = self.shelf.serve()[0]
        features = current.envelope.features if current else None
        classifier.check(envelope, self._schema, features)

    def pass_over(self, reason: str, envelope: Envelope) -> None:
        """Refuse one of many models that stand on the topic; they are told of together."""
        self.shelf.refuse(envelope.version)
        self._passed_over.setdefault(reason, set()).add(envelope.version)

    def refuse(self, reason: str, envelope: Envelope) -> None:
        """Say, once and on record, that a model is not served."""
        self.shelf.refuse(envelope.version)
        self._tell_refused(envelope.version, reason)

    def torn(self, reason: str, envelope: Envelope) -> None:
        """Say, once and on record, that a model came in pieces; it may yet come whole."""
        if envelope.version not in self._torn:
            self._torn.add(envelope.version)
            self.shelf.refused += 1
            self._tell_refused(envelope.version, reason)

    def warn_untrusted(self, reason: str, offset: int) -> None:
        """Say, once a minute whoever sends how many, that a record is nobody's whom we trust."""
        self.shelf.refused += 1
        topic = self._settings.model_topic
        self._warnings.warn(f"refused {reason}", f"refused {topic} offset {offset}: {reason}")

    def _tell_refused(self, version: int, reason: str, more: str = "") -> None:
        self._log.warning("refused model %d%s: %s", version, more, reason)
        self._statuses.refused(version, reason)

    def part(self, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> tuple[Part, str]:
        """Read one record of the model topic, its signature first.

        Returns
        -------
        Part
        str
            Fingerprint of the key that signed it, "nobody" where it need not be signed.

        Raises
        ------
        ModelError
        """
        if value is None:
            raise ModelError("value: expected a model, got null")
        signer = "nobody"
        if not self._settings.allow_unsigned_models:
            signer = verify(value, list(headers), self._trusted)
        return unpack(value), signer

    def _read_schema(self, record: Any) -> None:
        try:
            self._schema = decode_schema(record.value)
        except RecordError as error:
            self._not_read(record, error)

    def _not_read(self, record: Any, error: RecordError) -> None:
        self._warnings.warn(record.topic, f"{record.topic} offset {record.offset}: {error}")

    def _read_status(self, record: Any) -> None:
        try:
            status = decode_status(record.value)
        except RecordError as error:
            self._not_read(record, error)
            return
        if status.status == "barred":
            self.shelf.bar(status.version)


class _ModelReader:
    """Puts the records of the model topic together, and offers or remembers the best model.

    Parameters
    ----------
    feed : ModelFeed
    start : int or None
        Where the stretch of the topic begins of which the newest model is kept as `best`; where
        it is ``None``, each model is offered as soon as it is whole.

    Attributes
    ----------
    best : tuple of Envelope, bytes and str, or None
        With the key that signed it.
    """

    def __init__(self, feed: ModelFeed, start: int | None = None) -> None:
        self._feed = feed
        self._start = start
        self._assembler = Assembler(feed._settings.model_max_bytes, self._given_up)
        self._complete_from: float = math.inf
        self.best: tuple[Envelope, bytes, str] | None = None

    def knows(self, envelope: Envelope) -> bool:
        """Tell whether the stretch holds every model that is newer than this one."""
        return self._complete_from <= envelope.version

    def read(self, record: Any) -> None:
        feed = self._feed
        try:
            part, signer = feed.part(record.value, record.headers)
        except ModelError as error:
            feed.warn_untrusted(str(error), record.offset)
            return
        envelope = part.envelope
        if self._start is not None and part.stood_at(record.offset) >= self._start:
            self._complete_from = min(self._complete_from, envelope.version)
        if not feed.wanted(envelope):
            return
        try:
            feed.check_fit(envelope)
        except ModelError as error:
            (feed.refuse if self._start is None else feed.pass_over)(str(error), envelope)
            return
        try:
            whole = self._assembler.add(part)
        except ModelError as error:
            feed.torn(str(error), envelope)
            return
        if whole is None:
            return
        if self._start is None:
            feed.offer(*whole, signer)
        elif self.best is None or envelope.version > self.best[0].version:
            self.best = (*whole, signer)

    def _given_up(self, envelope: Envelope, reason: str) -> None:
        self._feed.torn(reason, envelope)
