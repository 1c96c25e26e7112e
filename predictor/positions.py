"""Reads what decides where partitions resume: committed offsets, tallies, the newest outputs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from functools import partial

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import GroupAuthorizationFailedError, KafkaError, KafkaTimeoutError

from predictor import outputs
from predictor.outputs import Output, T
from predictor.resume import Commit, Position, resume
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import clients, reading, refusals
from stream.records import RecordError, decode_prediction, decode_rejected
from stream.service import Stop, Warnings

SETTLE_SECONDS = 60.0
"""How long to wait for offsets that an open transaction holds back; a broker ends each transaction
well before."""

LOOK_BACK = 10_000
"""Rejected records among which a group's own beyond its committed offset is searched."""

_COMMITTED_TIMEOUT_MS = 1_000
_READ_UNCOMMITTED = "read_uncommitted"


class Positions:
    """Reads positions and tallies of partitions.

    Offsets that an open transaction holds back are waited for. After `SETTLE_SECONDS` they are
    read without those of the transaction, provided that no transaction is open on the outputs: a
    broker that was killed during a commit may never end it on the topic of the offsets (seen with
    Kafka 4.3.1).

    Parameters
    ----------
    admin : KafkaAdminClient
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        admin: KafkaAdminClient,
        stop: Stop,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._stop = stop
        self._log = log
        self._clock = clock
        self._warnings = Warnings(log, clock)
        self._reader: KafkaConsumer = self._consumer()
        self._group: KafkaConsumer = None
        self._asked: set[TopicPartition] = set()
        self._undecided_since = math.inf

    @property
    def clients(self) -> tuple[KafkaConsumer, ...]:
        """The clients to close at the end."""
        return self._group, self._reader

    def begin(self) -> None:
        """Start a new wait for offsets, with a new client."""
        self._asked, self._undecided_since = set(), math.inf
        self._new_group("read_committed")

    def read(
        self, places: Iterable[TopicPartition], incarnation: str | None
    ) -> dict[int, Position] | None:
        """Return where each partition resumes.

        Parameters
        ----------
        places : iterable of TopicPartition
            Partitions of the data topic.
        incarnation : str or None
            Id of the data topic as it is now.

        Returns
        -------
        dict of int to Position, or None
            ``None`` where that is not known yet. Retry after a moment, and poll meanwhile: other
            members may join or leave.

        Raises
        ------
        Fatal
            When the brokers refuse to answer.
        Stopped
        """
        if set(places) != self._asked:
            self._asked, self._undecided_since = set(places), math.inf
        try:
            return {
                place.partition: self._stop.until_stopped(
                    partial(self._position, place, incarnation)
                )
                for place in sorted(places)
            }
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            self._warnings.warn("committed", f"reading the committed offsets: {error!r}; retrying")
            now = self._clock()
            undecided = isinstance(error, _UndecidedError)
            self._undecided_since = min(self._undecided_since, now) if undecided else math.inf
            overdue = now - self._undecided_since > SETTLE_SECONDS
            self._new_group(_READ_UNCOMMITTED if overdue else "read_committed")
            return None

    def _position(self, place: TopicPartition, incarnation: str | None) -> Position:
        bounds = reading.bounds(self._reader, place)  # first: fails if no broker answers
        committed = self._committed(place)
        most = LOOK_BACK if isinstance(committed, Commit) else None
        settings, partition = self._settings, place.partition
        position = resume(
            bounds,
            committed,
            self._newest(settings.prediction_topic, partition, decode_prediction),
            self._newest(settings.rejected_topic, partition, decode_rejected, most),
            incarnation,
        )
        if position.remark:
            self._log.warning("partition %d: %s", partition, position.remark)
        return position

    def _committed(self, place: TopicPartition) -> Commit | str | None:
        """Return what the group has committed, or why it cannot be used.

        Raises
        ------
        _UndecidedError
        """
        try:
            found = self._group.committed(place, metadata=True, timeout_ms=_COMMITTED_TIMEOUT_MS)
        except KafkaTimeoutError:
            raise _UndecidedError(
                f"partition {place.partition}: a transaction over its offset is open"
            ) from None
        except GroupAuthorizationFailedError:  # it does not always name the group
            raise GroupAuthorizationFailedError(self._settings.group_id) from None
        if self._group.config["isolation_level"] == _READ_UNCOMMITTED:
            self._check_outputs_decided(place.partition)
        if found is None or not found.metadata:
            return None
        try:
            return Commit(found.offset, Tally.from_metadata(found.metadata))
        except RecordError as error:
            return f"the committed metadata is no tally: {error}"

    def _check_outputs_decided(self, partition: int) -> None:
        """Check that no transaction is open on a partition's outputs.

        Raises
        ------
        _UndecidedError
        """
        settings = self._settings
        for topic in (settings.prediction_topic, settings.rejected_topic):
            place = TopicPartition(topic, partition)
            end = self._admin.list_partition_offsets({place: OffsetSpec.LATEST})[place].offset
            decided = reading.bounds(self._reader, place)[1]
            if decided < end:
                raise _UndecidedError(
                    f"{topic} partition {partition}: a transaction is open at offset {decided}"
                )

    def _newest(
        self,
        topic: str,
        partition: int,
        decode: Callable[[bytes | None], T],
        most: int | None = None,
    ) -> Output[T] | None:
        choose = partial(outputs.last_own, decode, self._settings.group_id)
        place = TopicPartition(topic, partition)
        return reading.newest(self._reader, place, choose, self._stop, most)

    def _new_group(self, isolation_level: str) -> None:
        """Make a client that reads the offsets of the group without being a member.

        kafka-python 3.0.12 keeps an answer that comes after its timeout, and returns it to the
        next call with the same question, however old it is by then. So a client whose call timed
        out is replaced, and the member's client, which asks by itself, is never used for this.
        """
        clients.close(self._group)
        self._group = self._consumer(
            group_id=self._settings.group_id, isolation_level=isolation_level
        )

    def _consumer(self, **options: str) -> KafkaConsumer:
        make = partial(clients.consumer, self._settings, **options)
        return clients.connect(make, self._settings, self._stop, self._log)


class _UndecidedError(KafkaTimeoutError):  # type: ignore[misc] # kafka-python carries no types
    """The brokers answer, but a transaction over offsets or outputs is open."""
