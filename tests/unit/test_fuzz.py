from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzz_target_takes_its_seeds_whole_cut_and_changed(name: str) -> None:
    assert seeds(name)
    for seed in seeds(name):
        for length in range(0, len(seed) + 1, max(1, len(seed) // 50)):
            TARGETS[name](seed[:length])
            TARGETS[name](seed[:length] + b"\xff" + seed[length + 1 :])
