from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from local.fetch import BrokerError
from local.kafka import LocalKafka
from local.process import leashed
from tests.services import ROOT, eventually, gone

PARTITION = TopicPartition("kept", 0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    # A killed broker can register again once its old session has timed out.
    with LocalKafka(tmp_path, properties={"broker.session.timeout.ms": "3000"}) as broker:
        yield broker


def write(broker: LocalKafka, value: bytes) -> None:
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        producer.send(PARTITION.topic, value, partition=0).get(timeout=30)


def end(broker: LocalKafka) -> int:
    with closing(KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)) as consumer:
        return int(consumer.end_offsets([PARTITION])[PARTITION])


def test_what_was_written_is_there_after_kill_9_and_a_new_start(broker: LocalKafka) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)) as admin:
        admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics(["kept"])
    write(broker, b"first")
    servers, pid = broker.bootstrap_servers, broker.pid
    broker.kill()
    assert pid
    assert gone(pid)
    broker.start()
    write(broker, b"second")
    assert (end(broker), broker.bootstrap_servers) == (2, servers)


def test_a_stopped_broker_leaves_no_process(broker: LocalKafka) -> None:
    pid = broker.pid
    assert pid
    broker.stop()
    assert gone(pid)
    assert not broker.running


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(BrokerError, match=r"num\.network\.threads"),
        LocalKafka(tmp_path, properties={"num.network.threads": "none"}),
    ):
        pass


def test_a_broker_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from local.kafka import LocalKafka\n"
        "broker = LocalKafka(Path(sys.argv[1])); broker.start()\n"
        "print(broker.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        leashed([sys.executable, "-c", code, str(tmp_path)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        owner.kill()
    eventually(lambda: gone(pid), 60, f"broker {pid} still runs")
