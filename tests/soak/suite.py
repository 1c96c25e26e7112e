"""The suite that a soak runs: a broker, the services as processes, and what comes out of them."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from local.kafka import LocalKafka
from local.process import Process, stop
from stream import clients
from tests.services import END_SECONDS, ROOT, Services
from tests.soak.plan import REPLICAS
from tests.topics import Topics

PARTITIONS = 3


class Failed(Exception):
    """The soak found something that does not hold; the message says what."""


class Suite:
    """The services on a broker of their own.

    Parameters
    ----------
    broker : LocalKafka
        It runs.
    folder : Path
        Gets logs and keys.
    rate : float
        Records a second.
    """

    def __init__(self, broker: LocalKafka, folder: Path, rate: float) -> None:
        self.broker = broker
        self.env = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "DATA_TOPIC": "soak.data",
            "MODEL_TOPIC": "soak.model",
            "PREDICTION_TOPIC": "soak.prediction",
            "GROUP_ID": "soak",
            "DATA_PARTITIONS": str(PARTITIONS),
            "SIGNING_KEY": str(folder / "keys" / "signing.pem"),
            "TRUSTED_KEYS": str(folder / "keys" / "trusted"),
            "PREDICTOR_SECRET": str(folder / "keys" / "secret"),
            "RATE": str(rate),
            "RETRAIN_EVERY": "1000",
            "WINDOW": "1000",
        }
        self.logs = {f"predictor {name}": folder / f"accuracy-{name}" for name in REPLICAS}
        self.processes: dict[str, Process] = {}
        self._folder = folder
        self.topics = Topics(self.env, PARTITIONS)
        settings = self.topics.settings
        self._data = [TopicPartition(settings.data_topic, p) for p in range(PARTITIONS)]
        self._outputs: KafkaConsumer = clients.consumer(settings)
        self._next = {
            TopicPartition(topic, p): 0
            for topic in (settings.prediction_topic, settings.rejected_topic)
            for p in range(PARTITIONS)
        }
        self._outputs.assign(list(self._next))
        self._seek()
        self.answered = [0] * PARTITIONS
        self.model = 0

    def __enter__(self) -> Suite:
        for name in ("datagenerator", "modelgenerator", *self.logs):
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.send(signal.SIGCONT)
        stop(list(self.processes.values()))
        clients.close(self._outputs)
        self.topics.__exit__()

    def start(self, name: str) -> None:
        """Start a process; it appends to the log of an earlier one of this name."""
        service, _, replica = name.partition(" ")
        more = {"REPLICA": replica, "LOG_FILE": str(self.logs[name])} if replica else {}
        self.processes[name] = Process(
            name,
            [sys.executable, "-m", f"{service}.app"],
            self._folder / f"{name.replace(' ', '-')}.log",
            env=Services(self.env | more, self._folder).env,
            cwd=ROOT,
        )

    def end(self, *names: str) -> None:
        """Tell processes to end, which they do in time and with status 0."""
        for name, status in zip(
            names, stop([self.processes[n] for n in names], END_SECONDS), strict=True
        ):
            process = self.processes.pop(name)
            if status != 0:
                raise Failed(f"{name} ended with status {status} when told to\n{process.tail()}")

    def look(self) -> None:
        """Read what came out, for 100 ms at most, and see that everything is alive."""
        for name, process in self.processes.items():
            if process.status is not None:
                raise Failed(f"{name} ended with status {process.status}\n{process.tail()}")
        polled: dict[TopicPartition, list[Any]] = {}
        try:
            polled = self._outputs.poll(timeout_ms=100)
        except KafkaError:  # the broker is away, or was; a client may wait for a reset then
            self._seek()
        for place, records in polled.items():
            self._next[place] = records[-1].offset + 1
            for record in records:
                output = orjson.loads(record.value)
                partition, offset = output["source"]
                self.answered[partition] = max(self.answered[partition], offset + 1)
                self.model = max(self.model, output.get("model", 0))

    def _seek(self) -> None:
        for place, offset in self._next.items():
            self._outputs.seek(place, offset)

    def ends(self) -> list[int]:
        """Return where each partition of the data topic ends."""
        give_up = time.monotonic() + 60
        while True:
            try:
                found = self._outputs.end_offsets(self._data, timeout_ms=10_000)
            except KafkaError as error:
                if time.monotonic() > give_up:
                    raise Failed(f"the broker does not answer: {error!r}") from None
            else:
                return [found[place] for place in self._data]
