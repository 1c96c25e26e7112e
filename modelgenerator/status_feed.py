"""What predictors say of the models that were published here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.feed import Feed, log
from modelgenerator.settings import Settings
from stream import reading
from stream.quoting import one_line
from stream.records import RecordError, Status, decode_status
from stream.service import Stop

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
        for record in chain.from_iterable(self.fetch().values()):
            with suppress(RecordError):  # the predictors name it
                status = decode_status(record.value)
                if status.status in FALLEN and status.version in self._recipes:
                    recipe = self._recipes.pop(status.version)
                    fallen.append(recipe)
                    log.warning(
                        "model %d was %s by %s: %s; its recipe %s is suspended",
                        *(status.version, status.status, one_line(status.replica, 200)),
                        *(one_line(str(status.reason), 500), recipe),
                    )
        return fallen
