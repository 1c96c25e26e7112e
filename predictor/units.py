"""The unit of work against Kafka: what is read together, predicted together, committed together.

Predictions, outcomes, what is rejected and the offsets of both topics are one transaction; the
metadata of each data offset is the partition's tally. Whatever fails in between, recovery is the
same: a new producer, which ends the open transaction, then position and tally from what is
committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import ConsumerGroupMetadata

from predictor import metrics
from predictor.committer import CommitError, Committer, FencedError
from predictor.consumed import Consumed, ConsumedLabel
from predictor.group import Group
from predictor.intake import MAX_RECORDS, Intake, Lag
from predictor.recovery import Recovery
from predictor.result import Result
from predictor.settings import PredictorSettings
from predictor.state import State
from predictor.tally import Tally
from predictor.waiting import Waiting
from stream import clients, refusals
from stream.layout import Layout
from stream.service import Fatal, Stop, Warnings

log = logging.getLogger("predictor")

FENCED_TWICE_SECONDS = 60.0


class Unit(NamedTuple):
    """Records and labels that are answered and committed together, in the order of each partition.

    `membership` is that of the time when they were read: the broker refuses the commit of a member
    whose partitions were reassigned since. In the partitions of `ended`, these are all records that
    the labels so far can be for. At most `most` predictions may get an assumed label.
    """

    events: list[Consumed]
    ended: set[int]
    most: int
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
        The state of each assigned partition, as it is committed.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        stop: Stop,
        recovered: Callable[[dict[int, int]], None],
    ) -> None:
        self.states: dict[int, State] = {}
        self._settings = settings
        self._stop = stop
        self._recovered = recovered
        self._warnings = Warnings(log)
        self._admin = clients.connected(clients.admin, settings, stop, log)
        self._group = Group(settings, self._admin, stop)
        self._intake = Intake(settings, self._group, stop)
        self._recovery = Recovery(settings, self._group, self._intake.labels, self._admin, stop)
        self._committer = Committer(settings, self._group, stop)
        self._most = MAX_RECORDS
        self._must_recover = True
        self._fenced_at = -FENCED_TWICE_SECONDS

    def __enter__(self) -> Units:
        return self

    def __exit__(self, *_: object) -> None:
        # An open transaction is aborted by the next producer of this name, or by its timeout.
        labels = self._intake.labels
        consumers = self._group.consumer, labels.consumer, labels.asking, self._recovery.reader
        clients.close(self._committer.producer, *consumers, self._admin)

    @property
    def tallies(self) -> dict[int, Tally]:
        """The committed tally of each assigned partition."""
        return {partition: state.tally for partition, state in self.states.items()}

    @property
    def waiting(self) -> Waiting:
        """The records that were read and wait for a model."""
        return self._intake.waiting

    def poll(self, model: int, barred: set[int], layout: Layout) -> Unit | None:
        """Collect records for at most ``COMMIT_INTERVAL_MS``; return ``None`` if nothing is to do.

        A partition that was predicted with a newer model waits for one that is as new. Of such a
        partition, and of all without a model, only records that no model could predict are in
        the unit.

        Parameters
        ----------
        model : int
            Version that will predict the unit; 0 while there is none.
        barred : set of int
            Versions taken out of service.
        layout : Layout
            Tells which of the records that wait are invalid.
        """
        self._group.look()
        if self._must_recover or self._group.changed:
            self._recover()
        self._recovery.rebuild.step()
        self._intake.hold(model, barred, layout)
        self._read()
        if self._must_recover or self._group.changed:
            return None
        membership = self._group.consumer.group_metadata()
        events, ended = self._intake.take(2 * self._most)
        if not events and not any(
            state.is_due(partition in ended, time.monotonic(), time.time())
            for partition, state in self.states.items()
        ):
            return None
        if membership.generation_id < 0 or not membership.member_id:
            self._recover_at_next_poll("no longer a member of the group")
            return None
        return Unit(events, ended, self._most, membership)

    def commit(self, unit: Unit, result: Result) -> bool:
        """Commit a result and the offsets after it, all of it or nothing.

        Returns whether it was committed; if not, the unit will be read again.
        """
        rebuild = self._recovery.rebuild
        for partition, state in result.states.items():
            state.tally.known_from = rebuild.known_from(partition, state.tally.expired_to)
        try:
            with metrics.TRANSACTION_SECONDS.time():
                offsets = self._committer.commit(unit.membership, result)
        except CommitError as error:
            metrics.TRANSACTIONS_FAILED.inc()
            result.rollback()
            if isinstance(error, FencedError):
                self._fenced()
                return False
            # A quota or a slow line may let less through within the time than a unit holds.
            self._most = max(1, len(result) // 2)
            self._recover_at_next_poll(
                f"commit of {len(result)} records failed: {error}; the next unit has at most"
                f" {self._most}"
            )
            return False
        result.commit()
        rebuild.committed(result, offsets)
        self._intake.drop(result.states)
        self._most = min(MAX_RECORDS, self._most + 1 + self._most // 8)
        records = [event for event in unit.events if not isinstance(event, ConsumedLabel)]
        if rest := sum(each.offset >= self.states[each.partition].offset for each in records):
            self._warnings.warn(
                "split",
                f"the model raises on many records: {len(records) - rest} of {len(records)} in a"
                " unit are committed, the others come next",
            )
        return True

    def read_again(self) -> None:
        """Read the unit again that was not committed."""
        self._must_recover = True

    def lag(self) -> dict[int, Lag]:
        """Return how many records of each partition wait to be predicted."""
        return self._intake.lag()

    def _read(self) -> None:
        try:
            self._intake.read(self._most)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            self._must_recover = True
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            self._recover_at_next_poll(f"reading {self._settings.data_topic}: {error!r}")
            self._stop.wait(0.2)

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
        self.states = self._recovery.take_over(self.states)
        self._intake.begin(self.states)
        self._must_recover = False
        log.info(
            "partitions %s",
            " ".join(f"{p}@{state.offset} n={state.tally.n}" for p, state in self.states.items())
            or "none: there are more replicas than partitions",
        )
        counts = {partition: state.tally.n for partition, state in self.states.items()}
        self._stop.until_stopped(partial(self._recovered, counts))
