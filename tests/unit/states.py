"""States of partitions for tests of what decides."""

from __future__ import annotations

from predictor.settings import PredictorSettings
from predictor.state import State
from predictor.tally import Tally


def states(*tallies: Tally, **settings: object) -> dict[int, State]:
    """Make the states of partitions 0, 1, ... with these tallies; one without any."""
    found = PredictorSettings.model_validate({"replica": "test", **settings})
    return {
        partition: State(found, partition, tally)
        for partition, tally in enumerate(tallies or [Tally()])
    }
