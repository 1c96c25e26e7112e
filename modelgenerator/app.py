"""Keeps training models on the newest labelled records, and publishes them."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

from contextlib import closing
from functools import partial
from itertools import chain

from modelgenerator.before import look_back
from modelgenerator.data_feed import DataFeed
from modelgenerator.feed import StartOver, log
from modelgenerator.intake import Intake
from modelgenerator.join import Join
from modelgenerator.label_feed import LabelFeed
from modelgenerator.schema_feed import SchemaFeed
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from modelgenerator.status_feed import StatusFeed
from modelgenerator.trained import TrainedModels
from modelgenerator.training.trainer import new_trainer
from stream import clients
from stream.keys import SigningKey
from stream.models import ModelError
from stream.parallel import use_threads
from stream.service import Stop, run


def main(settings: Settings, stop: Stop) -> None:
    """Train and publish until told to stop; start over when the stream became another one.

    The signing key is read once, so that its file may be taken away after the start. Whether it is
    trusted is checked at each publication.
    """
    use_threads()
    key, afresh = own_key(settings, make=True), False
    while True:
        try:
            train(settings, key, stop, afresh)
        except StartOver as reason:
            log.warning("%s; training starts over", reason)
            afresh = True


def train(settings: Settings, key: SigningKey, stop: Stop, afresh: bool) -> None:
    """Read records, train on them, publish models; raises `Stopped` or `StartOver`.

    If it starts `afresh`, what the newest model was trained to says nothing of these records.
    """
    before = clients.connect(partial(look_back, settings, stop, afresh), settings, stop, log)
    trained_to = before.trained_to
    trainer = new_trainer(settings, before.layout)
    trainer.restore(before.archive)
    with (
        Intake(trainer, Join(settings.window), has_model=trained_to is not None) as intake,
        closing(DataFeed(settings, intake, stop)) as data,
        closing(LabelFeed(settings, intake, data, stop)) as labels,
        closing(SchemaFeed(settings, stop)) as schemas,
        closing(StatusFeed(settings, stop)) as statuses,
        closing(TrainedModels(settings, key, stop)) as models,
    ):
        while True:
            stop.check()
            schemas.follow(trainer, intake.read)
            trainer.suspend(*statuses.poll())
            trainer.keep_up(data.unread)
            publications = trainer.observe(chain(labels.poll(), data.poll()))
            while found := stop.until_stopped(partial(next, publications, None)):
                if found.adds_to(trained_to):
                    try:
                        place = models.publish(found)
                    except ModelError:
                        trainer.suspend(found.recipe)
                    else:
                        if place:
                            statuses.watch(place.version, found.recipe)
                            trainer.published(found, place)
                            # Later models are of later labels, maybe of older records.
                            trained_to, intake.has_model = None, True
                trainer.suspend(*statuses.poll())  # what was read at once may give many models
            models.sum_up()
            intake.say_why_no_model()


if __name__ == "__main__":
    run("modelgenerator", Settings, main)
