"""What the trainer found, published."""

from __future__ import annotations

import logging
import time

from kafka.errors import KafkaError

from modelgenerator import metrics
from modelgenerator.envelope import describe, pickled
from modelgenerator.published import Published
from modelgenerator.publisher import NotPublished, Publisher
from modelgenerator.schema_feed import check_layout
from modelgenerator.settings import Settings
from modelgenerator.training.archive import VotePlace
from modelgenerator.training.trainer import Publication
from modelgenerator.trial import tried
from stream import clients, layout
from stream.keys import SigningKey
from stream.models import ModelError
from stream.reading import newest_schema
from stream.records import Schema
from stream.service import Stop, Warnings
from stream.topics import create_missing_topics

log = logging.getLogger("modelgenerator")
_warnings = Warnings(log)  # one for all publications: a line a minute, however many fail


class TrainedModels:
    """Publishes what the trainer finds; connected until it is closed."""

    def __init__(self, settings: Settings, key: SigningKey, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._consumer = clients.connected(clients.consumer, settings, stop, log)
        self._publisher = Publisher(settings, key, stop, self._consumer)
        self._published = Published(log)

    def close(self) -> None:
        """Disconnect."""
        self._published.sum_up(at_once=True)
        self._publisher.close()
        if not self._stop:  # the end of the process closes it too, without waiting for a broker
            clients.close(self._consumer)

    def publish(self, found: Publication) -> VotePlace | None:
        """Publish a model unless one is pinned, and log it, or sum it up with the next ones.

        Returns
        -------
        VotePlace or None
            Where it stands; ``None`` while a model is pinned, the brokers do not take it, or the
            schema names its features otherwise, with a warning once a minute.

        Raises
        ------
        ModelError
            When predictors would refuse the model; a warning once a minute says why.
        StartOver
            When the schema has another number of features than the model takes, or other types.
        Stopped
        """
        started, settings = time.monotonic(), self._settings
        schema = clients.connect(self._look_up_schema, settings, self._stop, log)
        check_layout(settings, schema, found.layout)
        if found.layout.types and found.layout != layout.of(schema):
            why = "the features have other names than the model's; it is not published"
            _warnings.warn("renamed", f"{settings.schema_topic}: {why}")
            return None
        described = describe(
            found.model,
            recipe=found.recipe,
            reason=found.reason,
            trained_on=found.trained_on,
            trained_to=found.trained_to,
            recipe_accuracy=found.accuracies[found.recipe],
            standings=found.accuracies,
            archive=found.archive,
            threshold=found.model.threshold,
            schema=schema,
        )
        pickle = pickled(found.model)
        try:
            envelope, _ = tried(found.model, described, found.newest)
            version = self._publisher.publish(envelope, pickle, schema, unless_pinned=True)
        except NotPublished as reason:
            _warnings.warn("not published", str(reason))
            return None
        except ModelError as error:
            _warnings.warn("refused", f"recipe {found.recipe}: model not published: {error}")
            raise
        seconds = time.monotonic() - started
        metrics.MODEL_VERSION.set(version)
        metrics.PUBLISH_SECONDS.observe(seconds)
        metrics.PUBLISHED.labels(found.reason.partition(" ")[0]).inc()  # without its numbers
        accuracies = " ".join(
            f"{name}={'-' if value is None else format(value, '.4f')}"
            for name, value in found.accuracies.items()
        )
        details = f"trained_on={found.trained_on} {accuracies} bytes={len(pickle)}"
        self._published.add(
            version, found.recipe, found.reason, f"{details} milliseconds={1_000 * seconds:.0f}"
        )
        return VotePlace(version, self._publisher.after)

    def sum_up(self) -> None:
        """Log what was published since the last line, once it is due."""
        self._published.sum_up()

    def _look_up_schema(self) -> Schema | None:
        """Return the newest schema: it counts at once."""
        try:
            return newest_schema(self._consumer, self._settings, self._stop)
        except KafkaError:
            create_missing_topics(self._settings, log)  # it may have been deleted
            raise
