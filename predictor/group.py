"""Membership in the consumer group, and changes of the topics that its members read."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple
from uuid import UUID

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from predictor.settings import PredictorSettings
from stream import clients, refusals
from stream.service import Stop, Warnings
from stream.topics import ensure_topics

log = logging.getLogger("predictor")

SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 1_000
JOIN_SECONDS = 20.0
LOOK_SECONDS = 5.0
"""How often the topics are described: the client does not always notice new partitions."""


class Topics(NamedTuple):
    """The data topic and the label topic as the brokers describe them.

    Attributes
    ----------
    id, label_id : str or None
        A recreated topic has another one; brokers before 2.8 give none.
    partitions : int
        Of the data topic.
    """

    id: str | None = None
    label_id: str | None = None
    partitions: int = 0


class Group:
    """Joins the consumer group, and notices rebalances and changes of the topics.

    Only the data topic is subscribed to. The label topic has the same partitions, and whoever is
    assigned one of the data topic reads its labels.

    Parameters
    ----------
    admin : KafkaAdminClient
        Describes the topics and creates missing ones.

    Attributes
    ----------
    consumer : KafkaConsumer
        The member of the group.
    topics : Topics
        As of the last `ensure_topics`.
    """

    def __init__(self, settings: PredictorSettings, admin: KafkaAdminClient, stop: Stop) -> None:
        self.consumer: KafkaConsumer = None
        self.topics = Topics()
        self._settings = settings
        self._admin = admin
        self._stop = stop
        self._warnings = Warnings(log)
        self._listener = _Listener()
        self._recreated = False
        self._next_look = 0.0
        self.await_topics()
        self._rejoin()

    @property
    def changed(self) -> bool:
        """Whether the assignment or a topic changed since the last `join`."""
        return self._listener.changed or self._recreated

    def ensure_topics(self) -> None:
        """Create missing topics and partitions, and describe the topics."""
        ensure_topics(self._admin, self._settings, log)
        self.topics = self.describe()

    def await_topics(self) -> None:
        """Retry `ensure_topics` until the brokers answer."""
        clients.connect(self.ensure_topics, self._settings, self._stop, log)

    def describe(self) -> Topics:
        """Ask the brokers which topics there are now."""
        settings = self._settings
        topics = self._admin.describe_topics([settings.data_topic, settings.label_topic])
        found = {topic["name"]: topic for topic in topics}
        data, labels = found[settings.data_topic], found[settings.label_topic]
        return Topics(_id(data), _id(labels), len(data["partitions"]))

    def look(self) -> None:
        """Describe the topics every few seconds; rejoin the group if the data topic has grown."""
        if self.changed or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        try:
            found = self._stop.until_stopped(self.describe)
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            return
        self._recreated = found[:2] != self.topics[:2]
        if found.partitions > self.topics.partitions:
            self._rejoin()

    def join(self) -> set[TopicPartition]:
        """Poll until the group has assigned partitions; return them.

        They are paused: nothing is read before they are given a position.
        """
        end = time.monotonic() + JOIN_SECONDS
        group, self._recreated = self._settings.group_id, False
        while True:
            self._stop.check()
            if time.monotonic() > end:
                self._warnings.warn(
                    "join", f"not a member of group {group} after {JOIN_SECONDS:g} s; rejoining"
                )
                self._rejoin()
                end = time.monotonic() + JOIN_SECONDS
            self._listener.changed = False
            try:
                self.consumer.pause(*self.consumer.assignment())
                self.consumer.poll(timeout_ms=100)
            except (NoOffsetForPartitionError, OffsetOutOfRangeError):
                pass  # expected: positions are given after the join
            except KafkaError as error:
                refusals.raise_if_refused(error, self._settings)
                self._warnings.warn("join", f"joining group {group}: {error!r}; retrying")
                self._stop.wait(0.2)
            if self._listener.assigned and not self._listener.changed:
                return set(self.consumer.assignment())

    def _rejoin(self) -> None:
        clients.close(self.consumer)
        settings, self._listener = self._settings, _Listener()
        self.consumer = clients.connected(
            clients.consumer,
            settings,
            self._stop,
            log,
            group_id=settings.group_id,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
        )
        self.consumer.subscribe([settings.data_topic], listener=self._listener)


def _id(topic: dict[str, Any]) -> str | None:
    id: str | None = topic["topic_id"]
    return id if id and UUID(id).int else None


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python carries no types
    """Remembers that the assignment changed; called on the client's own thread."""

    def __init__(self) -> None:
        self.assigned = False
        self.changed = True

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.assigned, self.changed = False, True

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned, self.changed = True, True
