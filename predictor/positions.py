"""Where partitions go on: what their group has committed, and what their outputs say of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from functools import partial

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, KafkaTimeoutError

from predictor.fallback import Position, answered_beyond, from_outputs, on_the_topic
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import clients, reading, refusals
from stream.records import RecordError
from stream.service import Stop, Warnings

SETTLE_SECONDS = 60.0
"""How long the offsets of a transaction may stay undecided; a broker ends each that was left open
well before."""

_COMMITTED_TIMEOUT_MS = 1_000
_AS_THEY_STAND = "read_uncommitted"


class Positions:
    """Reads positions and tallies from what is committed.

    Offsets that a transaction holds are waited for. Those still undecided after a minute are read
    as they stand, without those of the transaction, once no transaction is open over the outputs:
    a broker that was killed within a commit may never end it on the topic of the offsets (seen
    with Kafka 4.3.1). Outputs beyond the committed offset count.

    Parameters
    ----------
    settings : PredictorSettings
    client : KafkaAdminClient
    stop : Stop
    log : logging.Logger
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        client: KafkaAdminClient,
        stop: Stop,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client = client
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
        """The clients, for who closes several at once."""
        return self._group, self._reader

    def begin(self) -> None:
        """Forget how long has been waited, and ask anew."""
        self._asked, self._undecided_since = set(), math.inf
        self._new_group("read_committed")

    def read(
        self, places: Iterable[TopicPartition], incarnation: str | None
    ) -> dict[int, Position] | None:
        """Return where each partition goes on.

        Parameters
        ----------
        places : iterable of TopicPartition
            Partitions of the data topic.
        incarnation : str or None
            Id of the data topic as it is now.

        Returns
        -------
        dict of int to Position, or None
            ``None`` where that cannot be said yet; ask again in a moment, for others may join or
            leave meanwhile.

        Raises
        ------
        Fatal
            When the brokers refuse to say it.
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
            self._warnings.warn("committed", f"reading the committed offsets: {error!r}")
            now = self._clock()
            undecided = isinstance(error, _UndecidedError)
            self._undecided_since = min(self._undecided_since, now) if undecided else math.inf
            overdue = now - self._undecided_since > SETTLE_SECONDS
            self._new_group(_AS_THEY_STAND if overdue else "read_committed")
            return None

    def _position(self, place: TopicPartition, incarnation: str | None) -> Position:
        partition = place.partition
        bounds = reading.bounds(self._reader, place)  # first: without a broker, nothing is decided
        try:
            committed = self._group.committed(
                place, metadata=True, timeout_ms=_COMMITTED_TIMEOUT_MS
            )
        except KafkaTimeoutError:
            raise _UndecidedError(f"partition {partition}: a transaction has not ended") from None
        if self._group.config["isolation_level"] == _AS_THEY_STAND:
            self._check_outputs_decided(partition)
        reason = "no tally is committed"
        if committed is not None and committed.metadata:
            try:
                tally = Tally.from_metadata(committed.metadata)
            except RecordError as error:
                self._log.warning("partition %d: committed metadata: %s", partition, error)
            else:
                offset = committed.offset
                beyond = answered_beyond(
                    self._reader, self._settings, partition, incarnation, offset, self._stop
                )
                if beyond is None:
                    return self._at_the_commit(
                        partition, offset, on_the_topic(bounds, offset, tally, incarnation)
                    )
                reason = f"offset {beyond} is answered, though only those before {offset} count"
        fallback = from_outputs(self._reader, self._settings, partition, incarnation, self._stop)
        if fallback is None:
            return Position(bounds[0], Tally(incarnation=incarnation), 0)
        self._log.warning(
            "partition %d: %s; going on from the last prediction, n=%d correct=%d model=%d; %s",
            partition,
            reason,
            fallback.tally.n,
            fallback.tally.correct,
            fallback.tally.model,
            fallback,
        )
        return fallback

    def _at_the_commit(self, partition: int, offset: int, position: Position) -> Position:
        if position.offset != offset or position.remark:
            self._log.warning(
                "partition %d: the committed offset %d is no longer on the topic; %s",
                partition,
                offset,
                position,
            )
        return position

    def _check_outputs_decided(self, partition: int) -> None:
        """Check that no transaction over a partition's outputs is open, whoever began it.

        Raises
        ------
        _UndecidedError
        """
        settings = self._settings
        for topic in (settings.prediction_topic, settings.rejected_topic):
            place = TopicPartition(topic, partition)
            end = self._client.list_partition_offsets({place: OffsetSpec.LATEST})[place].offset
            decided = reading.bounds(self._reader, place)[1]
            if decided < end:
                raise _UndecidedError(
                    f"{topic} partition {partition}: a transaction is open at {decided}"
                )

    def _new_group(self, isolation_level: str) -> None:
        """Make the client that reads what the group has committed, without taking part in it.

        Seen with 3.0.12: an answer that comes when its time is up is kept, and given to the next
        call that asks the same, however much was committed since. So a client that was too late is
        not asked again, nor the one that takes part, which asks by itself.
        """
        clients.close(self._group)
        self._group = self._consumer(
            group_id=self._settings.group_id, isolation_level=isolation_level
        )

    def _consumer(self, **options: str) -> KafkaConsumer:
        make = partial(clients.consumer, self._settings, **options)
        return clients.connect(make, self._settings, self._stop, self._log)


class _UndecidedError(KafkaTimeoutError):  # type: ignore[misc] # kafka-python carries no types
    """The brokers answer, but a transaction over offsets or outputs has not ended."""
