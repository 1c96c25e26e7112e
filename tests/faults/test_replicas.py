from __future__ import annotations

import re
import signal
import time
from functools import partial

from local.process import Process
from tests.faults.load import RESUMED_SECONDS, Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, eventually

HANDOVER_SECONDS = 2 * 2.0


def assigned(process: Process) -> int:
    """Return how many partitions a predictor said last that it has."""
    lines = re.findall(r"INFO predictor: partitions (.*)", process.log())
    return len(re.findall(r"\d+@\d+", lines[-1])) if lines else 0


def share(processes: list[Process], counts: list[int]) -> bool:
    return sorted(assigned(process) for process in processes) == counts


def test_from_one_replica_to_three_and_back_under_load_the_counts_of_each_partition_go_on(
    load: Load,
    start: Services,
    recoveries: Recoveries,
) -> None:
    replicas = [start.replica("one")]
    load.under_way()
    for name in ("two", "three"):
        begun = time.monotonic()
        replicas.append(start.replica(name))
        counts = {2: [1, 2], 3: [1, 1, 1]}[len(replicas)]
        eventually(partial(share, replicas, counts), PATIENCE_SECONDS)
        recoveries.add("replica joins", load.recovery(RESUMED_SECONDS, begun))
    while len(replicas) > 1:
        left = time.monotonic()
        assert replicas.pop().stop() == 0
        recoveries.add("replica leaves", load.recovery(RESUMED_SECONDS, left))
    eventually(lambda: share(replicas, [3]))
    load.check(*start.written)


def test_a_replica_paused_while_another_takes_over_is_fenced_when_it_wakes_and_repeats_nothing(
    load: Load,
    start: Services,
    recoveries: Recoveries,
) -> None:
    sleeper = start.replica("sleeper")
    load.under_way()
    sleeper.pause()
    paused = time.monotonic()
    other = start.replica("other")
    recoveries.add("replica paused, another takes over", load.recovery(PATIENCE_SECONDS, paused))
    eventually(lambda: assigned(other) == 3, PATIENCE_SECONDS)
    time.sleep(max(0.0, paused + 60.0 - time.monotonic()))  # the fault is that it lasts so long
    before = sleeper.log()
    sleeper.wake()
    woken = time.monotonic()
    eventually(lambda: share([sleeper, other], [1, 2]), RESUMED_SECONDS)
    recoveries.add("paused replica woken", load.recovery(RESUMED_SECONDS, woken))
    since = sleeper.log().removeprefix(before)
    assert "resuming from the committed offsets" in since or "partitions " in since
    load.check(*start.written)


def test_a_clean_leave_hands_its_partitions_over_within_two_seconds(
    load: Load, start: Services
) -> None:
    stays = start.replica("stays")
    took = []
    for name in ("a", "b", "c"):
        leaves = start.replica(name)
        eventually(partial(share, [stays, leaves], [1, 2]), PATIENCE_SECONDS)
        load.under_way()
        left = time.monotonic()
        leaves.send(signal.SIGTERM)
        took.append(load.recovery(RESUMED_SECONDS, left))
        assert leaves.wait(30) == 0
    # A member that does not leave cleanly costs a session of six seconds each time.
    assert sorted(took)[1] < HANDOVER_SECONDS
    load.check(*start.written)
