"""A stream of late labels, with kill -9 at chosen moments, then a check."""

from __future__ import annotations

import signal
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from local.process import Process
from predictor.tally import Tally
from tests.late_stream import LateStream
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics

CHUNK = 10_000

MOMENTS = ("predicted", "commit_transaction", "after_commit_transaction", "rebuild")
"""When the predictor is killed: between predictions and labels, before and after a commit that
holds labels, and while it reads back what waits."""


class Leg:
    """Runs a predictor on a stream of late labels, and kills it again and again.

    Parameters
    ----------
    topics : Topics
    start : Services
    records : int
    longest : int
        Most records of the same partition from a record to its label.
    first_moment : int
        Number of the moment of the first kill.
    **env
        Settings of the predictor.
    """

    def __init__(
        self,
        topics: Topics,
        start: Services,
        records: int,
        longest: int,
        first_moment: int = 0,
        **env: str,
    ) -> None:
        self._topics = topics
        self._start = start
        self._records = records
        self._env = env
        self._moments = islice(cycle(MOMENTS), first_moment, None)
        self.stream = LateStream(topics, longest)
        self._places = [
            TopicPartition(topic, partition)
            for topic in (topics.settings.data_topic, topics.settings.label_topic)
            for partition in range(topics.partitions)
        ]

    def run(self, kills: int) -> None:
        """Write everything, with so many kills on the way, and wait until all is answered."""
        strike_at = {
            (kill + 1) * self._records // (kills + 1) // CHUNK * CHUNK: moment
            for kill, moment in enumerate(islice(self._moments, kills))
        }
        predictor = self._predictor()
        for first in range(0, self._records, CHUNK):
            moment = strike_at.get(first)
            if moment in MOMENTS[1:3]:
                predictor.kill()
                predictor = self._predictor("tests.faults.struck", moment, "3", "kill")
            self.stream.write(first, min(first + CHUNK, self._records))
            if moment in MOMENTS[1:3]:
                assert predictor.wait(PATIENCE_SECONDS) == -signal.SIGKILL, predictor.tail()
            elif moment:
                predictor.kill()
            if moment == "rebuild":
                predictor = self._predictor()
                await_line(predictor, "INFO predictor: partitions ")
                predictor.kill()
            if moment:
                predictor = self._predictor()
            eventually(lambda: self.left() <= 2 * CHUNK, PATIENCE_SECONDS, self._where)
        self.stream.finish(self._records)
        eventually(
            lambda: self.left() == 0 and self.settled(),
            PATIENCE_SECONDS,
            lambda: f"{self._where()}: {self.tallies()}",
        )
        assert predictor.stop() == 0, predictor.tail()

    def verify(self) -> str:
        """Check everything twice from outside; return the last line of `verify`."""
        log = self._start.logs["one"]
        done = self._start.python("-m", "predictor.verify", "--log", str(log), seconds=900)
        assert done.returncode == 0, done.stdout + done.stderr
        self._topics.check(log)
        return done.stdout.splitlines()[-1]

    def left(self) -> int:
        """Return how many offsets of records and labels are not committed yet."""
        ends = self._topics.consumer.end_offsets(self._places)
        found = self._committed()
        return sum(
            end - (found[place].offset if place in found else 0) for place, end in ends.items()
        )

    def settled(self) -> bool:
        """Tell whether each label was counted once or, where it had to be, rejected."""
        doubles, orphans = self.stream.counts(self._records)
        tallies = self.tallies()
        expired = sum(tally.expired for tally in tallies)
        counted = {sum(tally.n for tally in tallies), sum(tally.late for tally in tallies)}
        rejected = sum(tally.orphans for tally in tallies)
        return counted == {self._records - expired} and rejected == doubles + orphans + expired

    def tallies(self) -> list[Tally]:
        """Return the committed tallies of all partitions, once a broker tells them."""
        found = eventually(self._committed)
        data = self._places[: self._topics.partitions]
        return [Tally.from_metadata(found[place].metadata) for place in data]

    def _committed(self) -> dict[TopicPartition, Any]:
        """Return what is committed; nothing while no broker knows the group."""
        topics = self._topics
        with suppress(KafkaError):
            return dict(topics.admin.list_group_offsets(topics.group)[topics.group])
        return {}

    def _predictor(self, *module: str) -> Process:
        return self._start.replica("one", *module, **self._env)

    def _where(self) -> str:
        return f"{self.left()} offsets are left"
