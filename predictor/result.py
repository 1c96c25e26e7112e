"""What became of a unit of work."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from predictor.state import State
from stream.records import Prediction, Rejected


@dataclass
class Result:
    """What became of the records and labels of a unit of work.

    Attributes
    ----------
    predictions : list of (Prediction, bytes or None)
        Predictions and outcomes in the order of counting, each with the key of its record or of
        its label.
    rejected : list of Rejected
        Records of the data topic.
    rejected_labels : list of Rejected
        Records of the label topic.
    counted : list of Prediction
        The predictions and outcomes that count.
    states : dict of int to State
        The partitions that this unit changed, as they are after it. Either `commit` or `rollback`
        has to be called before the next unit.
    """

    predictions: list[tuple[Prediction, bytes | None]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    rejected_labels: list[Rejected] = field(default_factory=list)
    counted: list[Prediction] = field(default_factory=list)
    states: dict[int, State] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many outputs there are."""
        return len(self.predictions) + len(self.rejected) + len(self.rejected_labels)

    @cached_property
    def made(self) -> list[Prediction]:
        """The predictions without the outcomes; to be asked for once the result is complete."""
        return [prediction for prediction, _ in self.predictions if prediction.outcome is None]

    def begin(self, state: State) -> State:
        """Return the state of a partition, which this unit is about to change."""
        if state.partition not in self.states:
            state.begin()
            self.states[state.partition] = state
        return state

    def commit(self) -> None:
        """Make final what changed: the transaction is committed."""
        for state in self.states.values():
            state.commit()

    def rollback(self) -> None:
        """Take back what changed: the transaction failed, or may have failed."""
        for state in self.states.values():
            state.rollback()
