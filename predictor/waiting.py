"""Records that wait for a model: none of them is answered, and the log can say what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from predictor.consumed import Consumed
from stream.layout import Layout
from stream.reasons import Reasons
from stream.records import Record, RecordError

LOOK_AHEAD = 100_000
"""Waiting records of a partition that are read; behind them, only those that come later are."""


@dataclass
class Queue:
    """The records that wait in one partition.

    Attributes
    ----------
    first : int
        Offset of the first one, which a model could predict.
    read : int
        How many were read.
    skipped : int
        Offsets between them that were not read.
    invalid : Reasons
        Why some of them are invalid, as far as it is known before a model is there. They are
        rejected in their turn.
    """

    first: int
    read: int = 0
    skipped: int = 0
    invalid: Reasons = field(default_factory=Reasons)


class Waiting:
    """Tells the records that are answered now from those that have to wait; knows no Kafka.

    In a held partition, the records before the first one that a model could predict are answered:
    no model could change what becomes of them. That one and all behind it wait, because offsets go
    on in order. A text, a name or a type may suit the next model: what the schema says against it
    is only told.

    Attributes
    ----------
    held : set of int
        Partitions that no model may predict now.
    queues : dict of int to Queue
        What waits there, as far as it was read.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self._layout = Layout()
        self.queues: dict[int, Queue] = {}

    def hold(self, partitions: Collection[int], layout: Layout) -> dict[int, int]:
        """Hold these partitions, and no other; return where to read those that wait no longer.

        With another layout than before, what waits is read again, too.
        """
        self.held = set(partitions)
        changed, self._layout = layout is not self._layout, layout
        return {p: queue.first for p, queue in self.queues.items() if changed or p not in self.held}

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget what waits in these partitions: they are read again."""
        for partition in partitions:
            self.queues.pop(partition, None)

    def sort(self, records: Iterable[Consumed]) -> list[Consumed]:
        """Return the records that are answered now, and count the others."""
        return [consumed for consumed in records if not (self.held and self._waits(consumed))]

    def skips(self, partition: int, offsets: int) -> bool:
        """Tell whether to skip so many offsets up to the end, and count them if so."""
        queue = self.queues.get(partition)
        if not queue or queue.read < LOOK_AHEAD or offsets < LOOK_AHEAD:
            return False
        queue.skipped += offsets
        return True

    @property
    def read(self) -> int:
        """How many records wait, of those that were read."""
        return sum(queue.read for queue in self.queues.values())

    @property
    def skipped(self) -> int:
        """How many offsets behind them were not read; not each is a record."""
        return sum(queue.skipped for queue in self.queues.values())

    def __str__(self) -> str:
        invalid = sum((queue.invalid for queue in self.queues.values()), Reasons())
        text = f"{self.read:,} records wait"
        if self.skipped:
            text = f"at most {self.read + self.skipped:,} records wait, {self.read:,} were read"
        return f"{text}, invalid: {invalid}" if invalid.total else text

    def _waits(self, consumed: Consumed) -> bool:
        partition = consumed.partition
        if partition not in self.held:
            return False
        record = consumed.decode()
        if partition not in self.queues:
            if isinstance(record, str):
                return False
            self.queues[partition] = Queue(consumed.offset)
        queue = self.queues[partition]
        queue.read += 1
        if invalid := record if isinstance(record, str) else self._misfit(record):
            queue.invalid.add(invalid, f"partition {partition} offset {consumed.offset}")
        return True

    def _misfit(self, record: Record) -> str:
        try:
            self._layout.read(record)
        except RecordError as error:
            return str(error)
        return ""
