"""Keeps training models on the newest labelled records, and publishes them."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from modelgenerator.data_feed import DataFeed, TopicRemade
from modelgenerator.publisher import own_key, publish_trained, trained_already
from modelgenerator.settings import Settings
from modelgenerator.status_feed import StatusFeed
from modelgenerator.trainer import Trainer, recipes
from stream import clients
from stream.keys import SigningKey
from stream.models import ModelError
from stream.reading import newest_schema
from stream.records import Schema
from stream.service import Stop, run
from stream.topics import create_missing_topics

log = logging.getLogger("modelgenerator")
T = TypeVar("T")


def main(settings: Settings, stop: Stop) -> None:
    """Train and publish until told to end; start afresh when the data topic was made again."""
    key = own_key(settings, make=True)
    while True:
        try:
            follow(settings, key, stop)
        except TopicRemade:
            log.warning("%s was made again: its records are others", settings.data_topic)


def follow(settings: Settings, key: SigningKey, stop: Stop) -> None:
    """Read, train, publish; raises `Stopped` or `TopicRemade`."""
    schema, done = asked(settings, stop, look_up)
    width = len(schema.feature_names) if schema else None
    trainer = Trainer(recipes(settings.window), settings.window, settings.retrain_every, width)
    feed, statuses = DataFeed(settings, stop), StatusFeed(settings, stop)
    try:
        while True:
            stop.check()
            heed(statuses, trainer)
            found = trainer.observe(feed.poll())
            while publication := stop.until_stopped(partial(next, found, None)):
                if any(offset > done.get(p, -1) for p, offset in publication.trained_to.items()):
                    schema = schema or asked(settings, stop, look_up)[0]
                    try:
                        version = publish_trained(settings, key, publication, schema, stop)
                    except ModelError:
                        trainer.sit_out(publication.recipe)
                    else:
                        if version:
                            statuses.watch(version, publication.recipe)
                heed(statuses, trainer)  # many models may come of what was read at once
    finally:
        feed.close()
        statuses.close()


def heed(statuses: StatusFeed, trainer: Trainer) -> None:
    """Have recipes sit out whose models predictors refused or barred."""
    for recipe in statuses.poll():
        trainer.sit_out(recipe)


def look_up(settings: Settings, stop: Stop) -> tuple[Schema | None, dict[str, int]]:
    """Return the schema, and what the newest model on the topic was trained to."""
    create_missing_topics(settings, log)
    with clients.closing(clients.consumer(settings)) as consumer:
        return newest_schema(consumer, settings, stop), trained_already(consumer, settings, stop)


def asked(settings: Settings, stop: Stop, call: Callable[[Settings, Stop], T]) -> T:
    """Return what `call` finds on the brokers, however long they are away."""
    return clients.connect(partial(call, settings, stop), settings, stop, log)


if __name__ == "__main__":
    run("modelgenerator", Settings, main)
