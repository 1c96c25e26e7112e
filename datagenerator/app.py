"""Sends records to the data topic at a rate, on from where the topic ends."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging
import threading
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from kafka.errors import KafkaError, MessageSizeTooLargeError

from datagenerator.outbox import Outbox
from datagenerator.pace import BURST, TICK_SECONDS, Pace, Progress
from datagenerator.settings import Settings
from datagenerator.sources import Source, SourceError, open_source
from datagenerator.topics import prepare
from stream.clients import admin, close, connect, producer
from stream.records import encode_record
from stream.refusals import raise_if_refused
from stream.service import Backoff, Fatal, Stop, Warnings, run

LOG = logging.getLogger("datagenerator")
T = TypeVar("T")


def main(settings: Settings, stop: Stop) -> None:
    """Send until told to end; where a send fails for good, go on from the ends of the topics."""
    s, pauses, warnings = settings, Backoff(), Warnings(LOG)
    try:
        source = open_source(s.stream, s.label, s.positive, s.seed, s.drift_every, s.repeat)
    except SourceError as error:
        raise Fatal(str(error)) from None
    if s.repeat and source.size:
        LOG.info("REPEAT=1: records from id %d on are repeats, that is, seen data", source.size)
    # The producer tries for ever, even where the broker refuses it or its certificate is refused.
    reach = partial(connect, lambda: close(admin(s)), s, stop, LOG)
    while True:
        # Only a send to a topic that vanished waits, and SIGTERM must not wait with it for long.
        client = connect(lambda: producer(s, max_block_ms=1_000), s, stop, LOG)
        try:
            send(s, source, Outbox(client, stop, LOG, reach), stop)
            stop.wait(threading.TIMEOUT_MAX)
        except MessageSizeTooLargeError as error:
            raise Fatal(f"{s.data_topic}: the broker refuses records: {error}") from None
        except (KafkaError, ValueError) as error:  # ValueError: a partition is gone
            raise_if_refused(error, s, "Write")
            warnings.warn("send", f"{s.data_topic}: {error!r}; going on from the topic's end")
        finally:
            close(client)
        stop.wait(next(pauses))


def send(s: Settings, source: Source, outbox: Outbox, stop: Stop) -> None:
    """Send what the topic lacks, until the source ends or ``COUNT`` is reached."""
    look = partial(prepare, s, source.schema, outbox, stop, LOG)
    next_ids = connect(look, s, stop, LOG)
    first, rate, partitions = min(next_ids), s.records_per_second, len(next_ids)
    LOG.info(
        "stream=%s topic=%s first_id=%d partitions=%d rate=%s",
        *(s.stream, s.data_topic, first, partitions, f"{rate:g}/s" if rate else "unlimited"),
    )
    records = source.records(first)
    head = stop.until_stopped(lambda: list(islice(records, 1)))
    todo = islice(chain(head, records), max(0, s.count - first) if s.count else None)
    pace, progress, id = Pace(rate), Progress(), first - 1
    while True:
        due = pace.take()
        batch = list(islice(todo, due))
        for record in batch:
            id = int(record.id)
            if id >= next_ids[id % partitions]:
                outbox.send(s.data_topic, encode_record(record), id % partitions)
        outbox.look()
        if len(batch) < due:
            break
        if line := progress.line(outbox.acknowledged):
            LOG.info("%s id=%d", line, id)
        stop.wait(TICK_SECONDS if due < BURST else 0)
    outbox.settle()
    LOG.info("done: %s ends with id %d; nothing more to send", s.stream, id)


if __name__ == "__main__":
    run("datagenerator", Settings, main)
