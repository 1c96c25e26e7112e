"""What `tests/checker.py` checks: everything on the topics, and what it found."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

READ_SECONDS = 150
"""Longer than the transaction of a killed producer stays open."""


class Row(NamedTuple):
    """A record of a topic."""

    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    time_ms: int = -1


@dataclass
class Snapshot:
    """Everything on the topics: rows by partition, and what the group committed.

    Attributes
    ----------
    starts : dict of str to dict of int to int
        First offsets of the partitions of each topic, by the name of its field here.
    """

    data: dict[int, list[Row]]
    predictions: dict[int, list[Row]]
    rejected: dict[int, list[Row]]
    models: list[Row]
    status: list[Row]
    committed: dict[int, tuple[int, str] | None]
    labels: dict[int, list[Row]] = field(default_factory=dict)
    rejected_labels: dict[int, list[Row]] = field(default_factory=dict)
    labels_committed: dict[int, tuple[int, str] | None] = field(default_factory=dict)
    starts: dict[str, dict[int, int]] = field(default_factory=dict)

    def start(self, topic: str, partition: int) -> int:
        """Return the first offset of a partition that retention has left."""
        return self.starts.get(topic, {}).get(partition, 0)


@dataclass
class Report:
    """What was checked; every invariant holds."""

    predictions: int = 0
    rejected: int = 0
    n: int = 0
    correct: int = 0
    seen: int = 0
    unlabelled: int = 0
    log_lines: int = 0
    recomputed: int = 0
    models: set[int] = field(default_factory=set)
    swaps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected_labels: int = 0
    held: int = 0
    not_checked: set[str] = field(default_factory=set)

    @property
    def accuracy(self) -> float:
        return self.correct / self.n if self.n else math.nan


class Published(NamedTuple):
    """A prediction or an outcome, and its offset."""

    offset: int
    fields: dict[str, Any]

    @property
    def counted(self) -> bool:
        """Whether `n` rises with it."""
        return (
            self.fields["label"] is not None
            and not self.fields.get("seen", False)
            and self.outcome in (None, "labelled")
        )

    @property
    def outcome(self) -> str | None:
        found: str | None = self.fields.get("outcome")
        return found

    @property
    def source(self) -> int:
        return int(self.fields["source"][1])


def take_snapshot(env: dict[str, str]) -> Snapshot:
    """Read every topic to its end."""
    data, models = env["DATA_TOPIC"], env["MODEL_TOPIC"]
    labels = env.get("LABEL_TOPIC", f"{data.removesuffix('.data')}.label")
    topics = {
        "data": data,
        "predictions": env["PREDICTION_TOPIC"],
        "rejected": f"{data}.rejected",
        "models": models,
        "status": f"{models}.status",
        "labels": labels,
        "rejected_labels": f"{labels}.rejected",
    }
    options = {
        "bootstrap_servers": env["KAFKA_BOOTSTRAP_SERVERS"].split(","),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
    }
    reader, group = KafkaConsumer(**options), KafkaConsumer(**options, group_id=env["GROUP_ID"])
    raw = KafkaConsumer(**options | {"isolation_level": "read_uncommitted"})

    def committed(topic: str) -> dict[int, tuple[int, str] | None]:
        return {
            partition: (found.offset, found.metadata) if found else None
            for partition in sorted(reader.partitions_for_topic(topic) or ())
            for found in [
                group.committed(
                    TopicPartition(topic, partition),
                    metadata=True,
                    timeout_ms=1_000 * READ_SECONDS,
                )
            ]
        }

    try:
        by_topic = {name: committed(topics[name]) for name in ("data", "labels")}
        rows, starts = {}, {}
        for name, topic in topics.items():
            partitions = [
                TopicPartition(topic, p) for p in reader.partitions_for_topic(topic) or ()
            ]
            assert partitions or name in ("labels", "rejected_labels"), f"no topic {topic}"
            starts[name] = {tp.partition: o for tp, o in raw.beginning_offsets(partitions).items()}
            rows[name] = _read_all(reader, raw.end_offsets(partitions)) if partitions else {}
    finally:
        for client in (reader, group, raw):
            client.close(autocommit=False)
    return Snapshot(
        data=rows["data"],
        predictions=rows["predictions"],
        rejected=rows["rejected"],
        models=rows["models"][0],
        status=rows["status"][0],
        committed=by_topic["data"],
        labels=rows["labels"],
        rejected_labels=rows["rejected_labels"],
        labels_committed=by_topic["labels"],
        starts=starts,
    )


def _read_all(reader: KafkaConsumer, ends: dict[TopicPartition, int]) -> dict[int, list[Row]]:
    rows: dict[int, list[Row]] = {place.partition: [] for place in ends}
    reader.assign(list(ends))
    reader.seek_to_beginning(*ends)
    give_up = time.monotonic() + READ_SECONDS
    while any(reader.position(place) < end for place, end in ends.items()):
        assert time.monotonic() < give_up, f"{ends}: nothing was read for {READ_SECONDS} s"
        for place, records in reader.poll(timeout_ms=200).items():
            give_up = time.monotonic() + READ_SECONDS
            rows[place.partition] += [
                Row(r.offset, r.value, r.headers, r.timestamp) for r in records
            ]
    return rows
