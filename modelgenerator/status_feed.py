"""What predictors say of the models that were published here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from modelgenerator.settings import Settings
from stream import clients, reading
from stream.records import RecordError, Status, decode_status
from stream.service import Stop, Warnings

log = logging.getLogger("modelgenerator")

FALLEN = ("refused", "barred")
"""Statuses of a model that is not served."""

LATEST = 1_000
"""Latest records of the status topic that a publisher looks at."""

WATCHED = 100
"""Latest versions whose fate matters."""


def latest_statuses(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Iterator[Status]:
    """Yield the latest statuses, oldest first."""
    place = TopicPartition(settings.status_topic, 0)
    start, end = reading.bounds(consumer, place)
    for record in reading.read_range(consumer, place, max(start, end - LATEST), end, stop):
        with suppress(RecordError):
            yield decode_status(record.value)


class StatusFeed:
    """Reads the status topic for the versions that it is told to watch.

    Parameters
    ----------
    settings : Settings
    stop : Stop
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._place = TopicPartition(settings.status_topic, 0)
        self._warnings = Warnings(log)
        self._client: KafkaConsumer | None = None
        self._position: int | None = None
        self._recipes: dict[int, str] = {}

    def watch(self, version: int, recipe: str) -> None:
        """Tell of a version, should a predictor refuse or bar it."""
        self._recipes[version] = recipe
        for old in list(self._recipes)[:-WATCHED]:
            del self._recipes[old]

    def poll(self) -> list[str]:
        """Return the recipes whose models were refused or barred since, and say so in a line each.

        It does not wait. A client that fails is replaced.

        Raises
        ------
        Stopped
        """
        fallen = []
        try:
            for record in self._connected().poll(timeout_ms=0).get(self._place, ()):
                self._position = record.offset + 1
                with suppress(RecordError):  # the predictors name it
                    status = decode_status(record.value)
                    if status.status in FALLEN and status.version in self._recipes:
                        recipe = self._recipes.pop(status.version)
                        fallen.append(recipe)
                        log.warning(
                            "model %d was %s by %s: %s; its recipe %s is suspended",
                            status.version,
                            status.status,
                            status.replica,
                            status.reason,
                            recipe,
                        )
        except (KafkaError, OSError) as error:
            self._stop.check()
            self._warnings.warn("status", f"{self._place.topic}: {error!r}; reconnecting")
            self.close()
        return fallen

    def close(self) -> None:
        """Disconnect; the next poll connects again and goes on where this one was."""
        if not self._stop:  # the end of the process closes it too, without waiting for a broker
            clients.close(self._client)
        self._client = None

    def _connected(self) -> KafkaConsumer:
        if self._client is None:
            settings = self._settings
            self._client = clients.connect(
                lambda: clients.consumer(settings), settings, self._stop, log
            )
            start, end = reading.bounds(self._client, self._place)
            if self._position is None or not start <= self._position <= end:
                self._position = end  # what was said of versions of before does not matter
            self._client.assign([self._place])
            self._client.seek(self._place, self._position)
        return self._client
