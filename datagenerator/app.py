"""Sends records to the data topic at a rate, and resumes where the topic ends."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
import threading
from functools import partial
from itertools import islice

from kafka.errors import KafkaError

from datagenerator.outbox import Outbox
from datagenerator.pace import BURST, TICK_SECONDS, Progress, due, paced
from datagenerator.rows import Source
from datagenerator.sender import Sender
from datagenerator.settings import Settings
from datagenerator.sources import READ_SECONDS, open_source
from stream.clients import admin, close, closing, connect, producer
from stream.refusals import raise_if_refused
from stream.service import Backoff, Stop, Warnings, run

LOG = logging.getLogger("datagenerator")


def main(settings: Settings, stop: Stop) -> None:
    """Send until told to stop; after a failed send, resume at the end of the topic."""
    source = stop.deadline(READ_SECONDS, partial(open_source, settings, LOG.info))
    pauses, warnings = Backoff(), Warnings(LOG)
    if settings.repeat and source.size:
        LOG.info("REPEAT=1: records from id %d on repeat earlier ones", source.size)
    while True:
        # `max_block_ms`: a send to a topic that vanished waits, and SIGTERM must not wait with it.
        # `metadata_max_age_ms`: how soon new partitions are noticed.
        make = partial(producer, settings, max_block_ms=1_000, metadata_max_age_ms=5_000)
        with closing(connect(make, settings, stop, LOG)) as client:
            try:
                outbox = Outbox(client, stop, LOG, partial(check_refused, settings, stop))
                while send(settings, source, outbox, stop):
                    LOG.info("%s has more partitions now", settings.data_topic)
                stop.wait(threading.TIMEOUT_MAX)
            except (KafkaError, ValueError) as error:  # ValueError: a partition is gone
                raise_if_refused(error, settings, "Write")
                warnings.warn("send", f"{settings.data_topic}: {error!r}; resuming at its end")
        stop.wait(next(pauses))


def send(settings: Settings, source: Source, outbox: Outbox, stop: Stop) -> bool:
    """Send what the topics lack, to the end of the source or up to ``COUNT``.

    It returns true as soon as the topic has more partitions than are sent to, and all has arrived.
    """
    sender = Sender(settings, outbox, LOG)
    next_ids = sender.resume(source, stop)
    first, partitions = min(next_ids), len(next_ids)
    LOG.info(
        "stream=%s topic=%s first_id=%d partitions=%d rate=%s drift_every=%d",
        *(settings.stream, settings.data_topic, first, partitions),
        *(settings.rate_in_words, source.drift_every),
    )
    grown = outbox.partitions(settings.data_topic) > partitions
    ends = [end for end in (settings.count, grown and max(next_ids)) if end]
    records, pace = paced(settings, source, first)
    records = islice(records, max(0, min(ends) - first) if ends else None)
    progress, id = Progress(), first - 1
    while True:
        batch, ended = stop.deadline(READ_SECONDS, partial(due, pace, records))
        for timed in batch:
            id += 1
            if id >= next_ids[id % partitions]:
                sender.send(id, timed, id % partitions)
        sender.send_labels(sender.late.due(id))
        outbox.poll()
        caught_up = id + 1 >= max(next_ids)
        grown = caught_up and outbox.partitions(settings.data_topic) > partitions
        if grown or ended:
            break
        if line := progress.line(outbox.acknowledged):
            LOG.info("%s id=%d", line, id)
        stop.wait(TICK_SECONDS if len(batch) < BURST else 0)
    outbox.flush()
    if not grown:
        sender.finish(stop)
        LOG.info("done: %s ends with id %d; nothing more to send", settings.stream, id)
    return grown


def check_refused(settings: Settings, stop: Stop) -> None:
    """End the service if the broker refuses it: a producer by itself retries for ever."""
    connect(lambda: close(admin(settings)), settings, stop, LOG)


if __name__ == "__main__":
    run("datagenerator", Settings, main)
