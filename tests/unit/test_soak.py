from __future__ import annotations

from itertools import islice

from tests.soak.memory import verdict
from tests.soak.plan import SPARED, plan

ROUND = 14


def test_a_seed_gives_the_same_faults_each_time_and_another_seed_others() -> None:
    first, again, other = (list(islice(plan(seed), 100)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_two_rounds_hold_every_kind_of_fault() -> None:
    for seed in range(20):
        two = [fault.what for fault in islice(plan(seed), 2 * ROUND)]
        assert len(set(two)) == ROUND + 2
        assert set(two[:ROUND]) | {"datagenerator paused", "modelgenerator paused"} == set(two)


def test_one_replica_is_never_ended_and_the_others_are() -> None:
    faults = list(islice(plan(1), 20 * ROUND))
    ended = {who for f in faults if not f.what.endswith("paused") for who in f.who}
    assert f"predictor {SPARED}" not in ended
    assert {"predictor b", "predictor c"} < ended


def test_whoever_leaves_joins_next() -> None:
    faults = list(islice(plan(1), 20 * ROUND))
    leaves = [n for n, fault in enumerate(faults) if fault.what == "predictor leaves"]
    assert leaves
    assert all(
        faults[n + 1].what == "predictor joins" and faults[n + 1].who == faults[n].who
        for n in leaves
        if n + 1 < len(faults)
    )


def test_memory_that_warms_up_and_stays_is_flat_and_one_that_keeps_growing_is_not() -> None:
    warming = [200 + min(second, 400) / 8 for second in range(700)]
    growing = [200 + second / 10 for second in range(700)]
    assert verdict("predictor", warming) == "flat"
    assert verdict("predictor", growing) == "growing"
    assert verdict("predictor", growing[:589]) == "too short to tell"
    assert verdict("modelgenerator", growing[:250]) == "growing"
