"""Everything on one machine: a Kafka broker, the services, a page, one live line of figures.

``python -m local.demo`` runs until Ctrl-C and then says what was seen. ``SECONDS=60`` ends it by
itself and verifies the run. The settings of the services are passed on. With
``KAFKA_BOOTSTRAP_SERVERS``, it uses that cluster, with new topics.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import Field

from local.figures import Figures
from local.kafka import LocalKafka
from local.process import Failed, Process, check_running, stop
from local.services import SERVICES, settings_in, start, start_dashboard
from stream import clients
from stream.arguments import argument_parser
from stream.records import RecordError, decode_prediction, decode_rejected
from stream.service import Fatal, Stop
from stream.settings import SettingsError, StreamSettings, misspelt, read
from stream.topics import create_missing_topics

STOP_SECONDS = 3.5
"""Timeout for the services to end, so that Ctrl-C ends everything within 5 s."""

PATIENCE_SECONDS = 120.0
"""Timeout for the next prediction, in a run that ends by itself."""


class DemoSettings(StreamSettings):
    """Settings of the demo."""

    seconds: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds from the first prediction to the end and the verification; 0: endless",
    )


class Demo:
    """The three services on topics of their own, and what their predictions show.

    Parameters
    ----------
    env : dict of str to str
        Environment of the services.
    folder : Path
        For their logs.
    broker : sequence of Process
        The demo ends when it ends; empty for a broker that was running before.
    """

    def __init__(
        self,
        settings: DemoSettings,
        env: dict[str, str],
        folder: Path,
        broker: Sequence[Process],
    ) -> None:
        self.figures = Figures()
        self._settings = settings
        self._env = env
        self._folder = folder
        self._broker = broker
        self._logs = {name: folder / f"{name}.log" for name in SERVICES}
        self._services: dict[str, Process] = {}
        self._ends: dict[int, int] = {}
        self._live = sys.stdout.isatty()
        self._next_line = 0.0
        self._page = ""
        self._last_output = time.monotonic()

    def __enter__(self) -> Self:
        settings, log = self._settings, logging.getLogger("demo")
        clients.connect(partial(create_missing_topics, settings, log), settings, Stop(), log)
        self._consumer: KafkaConsumer = clients.connected(clients.consumer, settings, Stop(), log)
        self._data = self._partitions(settings.data_topic)
        self._first = {*self._data, *self._partitions(settings.label_topic)}
        outputs = (settings.prediction_topic, settings.rejected_topic)
        self._outputs = [place for topic in outputs for place in self._partitions(topic)]
        self._consumer.assign([*self._outputs, *self._first])
        self._consumer.seek_to_beginning()
        for name, path in self._logs.items():
            self._services[name] = start(name, self._env, path)
        self._dashboard = start_dashboard(self._env, self._folder / "dashboard.log")
        return self

    def __exit__(self, *_: object) -> None:
        stop([*self._services.values(), self._dashboard], STOP_SECONDS)
        clients.close(self._consumer)

    def watch(self, seconds: float) -> None:
        """Show the figures until so many seconds after the first prediction; 0: without end."""
        end = math.inf
        while time.monotonic() < end:
            self._update()
            if seconds and self.figures.predictions:
                end = min(end, time.monotonic() + seconds)

    def finish(self) -> None:
        """Stop the services, the predictor after it has predicted every record."""
        self._stop("datagenerator")
        self._read_ends()
        while self.figures.lag(self._ends):
            self._update()
        self._stop("modelgenerator")
        self._stop("predictor")
        ends = self._consumer.end_offsets(self._outputs, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        while any((self._consumer.position(place) or 0) < end for place, end in ends.items()):
            self._update()  # outcomes that came since
        self._show("\n")

    def verify(self, log_file: Path) -> None:
        """Check the whole run from outside."""
        command = [sys.executable, "-m", "predictor.verify", "--log", str(log_file)]
        if Process("verify", command, None, env=self._env).wait() != 0:
            raise Failed("the verification failed")
        if not self.figures.swaps:
            raise Failed("no model was swapped")

    def report(self) -> list[str]:
        """Return lines that say what was seen, and why something was not."""
        source, models = (
            self._logs[name].read_text() for name in ("datagenerator", "modelgenerator")
        )
        drift_every = re.search(r" drift_every=(\d+)", source)
        lines = self.figures.report(int(drift_every[1]) if drift_every else 0)
        lines += re.findall(r" (done: .*)", source)[-1:]
        if not self.figures.predictions:
            lines += re.findall(r" (no model .*)", models)[-1:]
        return lines

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic)]

    def _update(self) -> None:
        """Add the next predictions to the figures, check the processes, show a line when due."""
        first, fetched = self.figures.model is None, self._consumer.poll(timeout_ms=200)
        if not first:
            self._consumer.pause(*self._first)  # only the first model's needs are read from there
        for place, records in fetched.items():
            for record in records:
                self._add(place, record)
        check_running([*self._services.values(), *self._broker])
        self._say_page()
        now = time.monotonic()
        if fetched.keys() - self._first or not (first or self.figures.lag(self._ends)):
            self._last_output = now
        elif self._settings.seconds and now - self._last_output > PATIENCE_SECONDS:
            raise Failed(f"no prediction within {PATIENCE_SECONDS:g} s")
        if now >= self._next_line or (first and self.figures.model):
            with suppress(KafkaError):  # a slow broker leaves the last figures in place
                self._read_ends()
            self._show("" if self._live else "\n")

    def _say_page(self) -> None:
        """Say once where the page is, or why there is none: the run goes on without it."""
        if self._page:
            return
        if found := re.search(r" the page is at (\S+)", self._dashboard.log()):
            self._page = f"page: {found[1]}"
        elif self._dashboard.status is not None:
            self._page = f"no page: {self._dashboard.tail(1).strip() or 'it ended'}"
        if self._page:
            print(f"\r\x1b[K{self._page}" if self._live else self._page, flush=True)

    def _add(self, place: TopicPartition, record: Any) -> None:
        try:
            if place in self._data:
                self.figures.written(record.value)
            elif place.topic == self._settings.label_topic:
                self.figures.labelled(record.value)
            elif place.topic == self._settings.prediction_topic:
                self.figures.predicted(decode_prediction(record.value), record.timestamp)
            else:
                rejected = decode_rejected(record.value)
                self.figures.reject((place.partition, rejected.last), rejected.reason)
        except RecordError as error:
            raise Failed(
                f"{place.topic} partition {place.partition} offset {record.offset}: {error}"
            ) from None

    def _read_ends(self) -> None:
        ends = self._consumer.end_offsets(self._data, timeout_ms=clients.REQUEST_TIMEOUT_MS)
        self._ends = {place.partition: end for place, end in ends.items()}

    def _show(self, end: str) -> None:
        now = time.monotonic()
        self._next_line = now + (0.5 if self._live else 5.0)
        line = self.figures.line(now, self._ends, curve=self._live)
        if " done: " in self._logs["datagenerator"].read_text():
            line += ", end of the data"
        if self._live:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        print(line, end=end, flush=True)

    def _stop(self, name: str) -> None:
        process = self._services.pop(name)
        status = process.stop()
        if status != 0:
            raise Failed(f"{name} ended with status {status} after SIGTERM\n{process.tail()}")


def run(settings: DemoSettings, folder: Path) -> None:
    """Run the demo with its files in a folder, and say at the end what was seen.

    Raises
    ------
    Failed, Fatal
        When there is no broker, a service ends, or the run or its verification fails.
    """
    with ExitStack() as stack:
        name = f"demo-{uuid.uuid4().hex[:8]}"
        processes: list[Process] = []
        servers = settings.kafka_bootstrap_servers
        if "kafka_bootstrap_servers" not in settings.model_fields_set:
            print("starting Kafka", flush=True)
            broker = LocalKafka(folder / "kafka")
            stack.callback(broker.kill)  # its data is deleted: it need not close it
            broker.start()
            processes, servers = broker.processes, broker.bootstrap_servers
        topics = {
            "kafka_bootstrap_servers": servers,
            "data_topic": f"{name}.data",
            "model_topic": f"{name}.model",
            "prediction_topic": f"{name}.prediction",
        }
        log_file = folder / "predictor-accuracy.log"
        env = os.environ | {
            **settings_in(folder, servers),
            **{variable.upper(): value for variable, value in topics.items()},
            "GROUP_ID": name,
            "LOG_FILE": str(log_file),
        }
        print(f"Kafka on {servers}, topics {name}.*, logs in {folder}", flush=True)
        demo = Demo(settings.model_copy(update=topics), env, folder, processes)
        with demo:
            stack.callback(lambda: print("", *demo.report(), sep="\n"))  # once they have stopped
            demo.watch(settings.seconds)
            demo.finish()
            demo.verify(log_file)
    figures = demo.figures
    print(
        f"demo: {figures.predictions} predictions, accuracy {figures.accuracy or 0:.4f},"
        f" {figures.swaps + 1} models, {figures.rejected} rejected, verified"
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
        print("demo: stopped" + (" before it was verified" if settings.seconds else ""))
        shutil.rmtree(folder)
        return 1 if settings.seconds else 0
    except (Failed, Fatal, KafkaError) as error:
        shutil.rmtree(folder / "kafka" / "data", ignore_errors=True)
        reason, _, details = str(error).partition("\n")
        print(f"\n{details}\nlogs are kept in {folder}\ndemo: failed: {reason}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
