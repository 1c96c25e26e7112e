"""The unit of work against Kafka: what is read together, predicted together, committed together.

Predictions, rejected records and consumed offsets are one transaction; the metadata of each offset
is the partition's tally. Whatever fails in between, recovery is the same: a new producer, which
ends the open transaction, then position and tally from what is committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import ConsumerGroupMetadata

from predictor.committer import CommitError, Committer, FencedError
from predictor.consumed import Consumed
from predictor.group import Group
from predictor.positions import Positions
from predictor.result import Result
from predictor.settings import PredictorSettings
from predictor.state import State
from predictor.tally import Tally
from predictor.waiting import Waiting
from stream import clients, refusals
from stream.kafka_workarounds import progress
from stream.service import Fatal, Stop, Warnings

log = logging.getLogger("predictor")

MAX_RECORDS = 5_000
MAX_BYTES = 32 * 2**20
"""Bytes at which a unit is full; what the last poll returned comes on top."""

FENCED_TWICE_SECONDS = 60.0


class Unit(NamedTuple):
    """Records that are predicted and committed together, in the order of each partition.

    `membership` is that of the time when they were read: the broker refuses the commit of a member
    whose partitions were reassigned since.
    """

    records: list[Consumed]
    membership: ConsumerGroupMetadata


class Units:
    """Reads units of work and commits their results, exactly once.

    Parameters
    ----------
    recovered : callable
        Called after each recovery with n of each partition.

    Attributes
    ----------
    states : dict of int to State
        The state of each assigned partition, as committed.
    waiting : Waiting
        The records that were read and wait for a model.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        stop: Stop,
        recovered: Callable[[dict[int, int]], None],
    ) -> None:
        self.states: dict[int, State] = {}
        self.waiting = Waiting()
        self._settings = settings
        self._stop = stop
        self._recovered = recovered
        self._warnings = Warnings(log)
        self._admin = clients.connected(clients.admin, settings, stop, log)
        self._group = Group(settings, self._admin, stop)
        self._positions = Positions(settings, self._admin, stop)
        self._committer = Committer(settings, self._group, stop)
        self._most = MAX_RECORDS
        self._must_recover = True
        self._fenced_at = -FENCED_TWICE_SECONDS

    def __enter__(self) -> Units:
        return self

    def __exit__(self, *_: object) -> None:
        # An open transaction is aborted by the next producer of this name, or by its timeout.
        consumers = self._group.consumer, self._positions.reader
        clients.close(self._committer.producer, *consumers, self._admin)

    @property
    def tallies(self) -> dict[int, Tally]:
        """The committed tally of each assigned partition."""
        return {partition: state.tally for partition, state in self.states.items()}

    def poll(self, model: int, barred: set[int]) -> Unit | None:
        """Collect records for at most ``COMMIT_INTERVAL_MS``; return ``None`` if there were none.

        A partition that was predicted with a newer model waits for one that is as new. Of such a
        partition, and of all without a model, only records that no model could predict are in
        the unit.

        Parameters
        ----------
        model : int
            Version that will predict the unit; 0 while there is none.
        barred : set of int
            Versions taken out of service.
        """
        self._group.look()
        if self._must_recover or self._group.changed:
            self._recover()
        self._hold(model, barred)
        records: list[Consumed] = []
        size, end = 0, time.monotonic() + self._settings.commit_interval_ms / 1000
        while len(records) < self._most and size < MAX_BYTES and not self._stop:
            if (left := end - time.monotonic()) <= 0:
                break
            new = self.waiting.sort(self._read(left, self._most - len(records)))
            if self._must_recover or self._group.changed:
                return None
            records += new
            size += sum(len(consumed.value or b"") for consumed in new)
        membership = self._group.consumer.group_metadata()
        if not records:
            return None
        if membership.generation_id < 0 or not membership.member_id:
            self._recover_at_next_poll("no longer a member of the group")
            return None
        return Unit(records, membership)

    def commit(self, unit: Unit, result: Result) -> bool:
        """Commit a result and the offsets after it, all of it or nothing.

        Returns whether it was committed; if not, the unit will be read again.
        """
        try:
            self._committer.commit(unit.membership, result)
        except FencedError:
            result.rollback()
            self._fenced()
            return False
        except CommitError as error:
            result.rollback()
            # A quota or a slow line may let less through within the time than a unit holds.
            self._most = max(1, len(result) // 2)
            self._recover_at_next_poll(
                f"commit of {len(result)} records failed: {error}; the next unit has at most"
                f" {self._most}"
            )
            return False
        self._most = min(MAX_RECORDS, self._most + 1 + self._most // 8)
        result.commit()
        offsets = result.offsets
        if rest := [c for c in unit.records if c.offset >= offsets.get(c.partition, 0)]:
            self._warnings.warn(
                "split",
                f"the model raises on many records: {len(unit.records) - len(rest)} of"
                f" {len(unit.records)} in a unit are committed, the others are read again",
            )
            self._seek({consumed.partition: consumed.offset for consumed in reversed(rest)})
        return True

    def read_again(self) -> None:
        """Read the unit again that was not committed."""
        self._must_recover = True

    def lag(self) -> tuple[int, bool]:
        """Return how many records wait to be predicted, and whether that is exact.

        It is at most so many where not all was read yet: aborted records and the ends of
        transactions have offsets, too. What is behind an open transaction does not wait yet.
        """
        found = progress(self._group.consumer).values()
        unread = self.waiting.skipped + sum(max(0, at.readable - at.position) for at in found)
        return self.waiting.read + unread, not unread

    def _read(self, seconds: float, most: int) -> Iterator[Consumed]:
        polled: dict[TopicPartition, list[Any]] = {}
        try:
            timeout_ms = max(1, int(1000 * seconds))
            polled = self._group.consumer.poll(timeout_ms=timeout_ms, max_records=most)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            self._must_recover = True
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            self._recover_at_next_poll(f"reading {self._settings.data_topic}: {error!r}")
            self._stop.wait(0.2)
        return map(Consumed.of, chain.from_iterable(polled.values()))

    def _hold(self, model: int, barred: set[int]) -> None:
        """Hold the partitions that `model` must not predict; read the others from where they wait.

        What waits is read once, to say what it is, and not all of it.
        """
        held = [p for p, tally in self.tallies.items() if not tally.allows(model, barred)]
        self._seek(self.waiting.hold(held))
        for place, at in progress(self._group.consumer).items() if self.waiting.queues else ():
            if self.waiting.skips(place.partition, at.readable - at.position):
                with suppress(ValueError):  # unassigned meanwhile
                    self._group.consumer.seek(place, at.readable)

    def _fenced(self) -> None:
        now, name = time.monotonic(), self._committer.transactional_id
        if now - self._fenced_at < FENCED_TWICE_SECONDS:
            settings = self._settings
            raise Fatal(
                f"another predictor runs under the name REPLICA={settings.replica} in the group"
                f" {settings.group_id}, or something else uses the transactional id {name}; give"
                " each predictor a group and a replica that together make another one"
            )
        self._fenced_at = now
        self._recover_at_next_poll(f"fenced by another producer with the transactional id {name}")

    def _recover_at_next_poll(self, reason: str) -> None:
        self._warnings.warn("lost", f"{reason}; resuming from the committed offsets")
        self._must_recover = True

    def _recover(self) -> None:
        """Resume from what is committed, in the one order that is safe."""
        self._committer.renew()
        self.states, self.waiting = {}, Waiting()
        while True:
            places = self._group.join()
            positions = self._positions.read(places, self._group.topic.id)
            if positions is None:
                self._group.await_topics()
                self._stop.wait(0.2)
            elif not self._group.changed:
                break
        self.states = {
            partition: State(self._settings, partition, position.tally, position.offset)
            for partition, position in positions.items()
        }
        self._seek({partition: position.offset for partition, position in positions.items()})
        self._must_recover = False
        log.info(
            "partitions %s",
            " ".join(f"{p}@{at.offset} n={at.tally.n}" for p, at in positions.items())
            or "none: there are more replicas than partitions",
        )
        counts = {partition: tally.n for partition, tally in self.tallies.items()}
        self._stop.until_stopped(partial(self._recovered, counts))

    def _seek(self, offsets: Mapping[int, int]) -> None:
        """Read partitions from these offsets on."""
        self.waiting.forget(offsets)
        with suppress(ValueError, KeyError):  # unassigned meanwhile: the next poll recovers
            for partition, offset in offsets.items():
                place = TopicPartition(self._settings.data_topic, partition)
                self._group.consumer.seek(place, offset)
                self._group.consumer.resume(place)
