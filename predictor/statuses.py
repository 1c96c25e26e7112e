"""What this predictor did with each model, put on record on the status topic."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from predictor import metrics
from predictor.result import Result
from predictor.settings import PredictorSettings
from stream import clients, refusals
from stream.classifier import Model
from stream.records import Status, encode_status
from stream.seal import own_seal
from stream.service import Fatal, Stop
from stream.topics import create_missing_topics

log = logging.getLogger("predictor")

TIMEOUT_SECONDS = 15.0


class Statuses:
    """Publishes which models serve, and which are refused or barred; connected while entered.

    Attributes
    ----------
    seal : Seal or None
        What statuses are sealed with, here and by the other replicas.
    """

    def __init__(self, settings: PredictorSettings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._producer: KafkaProducer | None = None
        self.seal = own_seal(settings, log, make=True)
        self._serving = 0
        self._problem: str | None = None

    def __enter__(self) -> Statuses:
        self._producer = clients.connected(clients.producer, self._settings, self._stop, log)
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(self._producer)

    def check(self) -> None:
        """Raise `Fatal` if the brokers have refused a status."""
        if self._problem:
            raise Fatal(self._problem)

    def serving(self, result: Result, model: Model | None) -> None:
        """Put on record from which offsets on a model predicts, at its first predictions."""
        if model is None or not result.made or model.version == self._serving:
            return
        self._serving = version = model.version
        first: dict[str, int] = {}
        for prediction in result.made:
            partition, offset = prediction.source
            first.setdefault(str(partition), offset)
        metrics.swapped(first, model.envelope)
        with suppress(KafkaError):  # the predictions themselves say it too
            self._stop.until_stopped(partial(self._send, version, "serving", since=first))

    def refused(self, version: int, reason: str) -> None:
        """Put on record that a model is never served."""
        self._stop.until_stopped(partial(self._send, version, "refused", reason))

    def barred(self, version: int, reason: str) -> None:
        """Put on record that a model is out of service; wait until the broker has it."""
        log.error("barred model %d: %s", version, reason)

        def publish() -> None:
            create_missing_topics(self._settings, log)
            try:
                self._send(version, "barred", reason).get(TIMEOUT_SECONDS)
            except KafkaError as error:
                refusals.raise_if_refused(error, self._settings, "Write")
                raise

        clients.connect(publish, self._settings, self._stop, log)

    def _send(
        self,
        version: int,
        status: str,
        reason: str | None = None,
        since: dict[str, int] | None = None,
    ) -> Any:
        assert self._producer is not None
        value = encode_status(Status(version, status, since or {}, reason, self._settings.replica))
        topic = self._settings.status_topic
        headers = self.seal.headers(topic, value) if self.seal else None
        future = self._producer.send(topic, value, headers=headers, partition=0)
        return future.add_errback(self._not_sent)

    def _not_sent(self, error: BaseException) -> None:
        self._problem = self._problem or refusals.refusal(error, self._settings, "Write")
