"""Models as they arrive: read, checked and loaded on a thread beside the loop."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from predictor.model_shelf import ModelShelf
from predictor.settings import PredictorSettings
from predictor.statuses import Statuses
from stream import classifier, clients, layout, reading, refusals
from stream.keys import TrustedKeys
from stream.model_topic import ModelTopic, StoredModel
from stream.models import ModelError
from stream.records import RecordError, Schema, decode_schema, decode_status
from stream.seal import decode_sealed
from stream.service import Fatal, Stop, Stopped, Warnings
from stream.topics import create_missing_topics

log = logging.getLogger("predictor")

LOOK_SECONDS = 1.0
"""How often the folder of trusted keys is looked at."""

LATEST = 100_000
"""Latest records of the status topic that are read at the start."""

ASIDE_SECONDS = 60.0
"""How often models are set aside at most: it takes a tenth of a second, and predicting waits."""

CATCH_UP_SECONDS = 10.0
"""How long schemas and statuses are waited for that a new model has to fit."""

_POLL_MS = 100
_FETCH_MS = 10
"""How long a fetch of schemas and statuses waits for some: meanwhile the broker answers nothing
else that is asked by the same client, such as where they end."""


def set_aside() -> None:
    """Let the garbage collector look no more at what is there now: libraries and models.

    It would look through all of it every few thousand records, which took a quarter of the time.
    What was set aside before, and is garbage since, is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class ModelFeed:
    """Reads models, schema and statuses on a thread, and puts the models on the shelf.

    Parameters
    ----------
    statuses : Statuses
        Where it is put on record that a model is refused.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        shelf: ModelShelf,
        statuses: Statuses,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._shelf = shelf
        self._statuses = statuses
        self._stop = stop
        self._warnings = Warnings(log)
        self._trusted = None if settings.allow_unsigned_models else settings.trusted_keys
        self._keys: frozenset[str] | None = None
        self._next_look = 0.0
        self._next_aside = 0.0
        self._schema: Schema | None = None
        self._torn: set[int] = set()
        self._searched = False
        self._failure: BaseException | None = None

    def __enter__(self) -> ModelFeed:
        if not self._trusted:
            log.warning(
                "ALLOW_UNSIGNED_MODELS=1: whoever can write %s runs code in this process",
                self._settings.model_topic,
            )
        threading.Thread(target=self._run, name="model feed", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the thread alone: it ends when the service is told to end."""

    def check(self) -> None:
        """Wait until the model topic was searched once; raise `Fatal` if the thread has ended.

        A replica that joins the group before it has loaded its model would take partitions from
        others that could predict them meanwhile.
        """
        while not (self._searched or self._failure):
            self._stop.wait(0.05)
        if isinstance(self._failure, Fatal):
            raise self._failure
        if self._failure:
            raise Fatal(f"the model feed ended: {self._failure!r}")
        self._statuses.check()

    def _run(self) -> None:
        # Unpickling the first model would load it anyway; by then the wait for the model is over.
        import_module("sklearn.ensemble")
        connect = partial(clients.connected, clients.consumer, self._settings, self._stop, log)
        try:
            while not self._stop:
                try:
                    with (
                        clients.closing(connect(fetch_max_wait_ms=_FETCH_MS)) as consumer,
                        clients.closing(connect()) as of_models,
                    ):
                        self._follow(consumer, of_models)
                except (KafkaError, OSError) as error:
                    refusals.raise_if_refused(error, self._settings)
                    self._warnings.warn("feed", f"reading the models: {error!r}; retrying")
                    self._stop.wait(1.0)
                    # One of the topics may have been deleted.
                    create = partial(create_missing_topics, self._settings, log)
                    clients.connect(create, self._settings, self._stop, log)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the loop has to learn of it, whatever it is
            self._failure = error

    def _follow(self, consumer: KafkaConsumer, of_models: KafkaConsumer) -> None:
        """Search the newest model, then follow all topics until another search is needed."""
        schemas = TopicPartition(self._settings.schema_topic, 0)
        statuses = TopicPartition(self._settings.status_topic, 0)
        readers = {schemas: self._read_schema, statuses: self._read_status}
        bounds = {place: reading.bounds(consumer, place) for place in readers}
        found = reading.newest_schema(consumer, self._settings, self._stop)
        self._take_schema(found or self._schema)
        start, end = bounds[statuses]
        start = max(start, end - LATEST)
        for record in reading.read_range(consumer, statuses, start, end, self._stop):
            self._read_status(record)
        self._look_at_keys()
        self._shelf.search_needed = False
        topic = ModelTopic(
            self._settings, of_models, self._stop, self._trusted, self._warn_untrusted
        )
        self._search(topic)
        self._searched = True
        consumer.assign(list(bounds))
        for place, (_, end) in bounds.items():
            consumer.seek(place, end)
        while not self._stop and not self._shelf.search_needed:
            self._look_at_keys()
            arrived = [*topic.poll(_POLL_MS)]
            self._read(consumer, readers, all_of_it=bool(arrived))
            for model in topic.index.torn():  # before a newer one serves: then it is not wanted
                self._warn_torn(model)
            for model in arrived:
                self._offer(topic, model)
            if current := self._shelf.serve()[0]:
                topic.index.forget(current.version)

    def _read(
        self,
        consumer: KafkaConsumer,
        readers: Mapping[TopicPartition, Callable[[Any], None]],
        all_of_it: bool,
    ) -> None:
        """Read the schemas and statuses that have come, without waiting for more.

        For a model that has come, read up to where they end now: it has to fit them.
        """
        ends: dict[TopicPartition, int] = {}
        if all_of_it:
            ends = consumer.end_offsets([*readers], timeout_ms=clients.REQUEST_TIMEOUT_MS)
        give_up, wait_ms = time.monotonic() + CATCH_UP_SECONDS, 0
        while True:
            for place, records in consumer.poll(wait_ms).items():
                for record in records:
                    readers[place](record)
            if all(consumer.position(place) >= end for place, end in ends.items()):
                return
            wait_ms = _POLL_MS
            self._stop.check()
            if time.monotonic() > give_up:
                raise KafkaTimeoutError("schemas and statuses are not read to their end")

    def _search(self, topic: ModelTopic) -> None:
        """Serve the newest model on the topic that passes every check."""
        while (found := topic.newest(self._fits)) and not self._offer(topic, found):
            pass  # it was refused: the next newest
        unfit: dict[str, list[int]] = {}
        for model in topic.index.models():
            wanted = model.whole and self._shelf.wanted(model.version)
            if wanted and (reason := self._misfit(model)):
                unfit.setdefault(reason, []).append(model.version)
        for reason, versions in unfit.items():  # one line, however many there are
            self._shelf.refuse(*versions)
            self._refused(versions[-1], reason, older=len(versions) - 1)
        if topic.index.end and not self._shelf.serve()[0]:
            log.warning("no model of %s can be served; waiting for one", self._settings.model_topic)

    def _offer(self, topic: ModelTopic, model: StoredModel) -> bool:
        """Serve a model if it is wanted and passes every check; tell whether it serves."""
        version = model.version
        if not self._shelf.wanted(version):
            return False
        try:
            if reason := self._misfit(model):
                raise ModelError(reason)
            envelope, pickle = topic.get(version)
            loaded = classifier.load_within(self._settings, self._stop, envelope, pickle)
        except ModelError as error:
            self._shelf.refuse(version)
            self._refused(version, str(error))
            return False
        if not self._shelf.put(replace(loaded, signer=model.signer)):
            return False
        log.info(
            "model %d (%s) serves from the next unit, trained on %d records, signed by %s",
            version,
            envelope.recipe,
            envelope.trained_on,
            model.signer,
        )
        if (now := time.monotonic()) >= self._next_aside:
            set_aside()
            self._next_aside = now + ASIDE_SECONDS
        return True

    def _fits(self, model: StoredModel) -> bool:
        wanted = model.whole and self._shelf.wanted(model.version)
        return wanted and not self._misfit(model)

    def _misfit(self, model: StoredModel) -> str:
        """Return why a model does not fit the stream or this process, "" if it does."""
        current = self._shelf.serve()[0]
        try:
            features = current.envelope.features if current else None
            classifier.check(model.envelope, self._schema, features)
        except ModelError as error:
            return str(error)
        return ""

    def _warn_torn(self, model: StoredModel) -> None:
        """Say once that a model is not whole; its missing part may yet come."""
        if self._shelf.wanted(model.version) and model.version not in self._torn:
            self._torn.add(model.version)
            self._refused(model.version, model.missing)

    def _refused(self, version: int, reason: str, older: int = 0) -> None:
        self._shelf.count_refused(f"model {version}: {reason}", 1 + older)
        more = f" and {older} older ones" if older else ""
        log.warning("refused model %d%s: %s", version, more, reason)
        self._statuses.refused(version, reason)

    def _warn_untrusted(self, record: Any, reason: str) -> None:
        """Warn of a record that no trusted key signed: at most once a minute for each reason."""
        self._shelf.count_refused(reason)
        kind = reason.partition(":")[0]  # what follows may quote the record
        self._warnings.warn(kind, f"refused {record.topic} offset {record.offset}: {reason}")

    def _look_at_keys(self) -> None:
        """Notice that the folder of trusted keys has changed."""
        now = time.monotonic()
        if not self._trusted or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        found = TrustedKeys(self._trusted)
        before, self._keys = self._keys, found.fingerprints()
        if self._keys != before:
            log.info("%s", found)
            if before is not None and not self._keys <= before:
                # Models that were not trusted when they came may be now.
                self._shelf.search_needed = True
        model = self._shelf.serve()[0]
        if model and model.signer not in self._keys:
            self._warnings.warn(
                "revoked",
                f"model {model.version} goes on serving until a newer one comes, though key"
                f" {model.signer} is no longer trusted; {found}",
            )

    def _read_schema(self, record: Any) -> None:
        if schema := self._decoded(lambda found: decode_schema(found.value), record):
            self._take_schema(schema)

    def _take_schema(self, schema: Schema | None) -> None:
        self._schema, self._shelf.layout = schema, layout.of(schema)

    def _read_status(self, record: Any) -> None:
        decode = partial(decode_sealed, decode_status, seal=self._statuses.seal)
        if (status := self._decoded(decode, record)) and status.status == "barred":
            self._shelf.bar(status.version)

    def _decoded(self, decode: Callable[[Any], Any], record: Any) -> Any:
        try:
            return decode(record)
        except RecordError as error:
            kind = f"{record.topic} {str(error).partition(':')[0]}"
            self._warnings.warn(kind, f"{record.topic} offset {record.offset}: {error}")
            return None
