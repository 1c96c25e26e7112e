"""The state of a partition: its counts, and the predictions and labels that wait for each other."""

from __future__ import annotations

import math
from dataclasses import replace

from predictor.early import EarlyLabels
from predictor.known import Known
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream.records import Prediction

AHEAD_OF_LABELS = 100_000
"""Predictions that are known beyond ``LABEL_WAIT`` while labels are paused; see `labels.take`."""


class State:
    """What the predictor knows of one partition.

    `begin` comes before the first change of a unit; then `commit` or `rollback`. After a rollback
    the state is as it was before the unit.

    Parameters
    ----------
    tally : Tally
        As committed; its `labels` is the next offset of the label topic.
    offset : int
        The next offset of the data topic.

    Attributes
    ----------
    known : Known
        The predictions that a label may still be for, and those that have one.
    early : EarlyLabels
        The labels that came before their records.
    rebuilding : bool
        Whether `known` is still being read back from the prediction topic, with `restore`.
        Predicting goes on meanwhile; these predictions are not added to `known`, since they are
        read back like the others. No label is taken and nothing expires before `rebuilt`.
    labels_paused : bool
        Whether the unit left labels to be read again, because too many are held.
    labels_left : bool
        Whether labels are still to be taken.
    labels_behind : bool
        Whether some of them are older than the newest predictions; nothing expires before.
    """

    def __init__(
        self, settings: PredictorSettings, partition: int, tally: Tally, offset: int = 0
    ) -> None:
        self.settings = settings
        self.partition = partition
        self.tally = tally
        self.offset = offset
        self.known = Known()
        self.early = EarlyLabels()
        self.rebuilding = False
        self.labels_paused = False
        self.labels_left = False
        self.labels_behind = False
        self._committed = tally, self.early, offset

    def begin(self) -> None:
        """Begin a unit."""
        self._committed = self.tally, self.early, self.offset
        self.tally, self.early = replace(self.tally), self.early.copy()
        self.labels_paused = False

    @property
    def before(self) -> Tally:
        """The tally before the last unit."""
        return self._committed[0]

    def commit(self) -> None:
        """Make final what the unit changed."""
        if not self.rebuilding:
            self.known.commit()

    def rollback(self) -> None:
        """Take back what the unit changed."""
        self.tally, self.early, self.offset = self._committed
        if not self.rebuilding:
            self.known.rollback()

    def restore(self, prediction: Prediction) -> None:
        """Take in a prediction or an outcome that is read back, in the order of its topic."""
        if prediction.source[1] >= self.tally.expired_to:
            self.known.restore(prediction)

    def rebuilt(self) -> int:
        """End the rebuild; return how many waiting predictions were gone from the topic.

        These are expired.
        """
        found = self.known.waiting
        gone = max(0, self.tally.waiting - found)
        self.tally.waiting, self.tally.expired = found, self.tally.expired + gone
        if gone:
            oldest = self.known.oldest
            self.tally.expired_to = oldest.offset if oldest else self.offset
        self.rebuilding = False
        return gone

    def is_due(self, data_ended: bool, monotonic: float, wall: float) -> bool:
        """Tell whether time alone makes a unit: a prediction expires, or a held label is too old.

        Parameters
        ----------
        data_ended : bool
            Whether the end of the data was reached after all labels so far were read.
        monotonic, wall : float
            Seconds on each clock.
        """
        if data_ended:
            self.early.data_ended(monotonic)
        if self.rebuilding:
            return False
        if self.early.overdue(monotonic - self.settings.label_early_seconds):
            return True
        if self.labels_behind or self.labels_paused or not self.tally.waiting:
            return False
        if not (oldest := self.known.oldest):
            return False
        return len(self.known) > self.settings.label_wait_records or (
            oldest.time is not None and oldest.time < self.expires_before(wall)
        )

    @property
    def is_far_ahead(self) -> bool:
        """Whether so much is known that records cannot go on before more labels are taken."""
        return len(self.known) >= self.settings.label_wait_records + AHEAD_OF_LABELS

    def expires_before(self, wall: float) -> float:
        """Return the timestamp in ms before which predictions no longer wait.

        While labels are left, as after a downtime, it is now the time of the newest prediction:
        the label of an older one may be among them, and in time.
        """
        seconds = self.settings.label_wait_seconds
        if seconds is None:
            return -math.inf
        now = 1000 * wall
        if self.labels_left:
            now = min(now, self.known.newest_time)
        return now - 1000 * seconds
