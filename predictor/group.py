"""Membership in the consumer group, and changes of the data topic that the group reads."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple
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
"""How often the data topic is described: the client does not always notice new partitions."""


class DataTopic(NamedTuple):
    """The data topic as the brokers describe it.

    Attributes
    ----------
    id : str or None
        A recreated topic has another one; brokers before 2.8 give none.
    """

    id: str | None
    partitions: int


class Group:
    """Joins the consumer group, and notices rebalances and changes of the data topic.

    Parameters
    ----------
    admin : KafkaAdminClient
        Describes the topics and creates missing ones.

    Attributes
    ----------
    consumer : KafkaConsumer
        The member of the group.
    topic : DataTopic
        As of the last `ensure_topics`.
    """

    def __init__(self, settings: PredictorSettings, admin: KafkaAdminClient, stop: Stop) -> None:
        self.consumer: KafkaConsumer = None
        self.topic = DataTopic(None, 0)
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
        """Whether the assignment or the data topic changed since the last `join`."""
        return self._listener.changed or self._recreated

    def ensure_topics(self) -> None:
        """Create missing topics and partitions, and describe the data topic."""
        ensure_topics(self._admin, self._settings, log)
        self.topic = self.describe()

    def await_topics(self) -> None:
        """Retry `ensure_topics` until the brokers answer."""
        clients.connect(self.ensure_topics, self._settings, self._stop, log)

    def describe(self) -> DataTopic:
        """Ask the brokers which data topic there is now."""
        (topic,) = self._admin.describe_topics([self._settings.data_topic])
        known = topic["topic_id"] and UUID(topic["topic_id"]).int
        return DataTopic(topic["topic_id"] if known else None, len(topic["partitions"]))

    def look(self) -> None:
        """Describe the data topic every few seconds; rejoin the group if it has grown."""
        if self.changed or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        try:
            found = self._stop.until_stopped(self.describe)
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            return
        self._recreated = found.id != self.topic.id
        if found.partitions > self.topic.partitions:
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


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python carries no types
    """Remembers that the assignment changed; called on the client's own thread."""

    def __init__(self) -> None:
        self.assigned = False
        self.changed = True

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.assigned, self.changed = False, True

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.assigned, self.changed = True, True
