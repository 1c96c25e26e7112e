"""Everything on one machine: a Kafka broker, the three services, one live line of figures.

``python -m local.demo`` runs until Ctrl-C. ``SECONDS=60`` ends it by itself and verifies the run.
The settings of the services pass through; with ``KAFKA_BOOTSTRAP_SERVERS`` that cluster is used,
on fresh topics.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import Field

from local.fetch import BrokerError
from local.figures import Figures
from local.kafka import LocalKafka
from local.process import Process, leashed, stop
from stream import clients
from stream.arguments import argument_parser
from stream.records import RecordError, decode_prediction, decode_rejected
from stream.service import Fatal, Stop
from stream.settings import SettingsError, StreamSettings, misspelt, read
from stream.topics import ensure_topics, partition_counts

SERVICES = ("datagenerator", "modelgenerator", "predictor")

STOP_SECONDS = 3.5
"""How long services may take to end, so that Ctrl-C ends everything within five."""

PATIENCE_SECONDS = 120.0
"""How long a run that is to end by itself waits for a prediction."""


class DemoSettings(StreamSettings):
    """Settings of the demo."""

    seconds: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds from the first prediction to the end and the verification; 0: endless",
    )


class Failed(Exception):
    """The demo cannot go on; the message says why."""


class Run:
    """One run: its topics, its services and what its predictions say.

    Parameters
    ----------
    settings : StreamSettings
        Name brokers and topics.
    env : dict of str to str
        Environment of the services.
    folder : Path
        Gets their logs.
    broker : LocalKafka or None
        Ends the run when it ends; ``None`` where the broker is somebody else's.
    """

    def __init__(
        self,
        settings: StreamSettings,
        env: dict[str, str],
        folder: Path,
        broker: LocalKafka | None,
    ) -> None:
        self.figures = Figures()
        self._settings = settings
        self._env = env
        self._folder = folder
        self._broker = broker
        self._services: dict[str, Process] = {}
        self._ends: dict[int, int] = {}
        self._live = sys.stdout.isatty()
        self._shown = 0.0
        self._served = False

    @contextmanager
    def services(self) -> Iterator[None]:
        """Make the topics, run the services, and end them."""
        log = logging.getLogger("demo")
        client = clients.connect(lambda: clients.admin(self._settings), self._settings, Stop(), log)
        with client:
            ensure_topics(client, self._settings, log)
            topics = [
                self._settings.data_topic,
                self._settings.prediction_topic,
                self._settings.rejected_topic,
            ]
            counts = partition_counts(client, topics)
        data, prediction, rejected = (
            [TopicPartition(topic, number) for number in range(counts[topic])] for topic in topics
        )
        self._data = data
        self._consumer: KafkaConsumer = clients.connect(
            lambda: clients.consumer(self._settings), self._settings, Stop(), log
        )
        self._consumer.assign(prediction + rejected)
        self._consumer.seek_to_beginning()
        try:
            for name in SERVICES:
                self._services[name] = Process(
                    name,
                    [sys.executable, "-m", f"{name}.app"],
                    self._folder / f"{name}.log",
                    env=self._env,
                )
            yield
        finally:
            stop(list(self._services.values()), STOP_SECONDS)
            clients.close(self._consumer)

    def watch(self, seconds: float) -> None:
        """Show the figures for so many seconds after the first prediction; 0 is for ever."""
        begun = time.monotonic()
        end = None
        while end is None or time.monotonic() < end:
            self._update()
            if seconds and end is None:
                if self.figures.predictions:
                    end = time.monotonic() + seconds
                elif time.monotonic() - begun > PATIENCE_SECONDS:
                    raise Failed(f"no prediction within {PATIENCE_SECONDS:g} s")

    def finish(self) -> None:
        """Stop the services, the predictor once it has predicted all that there is."""
        self._end("datagenerator")
        self._count_data()
        lag, since = self.figures.lag(self._ends), time.monotonic()
        while lag:
            self._update()
            left = self.figures.lag(self._ends)
            if left < lag:
                lag, since = left, time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                raise Failed(f"of {lag:,} records none was predicted in {PATIENCE_SECONDS:g} s")
        self._end("modelgenerator")
        self._end("predictor")
        self._show(time.monotonic(), "\n")

    def verify(self, log_file: Path) -> None:
        """Check the whole run from outside."""
        command = [sys.executable, "-m", "predictor.verify", "--log", str(log_file)]
        with subprocess.Popen(  # noqa: S603 - the project's own command
            leashed(command), stdin=subprocess.PIPE, env=self._env
        ) as verifier:
            if verifier.wait() != 0:
                raise Failed("the verification did not hold")
        if not self.figures.swaps:
            raise Failed("no model was swapped")

    def _update(self) -> None:
        for partition, records in self._consumer.poll(timeout_ms=200).items():
            for record in records:
                try:
                    if partition.topic == self._settings.prediction_topic:
                        self.figures.predicted(decode_prediction(record.value))
                    else:
                        self.figures.reject(decode_rejected(record.value).source)
                except RecordError as error:
                    raise Failed(
                        f"{partition.topic} partition {partition.partition}"
                        f" offset {record.offset}: {error}"
                    ) from None
        for name, process in self._services.items():
            if process.status is not None:
                raise Failed(f"{name} ended with status {process.status}\n{process.tail()}")
        if self._broker and not self._broker.running:
            raise Failed(f"the broker ended\n{self._broker.tail()}")
        now = time.monotonic()
        first = self.figures.model is not None and not self._served
        if first or now - self._shown >= (0.5 if self._live else 5.0):
            self._served = self.figures.model is not None
            with suppress(KafkaError):  # a broker that is slow now leaves the figures as they were
                self._count_data()
            self._show(now, "" if self._live else "\n")

    def _count_data(self) -> None:
        ends = self._consumer.end_offsets(self._data, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        self._ends = {partition.partition: end for partition, end in ends.items()}

    def _show(self, now: float, end: str) -> None:
        self._shown = now
        line = self.figures.line(now, self._ends)
        if self._live:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        print(line, end=end, flush=True)

    def _end(self, name: str) -> None:
        process = self._services.pop(name)
        status = process.stop()
        if status != 0:
            raise Failed(f"{name} ended with status {status} when told to\n{process.tail()}")


def run(settings: DemoSettings, folder: Path) -> None:
    """Run the demo with its files in a folder.

    Raises
    ------
    Failed
        When a service ends, or the run does not come out as it should.
    BrokerError, Fatal
        When there is no broker to run on.
    """
    with ExitStack() as stack:
        name = f"demo-{uuid.uuid4().hex[:8]}"
        if "kafka_bootstrap_servers" in settings.model_fields_set:
            broker, servers = None, settings.kafka_bootstrap_servers
        else:
            print("starting Kafka", flush=True)
            broker = LocalKafka(folder / "kafka")
            stack.callback(broker.kill)  # its data is thrown away: no need to close it well
            broker.start()
            servers = broker.bootstrap_servers
        topics = {
            "kafka_bootstrap_servers": servers,
            "data_topic": f"{name}.data",
            "model_topic": f"{name}.model",
            "prediction_topic": f"{name}.prediction",
        }
        log_file = folder / "predictor-accuracy.log"
        env = os.environ | {
            **{variable.upper(): value for variable, value in topics.items()},
            "GROUP_ID": name,
            "LOG_FILE": str(log_file),
            "SIGNING_KEY": str(folder / "keys" / "signing.pem"),
            "TRUSTED_KEYS": str(folder / "keys" / "trusted"),
        }
        print(f"Kafka on {servers}, topics {name}.*, logs in {folder}", flush=True)
        demo = Run(settings.model_copy(update=topics), env, folder, broker)
        with demo.services():
            demo.watch(settings.seconds)
            demo.finish()
            demo.verify(log_file)
        figures = demo.figures
        print(
            f"demo: {figures.predictions} predictions, accuracy {figures.accuracy or 0:.4f},"
            f" {len(figures.versions)} models, {figures.rejected} rejected, verified"
        )


def main() -> int:
    """Run the demo; return its exit status."""
    argument_parser("python -m local.demo", __doc__, DemoSettings).parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)  # what matters of it is said here
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = read(DemoSettings)
    except SettingsError as error:
        print(error)
        return 2
    for line in misspelt(DemoSettings):
        print(line, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    try:
        run(settings, folder)
    except KeyboardInterrupt:
        print("\ndemo: stopped" + (" before it was verified" if settings.seconds else ""))
        shutil.rmtree(folder)
        return 1 if settings.seconds else 0
    except (Failed, BrokerError, Fatal, KafkaError) as error:
        shutil.rmtree(folder / "kafka" / "data", ignore_errors=True)
        reason, _, details = str(error).partition("\n")
        print(f"\n{details}\nlogs are kept in {folder}\ndemo: failed: {reason}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
