"""How a model gets onto the model topic: described, checked, signed, in one transaction.

All publishers of a model topic share one transactional id. The last one to initialize its producer
fences the others, and a fenced one does so again, and reads what was published: versions rise one
by one, however many publish. A publisher that is not fenced keeps its producer and what it has
read: nobody else has published since.

A model that a person publishes is pinned: the modelgenerator publishes nothing after it, until it
is unpinned. The pin is a field of the envelope, under its signature, and is looked at within the
transaction of the next publication. A model that is out of service holds no pin (see `verdicts`):
it is as if it were not there, and the model before it decides.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from dataclasses import replace
from functools import partial

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from modelgenerator.envelope import check
from modelgenerator.model_writer import TRANSACTION_SECONDS, ModelWriter
from modelgenerator.settings import Settings
from modelgenerator.signing import check_trusted
from modelgenerator.status_feed import StatusReader
from modelgenerator.verdicts import Verdicts, served_model
from stream import clients, reading
from stream.deadlines import DeadlineExceeded
from stream.keys import SigningKey
from stream.model_topic import ModelTopic, StoredModel
from stream.models import Envelope
from stream.reading import newest_schema
from stream.records import Schema
from stream.refusals import PERMANENT, causes, explained, raise_if_refused
from stream.seal import own_seal
from stream.service import Stop, Warnings
from stream.times import now
from stream.topics import create_missing_topics
from stream.transactions import Transactions

log = logging.getLogger("modelgenerator")
_warnings = Warnings(log)  # one for all publications: a line a minute, however many fail

SEARCH_SECONDS = 60.0
"""Timeout of one search for the newest version; the next try goes on where it ended."""

HIDDEN_SECONDS = 3.0
"""How long to wait for another producer's open transaction, which may hide newer records."""


class NotPublished(Exception):
    """A publication that is not allowed: a model is pinned, or the brokers never take it."""


class Publisher:
    """Publishes models, each as the next version, whole or not at all; to be closed at the end.

    It keeps clients, and what it has read, for the next publication.

    Parameters
    ----------
    key : SigningKey
        From `own_key`.
    consumer : KafkaConsumer
        Reads the model, status and schema topics.
    models : ModelTopic, optional
        What the caller has read with the same consumer, so that nothing is read twice.

    Attributes
    ----------
    after : int
        The newest published model stands from this offset on.
    """

    def __init__(
        self,
        settings: Settings,
        key: SigningKey,
        stop: Stop,
        consumer: KafkaConsumer,
        models: ModelTopic | None = None,
    ) -> None:
        self._settings = settings
        self._key = key
        self._stop = stop
        self._consumer = consumer
        self._trusted: frozenset[str] | None = None
        self._admin: KafkaAdminClient | None = None
        self._producer: KafkaProducer | None = None
        self._models = models or ModelTopic(settings, consumer, stop, settings.trusted_keys)
        self._statuses = StatusReader(consumer, settings, own_seal(settings), stop)
        self._verdicts = Verdicts()
        self._writer = ModelWriter(settings, key, stop)
        self._place = TopicPartition(settings.model_topic, 0)
        self._name = f"{settings.model_topic}-publisher"
        self._transactions = Transactions(settings, self._name, log)
        self._last = 0
        self.after = 0

    def publish(
        self,
        envelope: Envelope,
        pickle: bytes,
        schema: Schema | None = None,
        *,
        unless_pinned: bool = False,
        after: int | None = None,
    ) -> int:
        """Check a model and publish it as the next version, which is returned; retry until then.

        Parameters
        ----------
        envelope, pickle
            From `describe` and `pickled`.
        schema : Schema, optional
            The newest, if the caller has just read it.
        unless_pinned : bool
            Publish only if no model is pinned.
        after : int, optional
            Publish only if this is the newest version.

        Raises
        ------
        ModelError
            When predictors would refuse the model.
        NotPublished
            When a model is pinned, another was published in the meantime, or the brokers would
            refuse the records again and again.
        Stopped
        Fatal
            When the brokers refuse the credentials, a right is missing, or the key is not trusted.
        """
        settings, stop = self._settings, self._stop
        look = partial(newest_schema, self._consumer, settings, stop)
        schema = schema or clients.connect(look, settings, stop, log)
        check(settings, envelope, pickle, schema, stop)
        digest = hashlib.sha256(pickle).hexdigest()
        envelope = replace(
            envelope, version=0, after=None, sha256=digest, stream=self._models.stream
        )
        tried: set[int] = set()
        while True:
            kept = self._producer is not None
            try:
                return self._transaction(envelope, pickle, unless_pinned, after, tried)
            except (KafkaError, DeadlineExceeded, OSError) as error:
                self.close()
                stop.check()
                if line := explained(error, settings, PERMANENT):
                    raise NotPublished(line) from None
                raise_if_refused(error, settings, "Write", self._name)
                if not _fenced(error):
                    _warnings.warn("failed", f"{settings.model_topic}: {error!r}; publishing again")
                elif kept:
                    continue  # another has published since the last publication
                else:
                    _warnings.warn("fenced", "fenced by another publisher; publishing again")
            stop.wait(random.uniform(0.05, 0.5))
            # The model topic, or the status topic, may have been deleted.
            clients.connect(partial(create_missing_topics, settings, log), settings, stop, log)

    def close(self) -> None:
        """Disconnect; the next publication connects again."""
        if not self._stop:  # the end of the process closes them too, without waiting for a broker
            clients.close(self._producer, self._admin)
        self._producer = self._admin = None

    def rollback(self, version: int) -> int:
        """Publish a model of the topic again, pinned; return its new version.

        Raises
        ------
        ModelError
            When the topic has no such model that is whole and signed by a trusted key, or
            predictors would refuse it now.
        """
        return self._restore(version, "rollback", pinned=True)

    def unpin(self) -> int:
        """Publish the model being served once more, not pinned, so that others may follow it.

        That is the pinned one or, if it is out of service, the newest that is not. Returns its new
        version.

        Raises
        ------
        NotPublished
            When the newest model is not pinned, or another one was published in the meantime.
        ModelError
            As for `rollback`.
        """
        newest = self._models.newest()
        if newest is None or not newest.envelope.pinned:
            raise NotPublished(f"{self._place.topic}: the newest model is not pinned")
        served = served_model(self._models, self._consumer, self._settings, self._stop) or newest
        return self._restore(served.version, "unpin", pinned=False, after=newest.version)

    def _restore(self, version: int, reason: str, pinned: bool, after: int | None = None) -> int:
        envelope, pickle = self._models.get(version)
        restored = replace(envelope, pinned=pinned, reason=reason, restores=version, created=now())
        return self.publish(restored, pickle, after=after)

    def _transaction(
        self,
        envelope: Envelope,
        pickle: bytes,
        unless_pinned: bool,
        after: int | None,
        tried: set[int],
    ) -> int:
        stop = self._stop
        if self._producer is None:
            self._connect()
        producer = self._producer
        # From here on no earlier publisher can commit, and a later one fences this one.
        self._look_at_keys()
        end = stop.until_stopped(self._settled_end)
        newest = self._models.newest(seconds=SEARCH_SECONDS)
        last = newest.envelope if newest else None
        if last and last.version in tried and replace(last, version=0, after=None) == envelope:
            self.after = last.after or 0
            return last.version  # committed before, only the broker's answer was lost
        newest_version = last.version if last else 0
        if after not in (None, newest_version):
            raise NotPublished(
                f"{self._place.topic}: another model was published meanwhile; look at it, try again"
            )
        stop.until_stopped(lambda: self._verdicts.add(self._statuses.unread()))
        if unless_pinned:
            self._check_not_pinned(newest)
        # Where the topic was deleted, predictors may not have said yet what they serve.
        version = 1 + max(newest_version, self._verdicts.newest, self._last)
        tried.add(version)
        numbered = replace(envelope, version=version, after=end)
        stop.deadline(
            TRANSACTION_SECONDS + 30, lambda: self._writer.write(producer, numbered, pickle)
        )
        self.after, self._last = end, version
        return version

    def _connect(self) -> None:
        settings, stop = self._settings, self._stop
        self._admin = clients.connected(clients.admin, settings, stop, log)
        self._producer = producer = clients.connected(
            clients.producer,
            settings,
            stop,
            log,
            transactional_id=self._name,
            transaction_timeout_ms=TRANSACTION_SECONDS * 1_000,
            linger_ms=0,
        )
        stop.deadline(
            TRANSACTION_SECONDS, lambda: self._transactions.initialize(producer, [self._place])
        )

    def _look_at_keys(self) -> None:
        """Check that the own key is trusted; read again what other keys and seals make count."""
        settings, consumer, stop = self._settings, self._consumer, self._stop
        trusted = check_trusted(self._key, settings)  # else its models do not count, nor versions
        if self._trusted not in (None, trusted):
            self._models = ModelTopic(settings, consumer, stop, settings.trusted_keys)
        self._trusted = trusted
        if (seal := own_seal(settings)) != self._statuses.seal:
            self._statuses = StatusReader(consumer, settings, seal, stop)
            self._verdicts = Verdicts()

    def _settled_end(self) -> int:
        """Return the end of the model topic, once no open transaction hides anything before it.

        Raises
        ------
        KafkaError
            When one is open for longer than one of ours takes to end: it may hide the newest
            version.
        """
        assert self._admin is not None
        place, stop = self._place, self._stop
        ask = partial(self._admin.list_partition_offsets, {place: OffsetSpec.LATEST})
        end: int = stop.until_stopped(ask)[place].offset
        give_up, last = time.monotonic() + HIDDEN_SECONDS, False
        while (seen := reading.bounds(self._consumer, place, stop)[1]) < end:
            if last:
                raise KafkaError(f"another producer's transaction is open, from offset {seen} on")
            stop.wait(0.1)
            last = time.monotonic() > give_up  # after a pause, it looks once more
        return end

    def _check_not_pinned(self, newest: StoredModel | None) -> None:
        out = self._verdicts.out_of_service()

        def decides(model: StoredModel) -> bool:
            # One that is not pinned does so, too: whoever published it had ended the pin before.
            return not (model.envelope.pinned and model.version in out)

        found = newest
        if found and not decides(found):
            found = self._models.newest(decides, SEARCH_SECONDS)
        if found and found.envelope.pinned:
            raise NotPublished(
                f"model {found.version} ({found.envelope.recipe}, {found.envelope.reason}) is"
                " pinned: publishing nothing until python -m modelgenerator.models unpin"
            )
        if found:  # no older one decides any more
            self._models.index.forget(found.version)
            self._verdicts.forget(found.version)


def _fenced(error: BaseException) -> bool:
    """Tell whether another publisher fenced this one."""
    fenced = (ProducerFencedError, InvalidProducerEpochError)
    return any(isinstance(each, fenced) for each in causes(error))
