"""What predictors say of the models that were published here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.feed import Feed, log
from modelgenerator.settings import Settings
from stream import reading
from stream.quoting import one_line
from stream.records import RecordError, Status, decode_status
from stream.seal import Seal, decode_sealed, own_seal
from stream.service import Stop

FALLEN = ("refused", "barred")
"""Statuses of a model that is not served."""

LATEST = 100_000
"""Latest records of the status topic that a publisher looks at; most may be somebody else's."""

WATCHED = 100
"""Latest versions whose fate matters."""


def read_status(record: Any, seal: Seal | None) -> Status:
    """Return a status to tell people of: where there is no secret, also one without a seal.

    Raises
    ------
    RecordError
    """
    if seal is None:
        return decode_status(record.value)
    return decode_sealed(decode_status, record, seal)


def said(status: Status) -> str:
    """Say who refused or barred which model, and why."""
    by, reason = one_line(status.replica, 200), one_line(str(status.reason), 500)
    return f"model {status.version} was {status.status} by {by}: {reason}"


class StatusReader:
    """Reads the statuses that predictors sealed: first the latest, then what came since.

    Parameters
    ----------
    consumer : KafkaConsumer
        May be used for other topics in between.
    seal : Seal or None
        The others do not count.
    """

    def __init__(
        self, consumer: KafkaConsumer, settings: Settings, seal: Seal | None, stop: Stop
    ) -> None:
        self.seal = seal
        self._consumer = consumer
        self._place = TopicPartition(settings.status_topic, 0)
        self._stop = stop
        self._end: int | None = None

    def unread(self) -> Iterator[Status]:
        """Yield the statuses that were not read yet, oldest first; all again if it raises."""
        place, stop = self._place, self._stop
        start, end = reading.bounds(self._consumer, place, stop)
        if self._end is None or self._end > end:  # new, or recreated
            self._end = end - LATEST
        if (first := max(start, self._end)) < end:
            for record in reading.read_range(self._consumer, place, first, end, stop):
                with suppress(RecordError):
                    yield decode_sealed(decode_status, record, self.seal)
        self._end = end


class StatusFeed(Feed):
    """Reads the status topic for the versions that it is told to watch.

    What was said before it connected does not matter: it is about other versions.
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        super().__init__(settings, settings.status_topic, stop)
        self._recipes: dict[int, str] = {}

    def watch(self, version: int, recipe: str) -> None:
        """Tell of a version, should a predictor refuse or bar it."""
        self._recipes[version] = recipe
        for old in list(self._recipes)[:-WATCHED]:
            del self._recipes[old]

    def poll(self) -> list[str]:
        """Return the recipes whose models were refused or barred since, and log a line for each.

        It does not wait.

        Raises
        ------
        Stopped
        """
        fallen = []
        records = list(chain.from_iterable(self.fetch().values()))
        seal = own_seal(self._settings, log) if records else None
        for record in records:
            with suppress(RecordError):  # the predictors name it
                status = decode_sealed(decode_status, record, seal)
                if status.status in FALLEN and status.version in self._recipes:
                    recipe = self._recipes.pop(status.version)
                    fallen.append(recipe)
                    log.warning("%s; its recipe %s is suspended", said(status), recipe)
        return fallen
