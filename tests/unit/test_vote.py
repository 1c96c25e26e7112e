from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from estimators.vote import Calibration, Vote


class Counter:
    """A member that remembers how many threads OpenMP would give it."""

    classes_ = (0, 1)

    def __init__(self) -> None:
        self.threads: list[int] = []

    def predict_proba(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        self.threads = openmp()
        return np.full((len(matrix), 2), 0.5)


def openmp() -> list[int]:
    found: list[dict[str, Any]] = threadpool_info()
    return [each["num_threads"] for each in found if each["user_api"] == "openmp"]


def test_a_vote_predicts_on_one_thread_and_leaves_all_else_as_it_was() -> None:
    counter, before = Counter(), openmp()
    vote = Vote({"counter": counter}, {"counter": 1.0}, 2, Calibration(), 0.5)
    assert vote.predict(np.zeros((3, 2))).tolist() == [1, 1, 1]
    assert set(counter.threads) == {1}
    assert openmp() == before
