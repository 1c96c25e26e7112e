"""A stream whose labels come later: out of order, some twice, some for no record at all."""

from __future__ import annotations

import numpy as np

from stream.records import Label, Record, encode_label, encode_record
from tests.topics import Topics

DOUBLES, ORPHANS = 0.05, 0.01
MISSING = 10**12
"""Added to an id: there is no such record."""


class LateStream:
    """Writes records without labels, and labels once so many more records were written.

    What is written of a record follows from its id and the seed alone. So writing may stop anywhere
    and go on in another process.

    Parameters
    ----------
    topics : Topics
    longest : int
        Most records of the same partition from a record to its label.
    seed : int
    """

    def __init__(self, topics: Topics, longest: int, seed: int = 1) -> None:
        self._topics = topics
        self._longest = longest * topics.partitions
        self._seed = seed

    def write(self, start: int, end: int) -> None:
        """Write the records with these ids, and the labels that are due meanwhile."""
        topics, ids = self._topics, np.arange(start, end)
        features = np.column_stack([self._random(ids, 7), self._random(ids, 8)]) - 0.5
        for id, row in zip(ids.tolist(), features.tolist(), strict=True):
            value, partition = encode_record(Record(id, row)), id % topics.partitions
            topics.producer.send(topics.settings.data_topic, value, partition=partition)
        topics.producer.flush(60)  # no label is on its topic before its record
        self._label(start, end, end)

    def finish(self, records: int) -> None:
        """Write the labels that are left of so many records."""
        self._label(records, records + self._longest + 1, records)

    def counts(self, records: int) -> tuple[int, int]:
        """Return how many records of so many get a second label, and how many orphans there are."""
        ids = np.arange(records)
        return (
            int((self._random(ids, 1) < DOUBLES).sum()),
            int((self._random(ids, 2) < ORPHANS).sum()),
        )

    def _label(self, start: int, end: int, records: int) -> None:
        """Write the labels of the first `records` that are due from `start` to before `end`."""
        ids = np.arange(max(0, start - self._longest), records)
        for copy, share in enumerate((1.0, DOUBLES, ORPHANS)):
            chosen = ids[self._random(ids, copy) < share]
            due = chosen + 1 + (self._random(chosen, 3 + copy) * (self._longest - 1)).astype(int)
            now = chosen[(start <= due) & (due < end)]
            for id in now[np.argsort(self._random(now, 6))].tolist():
                self._send(id, id + MISSING if copy == 2 else id)
        self._topics.producer.flush(60)

    def _send(self, id: int, named: int) -> None:
        topics = self._topics
        value = encode_label(Label(id // 7 % 2, named))
        topic = topics.settings.label_topic
        topics.producer.send(topic, value, partition=id % topics.partitions)

    def _random(self, ids: np.ndarray, purpose: int) -> np.ndarray:
        """Return a number below 1 for each id; splitmix64 (Steele et al. 2014)."""
        with np.errstate(over="ignore"):
            x = ids.astype(np.uint64) + np.uint64(self._seed * 1_000 + purpose) * np.uint64(
                0x9E3779B97F4A7C15
            )
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: np.ndarray = (x ^ (x >> np.uint64(31))) / 2.0**64
        return found
