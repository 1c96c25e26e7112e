"""How partitions are taken over: where each resumes, and what is known of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from predictor.group import Group
from predictor.label_feed import LabelFeed
from predictor.positions import Positions
from predictor.rebuild import Rebuild
from predictor.resume import Position
from predictor.settings import PredictorSettings
from predictor.state import State
from stream import refusals
from stream.records import Label
from stream.service import Stop, Warnings

log = logging.getLogger("predictor")


class Recovery:
    """Takes over the partitions that the group assigns.

    Attributes
    ----------
    rebuild : Rebuild
        Reads back what is known of them, in steps.
    """

    def __init__(
        self,
        settings: PredictorSettings,
        group: Group,
        labels: LabelFeed,
        admin: KafkaAdminClient,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._group = group
        self._labels = labels
        self._stop = stop
        self._warnings = Warnings(log)
        self._positions = Positions(settings, admin, stop)
        self.reader = self._positions.reader
        self.rebuild = Rebuild(settings, admin, self.reader, stop)

    def take_over(self, before: Mapping[int, State]) -> dict[int, State]:
        """Join the group, and return the state of each assigned partition.

        Parameters
        ----------
        before : mapping of int to State
            States of partitions that were assigned before. One that is what is committed now stays
            as it is, so that nothing has to be read back.
        """
        while True:
            places = self._group.join()
            positions = self._positions.read(places, self._group.topics)
            if positions is None:
                self._group.await_topics()
                self._stop.wait(0.2)
            elif (
                not self._group.changed and (states := self._states(positions, before)) is not None
            ):
                return states

    def _states(
        self, positions: Mapping[int, Position], before: Mapping[int, State]
    ) -> dict[int, State] | None:
        """Return the states at these positions; ``None`` where that has to be tried again."""
        kept = {
            p: before[p] for p, at in positions.items() if p in before and _is_at(before[p], at)
        }
        try:
            new = {p: self._state(p, at) for p, at in positions.items() if p not in kept}
            self.rebuild.begin(new, kept, self._group.topics.id)
        except KafkaError as error:
            refusals.raise_if_refused(error, self._settings)
            self._warnings.warn("states", f"reading what waits for a label: {error!r}; retrying")
            self._stop.wait(0.2)
            return None
        return dict(sorted((kept | new).items()))

    def _state(self, partition: int, at: Position) -> State:
        state = State(self._settings, partition, at.tally, at.offset)
        for consumed in self._labels.read(partition, at.early):
            if isinstance(consumed.label(), Label):
                state.early.hold(consumed)
        return state


def _is_at(state: State, at: Position) -> bool:
    return (state.offset, state.tally, tuple(state.early.offsets)) == (
        at.offset,
        at.tally,
        at.early,
    )
