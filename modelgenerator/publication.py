"""How a model gets onto the model topic: described, pickled, signed, in one transaction."""

from __future__ import annotations

import hashlib
import io
import logging
import platform
import random
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import joblib
import numpy as np
import sklearn
from kafka import KafkaProducer, TopicPartition
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError

from modelgenerator.model_topic import last_version, newest_envelope, settled_end
from modelgenerator.settings import Settings
from modelgenerator.trainer import Publication
from stream import clients, refusals
from stream.deadlines import DeadlineExceeded
from stream.keys import SigningKey, TrustedKeys
from stream.models import Envelope, now, pack
from stream.records import Schema
from stream.service import Fatal, Stop, Warnings
from stream.topics import create_missing_topics
from stream.transactions import Transactions

log = logging.getLogger("modelgenerator")
_warnings = Warnings(log)  # one for all publications: a line a minute, however many fail

TRANSACTION_SECONDS = 60
OUTSTANDING_PARTS = 4
_FENCED = (ProducerFencedError, InvalidProducerEpochError)

Allowed = Callable[[Envelope | None], None]
"""Given the newest model on the topic, raises `NotPublished` where it speaks against another."""


class NotPublished(Exception):
    """What is on the model topic speaks against a publication; the message says what."""


def unless_pinned(newest: Envelope | None) -> None:
    """Allow a publication unless the newest model is pinned.

    Raises
    ------
    NotPublished
    """
    if newest and newest.pinned:
        raise NotPublished(
            f"model {newest.version} ({newest.recipe}, {newest.reason}) is pinned: publishing"
            " nothing until python -m modelgenerator.models unpin"
        )


def describe(
    model: Any,
    *,
    recipe: str,
    reason: str,
    trained_on: int,
    trained_to: dict[str, int],
    recipe_accuracy: float | None = None,
    feature_names: Sequence[str] | None = None,
    restores: int | None = None,
    threshold: float | None = None,
    pinned: bool = False,
    features: int | None = None,
) -> Envelope:
    """Say what a fitted classifier is; `publish` fills in the version.

    Parameters
    ----------
    model : object
        Fitted scikit-learn classifier or pipeline, with classes 0 and 1.
    recipe, reason, trained_on, trained_to, recipe_accuracy, restores, threshold, pinned
        As in `Envelope`.
    feature_names : sequence of str or None
        As the schema has them; ``None`` takes the model's own, where it knows any.
    features : int or None
        Their number; ``None`` takes the model's own.
    """
    features = int(model.n_features_in_) if features is None else features
    own_names = getattr(model, "feature_names_in_", None)
    names = own_names if feature_names is None else feature_names
    return Envelope(
        version=0,
        recipe=recipe,
        algorithm=type(final_step(model)).__name__,
        features=features,
        feature_names=None if names is None else [str(name) for name in names],
        classes=[int(label) for label in model.classes_],
        accepts_missing=_accepts_missing(model, features),
        trained_on=trained_on,
        trained_to=trained_to,
        recipe_accuracy=recipe_accuracy,
        reason=reason,
        restores=restores,
        created=now(),
        sklearn=sklearn.__version__,
        numpy=np.__version__,
        python=".".join(platform.python_version_tuple()[:2]),
        threshold=threshold,
        pinned=pinned,
    )


def final_step(model: Any) -> Any:
    """Return the classifier at the end of a pipeline, or the classifier itself."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    return model


def pickled(model: Any) -> bytes:
    """Return the model as joblib's compressed pickle."""
    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    return buffer.getvalue()


def publish(
    settings: Settings,
    envelope: Envelope,
    pickle: bytes,
    key: SigningKey,
    stop: Stop,
    allowed: Allowed = lambda _: None,
) -> int:
    """Publish a model as the next version, whole or not at all.

    Every publisher of a model topic works under one transactional id, so that the last to start
    fences the others, and the fenced start again: versions rise one by one, however many publish.
    It tries until it succeeds.

    Parameters
    ----------
    settings : Settings
    envelope : Envelope
        From `describe`.
    pickle : bytes
        From `pickled`.
    key : SigningKey
        Its public half has to be among the trusted keys.
    stop : Stop
    allowed : callable
        Asked within the transaction, when no other publisher can come between any more.

    Returns
    -------
    int
        The version.

    Raises
    ------
    NotPublished
        When `allowed` raises it.
    Stopped
    Fatal
        When the brokers refuse the credentials, a right is missing, or the key is not trusted.
    """
    envelope = replace(envelope, sha256=hashlib.sha256(pickle).hexdigest())
    tried: set[int] = set()
    name = f"{settings.model_topic}-publisher"
    transactions = Transactions(settings, name, log)
    make_topics = partial(create_missing_topics, settings, log)
    while True:
        producer = clients.connect(
            lambda: clients.producer(
                settings,
                transactional_id=name,
                transaction_timeout_ms=TRANSACTION_SECONDS * 1_000,
                linger_ms=0,
            ),
            settings,
            stop,
            log,
        )
        try:
            return stop.deadline(
                TRANSACTION_SECONDS + 30,
                partial(
                    _transaction,
                    producer,
                    transactions,
                    settings,
                    envelope,
                    pickle,
                    key,
                    stop,
                    allowed,
                    tried,
                ),
            )
        except (KafkaError, DeadlineExceeded, OSError) as error:
            stop.check()
            refusals.raise_if_refused(error, settings, "Write", name)
            # The client raises what went wrong, or a KafkaError that carries it.
            if any(isinstance(e, _FENCED) for e in (error, *error.args)):
                _warnings.warn("fenced", "another publisher came between; publishing again")
            else:
                _warnings.warn("failed", f"{settings.model_topic}: {error!r}; publishing again")
        finally:
            clients.close(producer)
        stop.wait(random.uniform(0.05, 0.5))
        # The model topic, or the status topic, may have been deleted.
        clients.connect(make_topics, settings, stop, log)


class Announcer:
    """Publishes what the trainer finds, a line each, unless a model is pinned.

    Parameters
    ----------
    settings : Settings
    key : SigningKey
    stop : Stop
    """

    def __init__(self, settings: Settings, key: SigningKey, stop: Stop) -> None:
        self._settings = settings
        self._key = key
        self._stop = stop

    def announce(self, found: Publication, schema: Schema | None) -> int | None:
        """Publish a model, and say so in one line.

        Returns
        -------
        int or None
            The version; ``None`` where a model is pinned, of which a line a minute is said.

        Raises
        ------
        Stopped
        Fatal
            When the schema names another number of features than the model takes.
        """
        settings = self._settings
        if schema and len(schema.feature_names) != found.model.n_features_in_:
            raise Fatal(
                f"{settings.schema_topic} names {len(schema.feature_names)} features, the records"
                f" of {settings.data_topic} have {found.model.n_features_in_}"
            )
        started = time.monotonic()
        pickle = pickled(found.model)
        envelope = describe(
            found.model,
            recipe=found.recipe,
            reason=found.reason,
            trained_on=found.trained_on,
            trained_to=found.trained_to,
            recipe_accuracy=found.recipe_accuracy,
            feature_names=schema.feature_names if schema else None,
        )
        try:
            version = publish(settings, envelope, pickle, self._key, self._stop, unless_pinned)
        except NotPublished as reason:
            _warnings.warn("pinned", str(reason))
            return None
        accuracies = " ".join(
            f"{name}={'-' if value is None else format(value, '.4f')}"
            for name, value in found.accuracies.items()
        )
        log.info(
            "model=%d recipe=%s reason=%s trained_on=%d %s bytes=%d milliseconds=%.0f",
            version,
            found.recipe,
            found.reason,
            found.trained_on,
            accuracies,
            len(pickle),
            1_000 * (time.monotonic() - started),
        )
        return version


def _transaction(
    producer: KafkaProducer,
    transactions: Transactions,
    settings: Settings,
    envelope: Envelope,
    pickle: bytes,
    key: SigningKey,
    stop: Stop,
    allowed: Allowed,
    tried: set[int],
) -> int:
    # From here on no earlier publisher can commit, so the last version stays the last.
    transactions.initialize(producer, [TopicPartition(settings.model_topic, 0)])
    trusted = TrustedKeys(settings.trusted_keys)
    if key.fingerprint not in trusted.fingerprints():  # versions would be given twice
        raise Fatal(f"key {key.fingerprint} signs, but is not {trusted}")
    consumer = clients.consumer(settings)
    try:
        end = settled_end(consumer, settings, stop)
        last = newest_envelope(consumer, settings, stop)
        if last and last.version in tried and replace(last, version=0, after=None) == envelope:
            return last.version  # committed before, only the broker's answer was lost
        allowed(last)
        version = 1 + max(last.version if last else 0, last_version(consumer, settings, stop))
    finally:
        clients.close(consumer)
    tried.add(version)
    producer.begin_transaction()
    outstanding: deque[Any] = deque()  # the producer itself would buffer any number of parts
    for message in pack(replace(envelope, version=version, after=end), pickle, key):
        stop.check()
        if len(outstanding) == OUTSTANDING_PARTS:
            outstanding.popleft().get(timeout=TRANSACTION_SECONDS)
        outstanding.append(
            producer.send(settings.model_topic, message.value, headers=message.headers, partition=0)
        )
    for future in outstanding:
        future.get(timeout=TRANSACTION_SECONDS)
    producer.commit_transaction()
    return version


def _accepts_missing(model: Any, features: int) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.predict(np.full((1, features), np.nan))
        except Exception:  # noqa: BLE001 - however it fails, it does not accept them
            return False
    return True
