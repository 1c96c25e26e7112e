"""The compose files, run with the commands that a user types, and what comes out of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from datagenerator.settings import Settings as DatageneratorSettings
from modelgenerator.settings import Settings as ModelgeneratorSettings
from predictor.settings import PredictorSettings
from stream.settings import StreamSettings
from tests.checker import check
from tests.services import ROOT, eventually
from tests.snapshot import Report

V1 = ("docker-compose",)
V2 = ("docker", "compose")
KAFKA = ("-f", "docker-compose.kafka.yml")
CLUSTER = ("-f", "docker-compose.cluster.yml")
MONITORING = ("-f", "docker-compose.yml", "-f", "monitoring/docker-compose.yml")
SETTINGS: dict[str, type[StreamSettings]] = {
    "datagenerator": DatageneratorSettings,
    "modelgenerator": ModelgeneratorSettings,
    "predictor": PredictorSettings,
}
APPS = tuple(SETTINGS)
PROJECT = "compose-test"
NETWORK = "kafka-network"


def run(
    *command: str,
    env: Mapping[str, str] | None = None,
    seconds: float = 300.0,
    status: int | None = 0,
) -> str:
    """Run a command in the repository's root; return all it wrote."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=surroundings() | dict(env or {}),
        timeout=seconds,
    )
    if status is not None and done.returncode != status:
        pytest.fail(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def surroundings() -> dict[str, str]:
    """Return the environment without the settings that a developer's shell may carry."""
    settings = {name for service in SETTINGS.values() for name in service.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.lower() not in settings}
    return kept | {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_HTTP_TIMEOUT": "300"}


def inspect(container: str) -> dict[str, Any]:
    """Return what the engine knows of a container."""
    found: list[dict[str, Any]] = json.loads(run("docker", "inspect", container))
    return found[0]


def exit_statuses() -> dict[str, int]:
    """Return the exit status of each service whose container has ended."""
    containers = run("docker", "ps", "-aq", "-f", "status=exited", "-f", _OURS).split()
    found = {}
    for container in containers:
        state = inspect(container)
        service = state["Config"]["Labels"]["com.docker.compose.service"]
        if service in APPS:
            found[service] = state["State"]["ExitCode"]
    return found


class Stack:
    """A project of compose's: its commands, its containers, its topics.

    Parameters
    ----------
    compose : sequence of str
        The command, `V1` or `V2`.
    folder : Path
        Gets what is copied out of the containers.
    servers : str
        Brokers, as the host reaches them.
    kafka : sequence of str
        Names the compose file of the brokers.
    """

    def __init__(
        self,
        compose: Sequence[str],
        folder: Path,
        servers: str = "localhost:9092",
        kafka: Sequence[str] = KAFKA,
    ) -> None:
        self._compose = compose
        self._folder = folder
        self._servers = servers
        self._kafka = kafka
        self._reader: KafkaConsumer | None = None
        self._seen = 0

    def __call__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        seconds: float = 300.0,
        status: int | None = 0,
    ) -> str:
        """Run a command of compose on the services."""
        if {"up", "down"} & set(arguments):
            _remember_volumes()
        return run(*self._compose, *arguments, env=env, seconds=seconds, status=status)

    def kafka(self, *arguments: str, seconds: float = 300.0, status: int | None = 0) -> str:
        """Run a command of compose on the brokers."""
        return self(*self._kafka, *arguments, seconds=seconds, status=status)

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers that run."""
        labels = {"project": PROJECT, "service": service, "oneoff": "False"}
        filters = [f"--filter=label=com.docker.compose.{n}={v}" for n, v in labels.items()]
        return sorted(run("docker", "ps", "-q", "--no-trunc", *filters).split())

    def container(self, service: str) -> str:
        """Return the id of a service's only container."""
        (found,) = eventually(lambda: self.containers(service), message=f"{service} runs")
        return found

    def await_health(self, service: str, status: str) -> None:
        """Wait until the health check of a service's only container says so."""
        eventually(
            lambda: inspect(self.container(service))["State"]["Health"]["Status"] == status,
            120,
            f"{service} is {status}",
        )

    def signal(self, service: str, number: signal.Signals) -> None:
        """Send a signal to the process of a service's only container."""
        # A container that is being started again has the process 0 for a moment.
        pid: int = eventually(lambda: inspect(self.container(service))["State"]["Pid"], 60)
        os.kill(pid, number)

    def consume(self, topic: str, messages: int = 3) -> list[dict[str, Any]]:
        """Read the first records of a topic with the console consumer, as a user does."""
        command = "kafka-console-consumer --bootstrap-server localhost:9092 --from-beginning"
        options = ("--topic", topic, "--max-messages", str(messages), "--timeout-ms", "90000")
        output = self.kafka("exec", "-T", "broker", *command.split(), *options)
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        assert len(found) == messages, output
        return found

    def ends(self, topic: str) -> int:
        """Return how many offsets a topic has in all its partitions, once a broker answers."""
        offsets: list[dict[int, int]] = []

        def asked() -> bool:
            found = self._offsets(topic)
            offsets.append(found or {})
            return found is not None

        eventually(asked, 120, "a broker answers")
        return sum(offsets[-1].values())

    def ids(self, topic: str) -> list[Any]:
        """Return the ids of all records of a topic, partition by partition."""
        return [record["id"] for record in self.records(topic)]

    def records(self, topic: str) -> list[dict[str, Any]]:
        """Return all records of a topic, partition by partition."""
        found = []
        with _consumer(self._servers) as reader:
            offsets = self._offsets(topic) or {}
            ends = {TopicPartition(topic, p): end for p, end in offsets.items()}
            for place, end in ends.items():
                reader.assign([place])
                reader.seek_to_beginning(place)
                while (reader.position(place) or 0) < end:  # None where no broker answers
                    for record in reader.poll(timeout_ms=200).get(place, ()):
                        found.append(orjson.loads(record.value))
        return found

    def await_more(self, records: int = 200, seconds: float = 180.0) -> None:
        """Wait for so many more predictions."""
        goal = self._most_seen() + records
        eventually(
            lambda: self._most_seen() >= goal,
            seconds,
            lambda: f"{goal} predictions, not {self._seen}\n{self._state()}",
        )

    def _state(self) -> str:
        """Return the committed ends of the topics and the log lines that are not about models."""
        topics = "queueing.data", "queueing.label", "queueing.model", "streaming.prediction"
        lines = self("logs", "--no-color", status=None).splitlines()
        return "\n".join(
            [
                *(f"{topic}: {self._offsets(topic)}" for topic in topics),
                *(line for line in lines if " model=" not in line and ": model " not in line),
            ]
        )

    def _most_seen(self) -> int:
        """Return how many predictions were ever seen: a broker that starts may not know them."""
        self._seen = max(self._seen, self.ends("streaming.prediction"))
        return self._seen

    def check(self, seconds: float = 120.0) -> Report:
        """End the stream, wait until all of it is predicted, and check every invariant."""
        self("stop", "datagenerator")
        eventually(self._settled, seconds, "everything is predicted and committed")
        trusted = self._copy(self.container("modelgenerator"), "/keys/trusted", "trusted")
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": self._servers,
            "DATA_TOPIC": "queueing.data",
            "MODEL_TOPIC": "queueing.model",
            "PREDICTION_TOPIC": "streaming.prediction",
            "GROUP_ID": "predictor",
            "TRUSTED_KEYS": str(trusted),
        }
        report = check(env, self.logs())
        assert report.predictions > 0
        assert report.log_lines > 0
        assert report.recomputed > 0, report.not_checked
        return report

    def logs(self) -> list[Path]:
        """Copy the log file out of each replica of the predictor, once it is there."""

        found = []
        for container in self.containers("predictor"):
            there = ("docker", "exec", container, "test", "-s", "/usr/app/predictor.log")
            eventually(partial(_succeeds, *there), 60, f"{container} has a log")
            found.append(self._copy(container, "/usr/app/predictor.log", f"{container[:12]}.log"))
        return found

    def close(self) -> None:
        """Disconnect from the brokers."""
        if self._reader:
            self._reader.close(autocommit=False)

    def _copy(self, container: str, source: str, name: str) -> Path:
        target = self._folder / name
        run("rm", "-rf", str(target))
        run("docker", "cp", f"{container}:{source}", str(target))
        return target

    def _offsets(self, topic: str) -> dict[int, int] | None:
        """Return the end of each partition, nothing for no topic, ``None`` for no answer."""
        try:
            if self._reader is None:
                self._reader = _consumer(self._servers, group_id="predictor")
            partitions = self._reader.partitions_for_topic(topic) or ()
            ends = self._reader.end_offsets(
                [TopicPartition(topic, p) for p in partitions], timeout_ms=10_000
            )
        except (KafkaError, OSError):
            return None
        return {place.partition: end for place, end in ends.items()}

    def _settled(self) -> bool:
        ends = self._offsets("queueing.data")
        if not ends or self._reader is None:
            return False
        for partition, end in ends.items():
            try:
                committed = self._reader.committed(
                    TopicPartition("queueing.data", partition), timeout_ms=5_000
                )
            except KafkaError:
                return False
            if (committed or 0) < end:
                return False
        return True


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _consumer(servers: str, **options: Any) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=servers.split(","),
        isolation_level="read_committed",
        enable_auto_commit=False,
        metadata_max_age_ms=2_000,
        **options,
    )


@contextmanager
def clean_engine() -> Iterator[None]:
    """Leave no container, volume or network of the project, before and after."""
    made = not run("docker", "network", "ls", "-q", "-f", f"name=^{NETWORK}$").strip()
    _sweep()
    taken = run("docker", "ps", "-q", "-f", "publish=9092").strip()
    if taken:
        pytest.fail(f"port 9092 is taken by container {taken}; stop it first")
    if made:
        run("docker", "network", "create", NETWORK)
    try:
        yield
    finally:
        _sweep()
        if made:
            run("docker", "network", "rm", NETWORK, status=None)


def _sweep() -> None:
    _remember_volumes()
    containers = run("docker", "ps", "-aq", "-f", _OURS).split()
    if containers:
        run("docker", "rm", "-fv", *containers)
    _volumes.update(run("docker", "volume", "ls", "-q", "-f", _OURS).split())
    there = set(run("docker", "volume", "ls", "-q").split())
    if _volumes & there:
        run("docker", "volume", "rm", *(_volumes & there))
    _volumes.clear()


def _remember_volumes() -> None:
    """Note the volumes of all containers: those without a name stay when compose removes one."""
    containers = run("docker", "ps", "-aq", "-f", _OURS).split()
    if containers:
        mounts = run("docker", "inspect", *containers, "-f", "{{json .Mounts}}").splitlines()
        _volumes.update(m["Name"] for line in mounts for m in json.loads(line) if "Name" in m)


_OURS = f"label=com.docker.compose.project={PROJECT}"
_volumes: set[str] = set()
