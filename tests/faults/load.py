"""The load under which faults are caused, and how much of it the predictors have answered."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from sklearn.linear_model import LogisticRegression

from stream import clients, reading
from stream.service import Stop
from tests.services import PATIENCE_SECONDS, eventually
from tests.snapshot import Report
from tests.topics import Topics

TICK_SECONDS = 0.05
STILL_SECONDS = 2.0
"""Twenty times as long as a unit of work takes."""
RESUMED_SECONDS = 2 * 15.0
"""Twice as long as a predictor promises to take to go on."""


class Load:
    """Writes labelled records at a rate over all partitions, and publishes models, on a thread.

    Brokers may go away and come back meanwhile. Nobody else may write through `topics` before
    the load has stopped.

    Parameters
    ----------
    topics : Topics
    rate : float
        Records a second.
    models_every : float
        Seconds from one model to the next; the first, version 1, comes at once.
    """

    def __init__(self, topics: Topics, rate: float = 500, models_every: float = 2.0) -> None:
        self.topics = topics
        self.models = 0
        self._rate = rate
        self._models_every = models_every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._places = [
            TopicPartition(topics.settings.data_topic, p) for p in range(topics.partitions)
        ]
        # An open transaction does not hold it back, as it would a reader of committed records.
        self._group: KafkaConsumer = clients.connected(
            clients.consumer,
            topics.settings,
            Stop(),
            logging.getLogger("test"),
            group_id=topics.group,
            isolation_level="read_uncommitted",
        )

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        clients.close(self._group)

    def stop(self) -> None:
        """Stop writing; all that was written is on the topic then."""
        self._ending.set()
        self._thread.join()
        self.topics.producer.flush(PATIENCE_SECONDS)

    def committed(self) -> dict[int, int]:
        """Return the committed offset of each partition, 0 where there is none.

        Raises
        ------
        KafkaError
            When the brokers do not answer within five seconds.
        """
        return {
            place.partition: self._group.committed(place, timeout_ms=5_000) or 0
            for place in self._places
        }

    def ends(self) -> dict[int, int]:
        """Return the end of each data partition.

        Raises
        ------
        KafkaError
            When the brokers do not answer.
        """
        return {
            place.partition: reading.bounds(self.topics.consumer, place)[1]
            for place in self._places
        }

    def answered(self, ends: dict[int, int]) -> bool:
        """Tell whether all records before these ends are answered, as far as brokers can say."""
        try:
            committed = self.committed()
        except KafkaError:
            return False
        return all(committed[partition] >= end for partition, end in ends.items())

    def recovery(self, seconds: float, since: float | None = None) -> float:
        """Wait until all records that are there now are answered, and one of each partition.

        Parameters
        ----------
        seconds : float
            How long it may take.
        since : float, optional
            ``time.monotonic()`` of the fault; now by default.

        Returns
        -------
        float
            Seconds since the fault.
        """
        since = since or time.monotonic()
        ends: dict[int, int] = {}

        def recovered() -> bool:
            with suppress(KafkaError):  # the brokers do not answer yet
                ends.update(ends or self.ends())
            return bool(ends) and self.answered({p: max(1, end) for p, end in ends.items()})

        eventually(recovered, seconds, lambda: f"{ends}; committed {self.committed()}")
        return time.monotonic() - since

    def under_way(self) -> None:
        """Wait until predictors that were just started have answered what there is."""
        self.recovery(PATIENCE_SECONDS)

    def stands_still(self) -> None:
        """Wait until nothing was committed for two seconds."""
        last: dict[int, int] = {}
        since = time.monotonic()

        def still() -> bool:
            nonlocal last, since
            found: dict[int, int] = {}
            with suppress(KafkaError):
                found = self.committed()
            if not found or found != last:
                last, since = found, time.monotonic()
            return time.monotonic() - since > STILL_SECONDS

        eventually(still, message="nothing more is committed")

    def finish(self, seconds: float = 60.0) -> None:
        """Stop writing, and wait until every record is answered."""
        self.stop()
        self.recovery(seconds)

    def check(self, *logs: Path) -> Report:
        """Stop writing, wait for the answers, and check that each record was counted once.

        Returns
        -------
        Report
            Of the checker, which reads the log files too: `Topics.log`, if none is given.
        """
        self.finish()
        report = self.topics.check(*(logs or [self.topics.log]))
        assert report.n == self.topics.written()
        return report

    def _run(self) -> None:
        begun, first, published = time.monotonic(), self.topics.written(), 0.0
        while not self._ending.wait(TICK_SECONDS):
            # The client retries until the brokers have what it has taken.
            with suppress(KafkaError):
                if time.monotonic() - published > self._models_every:
                    published = time.monotonic()
                    self.topics.publish(self.models + 1, _model(self.models))
                    self.models += 1
                written = self.topics.written() - first
                self.topics.write(int((time.monotonic() - begun) * self._rate) - written)


def _model(seed: int) -> LogisticRegression:
    """Fit a model that differs a little from the one of another seed."""
    matrix = np.random.default_rng(seed).normal(size=(200, 2))
    return LogisticRegression().fit(matrix, (matrix[:, 0] > 0).astype(int))
