"""What predictors say of models: which are out of service, and what became of a new one.

A model is out of service if a predictor has barred it, or if one has refused it and none serves it:
a replica that lacks a package does not speak for those that have it.

Only statuses that predictors have sealed decide. Where the secret is missing, none does, and people
are told of those without a seal.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition

from modelgenerator.settings import Settings
from modelgenerator.status_feed import FALLEN, LATEST, StatusReader, read_status, said
from stream import reading
from stream.model_topic import ModelTopic, StoredModel
from stream.quoting import one_line
from stream.records import LARGEST_VERSION, RecordError, Status
from stream.seal import own_seal
from stream.service import Fatal, Stop

WAIT_SECONDS = 30.0
"""How long a command waits for a predictor to say what it does with a new model, by default."""

LISTING = "python -m modelgenerator.models"


class NotServed(Fatal):
    """A model that was published, and that a predictor has refused or barred."""


class Verdicts:
    """What predictors have said of versions so far; knows no Kafka.

    Attributes
    ----------
    newest : int
        Highest version that they have named, 0 for none.
    """

    def __init__(self, statuses: Iterable[Status] = ()) -> None:
        self.newest = 0
        self._versions: dict[str, set[int]] = defaultdict(set)
        self.add(statuses)

    def add(self, statuses: Iterable[Status]) -> None:
        """Take what they said next."""
        for status in statuses:
            self._versions[status.status].add(status.version)
            if status.version < LARGEST_VERSION:
                self.newest = max(status.version, self.newest)

    def out_of_service(self) -> set[int]:
        """Return the versions that are barred, or refused by one predictor and served by none."""
        said = self._versions
        return said["barred"] | (said["refused"] - said["serving"])

    def forget(self, version: int) -> None:
        """Forget what was said of the versions before this one."""
        for versions in self._versions.values():
            versions.difference_update([each for each in versions if each < version])


def served_model(
    models: ModelTopic, consumer: KafkaConsumer, settings: Settings, stop: Stop
) -> StoredModel | None:
    """Return the model that predictors serve: the newest whole one that is not out of service."""
    statuses = StatusReader(consumer, settings, own_seal(settings), stop)
    out = Verdicts(statuses.unread()).out_of_service()
    return models.newest(lambda model: model.whole and model.version not in out)


def await_verdict(
    consumer: KafkaConsumer, settings: Settings, version: int, seconds: float
) -> str | None:
    """Return what the first predictor that answers does with a model that was just published.

    Returns
    -------
    str or None
        ``None`` when none has answered.

    Raises
    ------
    NotServed
        When it has refused or barred the model.
    KafkaError
    """
    place, seal = TopicPartition(settings.status_topic, 0), own_seal(settings)
    start, end = reading.bounds(consumer, place)
    consumer.assign([place])
    consumer.seek(place, max(start, end - LATEST))
    give_up = time.monotonic() + seconds
    while (left := give_up - time.monotonic()) > 0:
        for record in consumer.poll(timeout_ms=int(1_000 * min(left, 0.5))).get(place, ()):
            with suppress(RecordError):
                if line := verdict(read_status(record, seal), version):
                    return line
    return None


def verdict(status: Status, version: int) -> str | None:
    """Return what a status says of a version, in words; ``None`` if it says nothing of it.

    Raises
    ------
    NotServed
        When it says that the version is not served.
    """
    if status.status == "serving" and status.version > version:
        return f"model {version} was replaced by model {status.version} before it predicted"
    if status.version != version:
        return None
    if status.status in FALLEN:
        unless = ", unless another predictor serves it" * (status.status == "refused")
        raise NotServed(f"{said(status)}; it holds no pin, and the model before it goes on{unless}")
    since = " ".join(f"{partition}@{offset}" for partition, offset in status.since.items())
    return (
        f"model {version} is serving: {status.replica} predicts with it since {since};"
        f" what others do: {LISTING}"
    )


def unanswered(version: int, seconds: float) -> str:
    """Say that no predictor has answered, which is no failure."""
    return (
        f"model {version}: no predictor has answered within {seconds:g} s. A predictor answers at"
        f" once if it refuses a model, else at its first prediction: either no record has come, or"
        f" none runs; what becomes of it: {LISTING}"
    )


def print_verdict(
    consumer: KafkaConsumer, settings: Settings, version: int, seconds: float
) -> None:
    """Print what becomes of a model that was just published, unless the wait is of 0 seconds.

    Raises
    ------
    NotServed
    KafkaError
    """
    sys.stdout.flush()
    if seconds:
        line = await_verdict(consumer, settings, version, seconds)
        print(one_line(line or unanswered(version, seconds)))


def add_wait_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--wait SECONDS`` and ``--no-wait``."""
    options = parser.add_mutually_exclusive_group()
    options.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait until a predictor says what it does with the model"
        f" ({WAIT_SECONDS:g})",
    )
    options.add_argument(
        "--no-wait", dest="wait", action="store_const", const=0.0, help="do not wait for that"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return seconds
