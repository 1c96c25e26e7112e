"""Three real brokers on this machine that form one cluster."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from local.fetch import fetch
from local.kafka import LocalKafka, free_port

BROKERS = 3


@contextmanager
def cluster(folder: Path) -> Iterator[list[LocalKafka]]:
    """Run three brokers, each also a controller, that keep three copies of everything."""
    ports = {node: (free_port(), free_port()) for node in range(1, BROKERS + 1)}
    voters = ",".join(f"{node}@127.0.0.1:{ports[node][1]}" for node in ports)
    brokers = [_broker(folder, node, *ports[node], voters) for node in ports]
    try:
        with ThreadPoolExecutor() as pool:  # a broker answers only once another one is up
            list(pool.map(LocalKafka.start, brokers))
        yield brokers
    finally:
        for broker in brokers:
            broker.kill()


def _broker(folder: Path, node: int, port: int, controller: int, voters: str) -> LocalKafka:
    home = folder / f"broker-{node}"
    shutil.copytree(fetch() / "formatted", home / "data")
    meta = home / "data" / "meta.properties"
    directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    own = {"node.id": str(node), "directory.id": directory}
    lines = [line.partition("=") for line in meta.read_text().splitlines()]
    meta.write_text("".join(f"{name}{eq}{own.get(name, value)}\n" for name, eq, value in lines))
    return LocalKafka(
        home,
        port,
        {
            "node.id": str(node),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "default.replication.factor": str(BROKERS),
            "min.insync.replicas": "2",
            "offsets.topic.replication.factor": str(BROKERS),
            "transaction.state.log.replication.factor": str(BROKERS),
            "transaction.state.log.min.isr": "2",
        },
    )
