"""A run through the real loop: Kafka, the modelgenerator, the signed models, the predictor."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.adaptation.metrics import lateness
from benchmarks.adaptation.runs import Run, figures
from benchmarks.adaptation.streams import Stream
from datagenerator.pace import Pace
from local.process import Failed, Process, check_running, stop
from local.services import settings_in
from stream import clients, reading
from stream.models import Envelope, unpack
from stream.records import (
    Label,
    Prediction,
    Record,
    decode_prediction,
    encode_label,
    encode_record,
    encode_schema,
)
from stream.service import Stop
from stream.settings import StreamSettings
from stream.topics import create_missing_topics
from tests.services import Services, await_line, children

SILENCE_SECONDS = 120.0
"""Longest that a run waits for its next prediction."""


def through_kafka(run: Run, servers: str, folder: Path) -> dict[str, Any]:
    """Send a stream at its rate, and return the figures of what was predicted.

    Parameters
    ----------
    servers : str
        Of a running broker. The topics are its own, and are deleted at the end.
    folder : Path
        For keys and logs.

    Raises
    ------
    Failed
        When a service ends or predicts nothing any more; the message has the end of its log.
    """
    stream, name = run.make_stream(), f"adapt-{uuid.uuid4().hex[:8]}"
    env = {
        **run.settings,
        **settings_in(folder, servers),
        "DATA_TOPIC": f"{name}.data",
        "MODEL_TOPIC": f"{name}.model",
        "PREDICTION_TOPIC": f"{name}.prediction",
        "GROUP_ID": name,
    }
    settings = StreamSettings.model_validate({key.lower(): value for key, value in env.items()})
    with ExitStack() as stack:
        stack.enter_context(_topics(settings))
        consumer = stack.enter_context(clients.closing(clients.consumer(settings)))
        producer = stack.enter_context(clients.closing(clients.producer(settings)))
        producer.send(settings.schema_topic, encode_schema(stream.schema), key=b"schema").get(30)
        start = Services(env, folder)
        services = [start("modelgenerator"), start("predictor")]
        stack.callback(stop, services)
        await_line(services[0], f"reading {settings.data_topic}")
        await_line(services[1], "n=0 ")
        watch = Watch(consumer, settings, services)
        send(stream, run, settings, producer, watch)
        while len(watch.predictions) < len(stream.rows):
            watch.look()
        cpu = {name: used / len(stream.rows) * 1_000 for name, used in watch.cpu().items()}
        stop(services)
        published = {each.version: each for each in envelopes(consumer, settings)}
    seconds = _most(sorted(watch.seconds))
    return found(stream, watch.predictions, published) | {"cpu": cpu, "seconds_95": seconds}


def send(
    stream: Stream, run: Run, settings: StreamSettings, producer: KafkaProducer, watch: Watch
) -> None:
    """Send the records, and each label with its record or so many records later."""
    pace = Pace(run.rate)
    records = enumerate(zip(stream.rows, stream.labels, strict=True))
    sent = 0
    while sent < len(stream.rows):
        for _ in range(min(pace.take(), len(stream.rows) - sent)):
            id, (row, label) = next(records)
            record = Record(id, row, None if run.delay else label)
            producer.send(settings.data_topic, encode_record(record), partition=0)
            if run.delay and (late := id - run.delay) >= 0:
                value = encode_label(Label(stream.labels[late], late))
                producer.send(settings.label_topic, value, partition=0)
            sent = id + 1
        watch.look()


class Watch:
    """Reads the predictions while they come, and looks after the services.

    Attributes
    ----------
    predictions : dict of int to Prediction
        By the number of the record.
    seconds : list of float
        From when each record was sent until its prediction was read here.
    """

    def __init__(
        self, consumer: KafkaConsumer, settings: StreamSettings, services: list[Process]
    ) -> None:
        self.predictions: dict[int, Prediction] = {}
        self.seconds: list[float] = []
        self._services = services
        self._consumer = consumer
        self._place = TopicPartition(settings.prediction_topic, 0)
        consumer.assign([self._place])
        consumer.seek(self._place, 0)
        self._last = time.monotonic()
        self._cpu_before: dict[str, float] = {}

    def look(self) -> None:
        """Take the predictions that have come."""
        check_running(self._services)
        for record in self._consumer.poll(timeout_ms=20).get(self._place, ()):
            if not self.predictions:  # what the start takes does not depend on the stream
                self._cpu_before = self._cpu_seconds()
            prediction = decode_prediction(record.value)
            if prediction.outcome is None:
                self.predictions[int(prediction.id)] = prediction
                self.seconds.append(time.time() - (prediction.time or 0) / 1_000)
                self._last = time.monotonic()
        if time.monotonic() - self._last > SILENCE_SECONDS:
            logs = "\n".join(process.tail() for process in self._services)
            raise Failed(f"no prediction within {SILENCE_SECONDS:g} s\n{logs}")

    def cpu(self) -> dict[str, float]:
        """Return the seconds of CPU time of each service since the first prediction."""
        return {name: used - self._cpu_before[name] for name, used in self._cpu_seconds().items()}

    def _cpu_seconds(self) -> dict[str, float]:
        return {
            process.name.partition("-")[0]: cpu_seconds(process.pid) for process in self._services
        }


def found(
    stream: Stream, predictions: dict[int, Prediction], published: dict[int, Envelope]
) -> dict[str, Any]:
    """Return the figures that follow from predictions and models."""
    counted = {id: each for id, each in predictions.items() if not each.seen}
    first: dict[int, int] = {}
    for id, prediction in sorted(predictions.items()):
        first.setdefault(prediction.model, id)
    trained_to = {version: each.trained_to.get("0", 0) for version, each in published.items()}
    late = sorted(
        lateness(first, trained_to)[1:]
    )  # the first model predicts what it was trained on
    probabilities = {
        id: each.probability for id, each in counted.items() if each.probability is not None
    }
    return {
        **figures(
            stream,
            {id: each.prediction for id, each in counted.items()},
            probabilities if len(probabilities) == len(counted) else None,
        ),
        **({"lateness": median(late), "lateness_95": _most(late)} if late else {}),
        "published": len(published),
        "reasons": Counter(each.reason.partition(" ")[0] for each in published.values()),
        "swaps": [
            [id, version, published[version].recipe, published[version].reason]
            for version, id in first.items()
        ][1:],
    }


def envelopes(consumer: KafkaConsumer, settings: StreamSettings) -> Iterator[Envelope]:
    """Yield the envelope of each model on the model topic."""
    place = TopicPartition(settings.model_topic, 0)
    start, end = reading.bounds(consumer, place)
    for record in reading.read_range(consumer, place, start, end, Stop()):
        part = unpack(record.value)
        if part.part == 1:
            yield part.envelope


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of those that it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(ticks) for ticks in fields[11:15])  # user, system, the same of ended children
    return own / os.sysconf("SC_CLK_TCK") + sum(map(cpu_seconds, children(pid)))


def _most(ascending: list[Any]) -> Any:
    """Return what 95 % do not exceed."""
    return ascending[int(0.95 * (len(ascending) - 1))]


@contextmanager
def _topics(settings: StreamSettings) -> Iterator[None]:
    create_missing_topics(settings, logging.getLogger("benchmark"))
    try:
        yield
    finally:
        with clients.closing(clients.admin(settings)) as admin:
            admin.delete_topics(list(settings.topics))
