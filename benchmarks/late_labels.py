"""Throughput with labels on a topic of their own, beside the same labels inside the records.

Both are measured in one run, in turns, on the same broker: the records are on the topic, and each
label 1,000 records later, before a predictor starts. It is timed from its first to its last commit.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from local.kafka import LocalKafka
from local.process import Process, check_running
from local.services import settings_in
from stream.arguments import argument_parser
from stream.records import Label, Record, encode_label, encode_record
from tests.services import Services
from tests.topics import Topics

PARTITIONS = 3
DELAY = 1_000


def own_topics(broker: str, folder: Path) -> dict[str, str]:
    """Return the settings of services on topics that nobody else uses."""
    name = f"bench{time.time_ns()}"
    return {
        **settings_in(folder, broker),
        "DATA_TOPIC": f"{name}.data",
        "MODEL_TOPIC": f"{name}.model",
        "PREDICTION_TOPIC": f"{name}.prediction",
        "GROUP_ID": name,
        "LOG_FILE": str(folder / f"{name}.log"),
    }


def write(topics: Topics, records: int, inside: bool) -> None:
    """Write records, and their labels inside or on their own topic."""
    settings, now = topics.settings, int(1000 * time.time()) - records
    for id in range(records + DELAY):
        if id < records:
            topics.producer.send(
                settings.data_topic,
                encode_record(Record(id, [0.5, -0.25], id % 2 if inside else None)),
                partition=id % PARTITIONS,
                timestamp_ms=now + id,
            )
        if not inside and (labelled := id - DELAY) >= 0:
            topics.producer.send(
                settings.label_topic,
                encode_label(Label(labelled % 2, labelled)),
                partition=labelled % PARTITIONS,
                timestamp_ms=now + id,
            )
    topics.producer.flush(60)


def speed(
    admin: KafkaAdminClient, group: str, predictor: Process, goal: int
) -> tuple[float, float]:
    """Return the offsets a second that a predictor commits until they are `goal`, and µs of each.

    The µs are CPU time, which depends less on what else the machine does.
    """

    def committed() -> int:
        check_running([predictor])
        try:
            found = admin.list_group_offsets(group)[group]
        except KafkaError:
            return 0
        return sum(offset.offset for offset in found.values())

    def cpu_seconds() -> float:
        fields = Path(f"/proc/{predictor.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    while not (first := committed()):
        time.sleep(0.01)
    begun, cpu = time.monotonic(), cpu_seconds()
    while (last := committed()) < goal:
        time.sleep(0.01)
    count = last - first
    return count / (time.monotonic() - begun), 1e6 * (cpu_seconds() - cpu) / count


def measure(broker: str, folder: Path, records: int, inside: bool) -> float:
    """Return the records a second of one predictor."""
    env = own_topics(broker, folder)
    with Topics(env, PARTITIONS) as topics:
        topics.publish(1)
        write(topics, records, inside)
        predictor = Services(env, folder)("predictor")
        try:
            goal = records * (1 if inside else 2)
            return records / goal * speed(topics.admin, topics.group, predictor, goal)[0]
        finally:
            predictor.stop()


def main() -> None:
    """Measure both in turns, and print the ratio of the medians."""
    parser = argument_parser("python -m benchmarks.late_labels", __doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable()
    found: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "kafka") as broker:
        for _ in range(options.rounds):
            for inside, speeds in found.items():
                speeds.append(
                    measure(broker.bootstrap_servers, Path(name), options.records, inside)
                )
                where = "inside" if inside else "on a topic of their own"
                print(f"labels {where}: {speeds[-1]:,.0f} records/s", flush=True)
    ratio = median(found[False]) / median(found[True])
    print(f"with labels on a topic of their own: {ratio:.2f} of the throughput")


if __name__ == "__main__":
    main()
