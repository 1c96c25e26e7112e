"""Reads what decides where partitions resume: committed offsets, tallies, the newest outputs."""

from __future__ import annotations

import logging
import math
import time
from functools import partial

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import GroupAuthorizationFailedError, KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from predictor import outputs
from predictor.committed import Commit, about
from predictor.group import Topics
from predictor.outputs import Output
from predictor.resume import Position, resume, resume_labels
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream import clients, reading, refusals
from stream.records import RecordError, decode_prediction, decode_rejected
from stream.seal import Seal, own_seal
from stream.service import Fatal, Stop, Warnings

log = logging.getLogger("predictor")

SETTLE_SECONDS = 60.0
"""How long to wait for offsets that an open transaction holds back; a broker ends each transaction
well before."""

LOOK_BACK = 20_000
"""Outputs of each topic among which a group's own beyond its committed offset is searched."""

_COMMITTED_TIMEOUT_MS = 1_000


class Positions:
    """Reads positions and tallies of partitions.

    Offsets that an open transaction holds back are waited for. After `SETTLE_SECONDS` they are
    read without those of the transaction, provided that no transaction is open on the outputs: a
    broker that was killed during a commit may never end it on the topic of the offsets (seen with
    Kafka 4.3.1).

    Attributes
    ----------
    reader : KafkaConsumer
        Reads outputs; to be closed at the end.
    """

    def __init__(self, settings: PredictorSettings, admin: KafkaAdminClient, stop: Stop) -> None:
        self._settings = settings
        self._admin = admin
        self._stop = stop
        self._warnings = Warnings(log)
        self._asked: set[TopicPartition] = set()
        self._undecided_since = math.inf
        self._seal = own_seal(settings, log, make=True)
        self.reader = self._connect()

    def read(self, places: set[TopicPartition], topics: Topics) -> dict[int, Position] | None:
        """Return where each partition resumes.

        Parameters
        ----------
        places : set of TopicPartition
            Partitions of the data topic.
        topics : Topics
            As they are now.

        Returns
        -------
        dict of int to Position, or None
            ``None`` where that is not known yet. Retry after a moment, and poll meanwhile: other
            members may join or leave.
        """
        if places != self._asked:
            self._asked, self._undecided_since = places, math.inf
        committed_only = time.monotonic() - self._undecided_since <= SETTLE_SECONDS
        # kafka-python 3.0.12 keeps an answer that comes after its timeout, and returns it to the
        # next call with the same question, however old it is by then. So each read has a client of
        # its own, and the member's client, which asks by itself, is never used for this.
        with clients.closing(
            self._connect(
                group_id=self._settings.group_id,
                isolation_level="read_committed" if committed_only else "read_uncommitted",
            )
        ) as group:
            try:
                found = {
                    place.partition: self._stop.until_stopped(
                        partial(self._position, group, place, topics, committed_only)
                    )
                    for place in sorted(places)
                }
            except KafkaError as error:
                refusals.raise_if_refused(error, self._settings)
                self._warnings.warn(
                    "committed", f"reading the committed offsets: {error!r}; retrying"
                )
                undecided = isinstance(error, _UndecidedError)
                since = min(self._undecided_since, time.monotonic())
                self._undecided_since = since if undecided else math.inf
                return None
        self._undecided_since = math.inf
        for partition, position in found.items():  # said once, however often it was read
            if position.remark:
                log.warning("partition %d: %s", partition, position.remark)
        return found

    def _position(
        self, group: KafkaConsumer, place: TopicPartition, topics: Topics, committed_only: bool
    ) -> Position:
        labels = place._replace(topic=self._settings.label_topic)
        bounds = reading.bounds(self.reader, place)  # first: fails if no broker answers
        label_bounds = reading.bounds(self.reader, labels)
        committed, sealed = self._committed(group, place, labels)
        if not committed_only:
            self._check_outputs_decided(place.partition)
        most = LOOK_BACK if isinstance(committed, Commit) else None
        found = self._outputs(place.partition, self._seal, most)
        if not isinstance(committed, Commit) and not found:
            found = self._unsealed_outputs(place.partition)
        elif isinstance(committed, Commit) and not sealed and found:
            # Older software sealed neither. A replica with another secret has written outputs, too;
            # who may only commit offsets has written none.
            committed = "the committed tally was not sealed with this PREDICTOR_SECRET"
            found = self._outputs(place.partition, None, None)
        position = resume(bounds, committed, found, topics.id)
        return resume_labels(label_bounds, position, topics.label_id)

    def _committed(
        self, group: KafkaConsumer, place: TopicPartition, labels: TopicPartition
    ) -> tuple[Commit | str | None, bool]:
        """Return what the group has committed, or why it cannot be used; whether its seal holds."""
        try:
            found, of_labels = (
                group.committed(each, metadata=True, timeout_ms=_COMMITTED_TIMEOUT_MS)
                for each in (place, labels)
            )
        except KafkaTimeoutError:
            raise _UndecidedError(
                f"partition {place.partition}: a transaction over its offset is open"
            ) from None
        except GroupAuthorizationFailedError:  # it does not always name the group
            raise GroupAuthorizationFailedError(self._settings.group_id) from None
        if found is None or not found.metadata:
            return None, False
        try:
            commit = Commit(found.offset, Tally.from_metadata(found.metadata), None)
        except RecordError as error:
            return f"the committed metadata is not a tally: {error}", False
        sealed = self._seal_holds(place, found)
        if of_labels and (not sealed or self._seal_holds(labels, of_labels)):
            commit = commit.with_labels(of_labels.offset, of_labels.metadata)
        return commit, sealed

    def _seal_holds(self, place: TopicPartition, found: OffsetAndMetadata) -> bool:
        """Tell whether a predictor committed this; true where there is no secret to tell it by."""
        subject = about(self._settings.group_id, place.topic, place.partition, found.offset)
        return not self._seal or self._seal.holds_in(subject, found.metadata)

    def _unsealed_outputs(self, partition: int) -> list[Output]:
        """Return what is there without a secret; with one, it may be anybody's.

        Raises
        ------
        Fatal
            When only such outputs say where the group was.
        """
        found = self._outputs(partition, None, None)
        if self._seal and found:
            raise Fatal(
                f"partition {partition}: group {self._settings.group_id} has committed no tally,"
                f" and outputs in its name up to offset {max(each.offset for each in found)} have"
                " no seal that holds. If it wrote them: bring back its PREDICTOR_SECRET, or start"
                " the older software that wrote them once more, which commits where it goes on. If"
                " somebody else did: choose another GROUP_ID, or begin anew: python -m"
                " predictor.reset"
            )
        return found

    def _check_outputs_decided(self, partition: int) -> None:
        """Raise `_UndecidedError` if a transaction is open on a partition's outputs."""
        settings = self._settings
        for topic in (
            settings.prediction_topic,
            settings.rejected_topic,
            settings.label_rejected_topic,
        ):
            place = TopicPartition(topic, partition)
            end = self._admin.list_partition_offsets({place: OffsetSpec.LATEST})[place].offset
            decided = reading.bounds(self.reader, place)[1]
            if decided < end:
                raise _UndecidedError(
                    f"{topic} partition {partition}: a transaction is open at offset {decided}"
                )

    def _outputs(self, partition: int, seal: Seal | None, most: int | None) -> list[Output]:
        """Return the group's newest output on a partition of each topic that has one."""
        settings = self._settings
        found = []
        for topic, decode in (
            (settings.prediction_topic, decode_prediction),
            (settings.rejected_topic, decode_rejected),
            (settings.label_rejected_topic, decode_rejected),
        ):
            choose = partial(outputs.last_own, decode, settings.group_id, seal)
            place = TopicPartition(topic, partition)
            found.append(reading.newest(self.reader, place, choose, self._stop, most))
        return [output for output in found if output]

    def _connect(self, **options: str) -> KafkaConsumer:
        return clients.connected(clients.consumer, self._settings, self._stop, log, **options)


class _UndecidedError(KafkaTimeoutError):  # type: ignore[misc] # kafka-python carries no types
    """The brokers answer, but a transaction over offsets or outputs is open."""
