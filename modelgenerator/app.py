"""Keeps training models on the newest labelled records, and publishes them."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TypeVar

from modelgenerator.data_feed import DataFeed, TopicRecreated
from modelgenerator.intake import Intake
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from modelgenerator.status_feed import StatusFeed
from modelgenerator.trained import publish_trained, trained_already
from modelgenerator.trainer import Trainer, recipes
from stream import clients
from stream.keys import SigningKey
from stream.models import ModelError
from stream.parallel import use_threads
from stream.reading import newest_schema
from stream.records import Schema
from stream.service import Stop, run
from stream.topics import create_missing_topics

log = logging.getLogger("modelgenerator")
T = TypeVar("T")


def main(settings: Settings, stop: Stop) -> None:
    """Train and publish until told to stop; start over when the data topic was recreated.

    The signing key is read once, so that its file may be taken away after the start. Whether it is
    trusted is checked at each publication.
    """
    use_threads()
    key = own_key(settings, make=True)
    while True:
        try:
            train(settings, key, stop)
        except TopicRecreated:
            log.warning("%s was deleted and recreated; training starts over", settings.data_topic)


def train(settings: Settings, key: SigningKey, stop: Stop) -> None:
    """Read records, train on them, publish models; raises `Stopped` or `TopicRecreated`."""
    schema, trained_to = asked(settings, stop, look_up)
    width = len(schema.feature_names) if schema else None
    trainer = Trainer(recipes(settings.window), settings.window, settings.retrain_every, width)
    with (
        Intake(trainer, has_model=trained_to is not None) as intake,
        closing(DataFeed(settings, intake, stop)) as data,
        closing(StatusFeed(settings, stop)) as statuses,
    ):
        while True:
            stop.check()
            suspend_failed(statuses, trainer)
            publications = trainer.observe(data.poll())
            while found := stop.until_stopped(partial(next, publications, None)):
                if found.adds_to(trained_to):
                    schema = asked(settings, stop, look_up)[0]  # a newer one counts at once
                    try:
                        version = publish_trained(settings, key, found, schema, stop)
                    except ModelError:
                        trainer.suspend(found.recipe)
                    else:
                        if version:
                            statuses.watch(version, found.recipe)
                            trained_to, intake.has_model = found.trained_to, True
                suspend_failed(statuses, trainer)  # what was read at once may give many models
            intake.say_why_no_model()


def suspend_failed(statuses: StatusFeed, trainer: Trainer) -> None:
    """Suspend recipes whose models predictors refused or barred."""
    for recipe in statuses.poll():
        trainer.suspend(recipe)


def look_up(settings: Settings, stop: Stop) -> tuple[Schema | None, dict[str, int] | None]:
    """Return the schema, and what the newest model on the topic was trained to."""
    create_missing_topics(settings, log)
    with clients.closing(clients.consumer(settings)) as consumer:
        return newest_schema(consumer, settings, stop), trained_already(consumer, settings, stop)


def asked(settings: Settings, stop: Stop, call: Callable[[Settings, Stop], T]) -> T:
    """Return what `call` finds on the brokers, however long they are away."""
    return clients.connect(partial(call, settings, stop), settings, stop, log)


if __name__ == "__main__":
    run("modelgenerator", Settings, main)
