from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from local.process import Process
from tests.faults.load import RESUMED_SECONDS, Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, eventually

HANDOVER_SECONDS = 2 * 2.0


class Replicas:
    """Starts predictors, each with a name and a log file of its own."""

    def __init__(self, start: Services, folder: Path) -> None:
        self._start = start
        self._folder = folder
        self.logs: list[Path] = []

    def __call__(self, name: str) -> Process:
        self.logs.append(self._folder / f"{name}.accuracy.log")
        return self._start("predictor", REPLICA=name, LOG_FILE=str(self.logs[-1]))


def assigned(process: Process) -> int:
    """Return how many partitions a predictor said last that it has."""
    lines = re.findall(r"INFO predictor: partitions (.*)", process.log())
    return len(re.findall(r"\d+@\d+", lines[-1])) if lines else 0


def share(processes: list[Process], counts: list[int]) -> bool:
    return sorted(assigned(process) for process in processes) == counts


def test_from_one_replica_to_three_and_back_under_load_the_counts_of_each_partition_go_on(
    load: Load,
    start: Services,
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    replica = Replicas(start, tmp_path)
    replicas = [replica("one")]
    load.under_way()
    for name in ("two", "three"):
        begun = time.monotonic()
        replicas.append(replica(name))
        counts = {2: [1, 2], 3: [1, 1, 1]}[len(replicas)]
        eventually(lambda n=counts: share(replicas, n), PATIENCE_SECONDS)  # type: ignore[misc] # n
        recoveries.add("replica joins", load.recovery(RESUMED_SECONDS, begun))
    while len(replicas) > 1:
        left = time.monotonic()
        assert replicas.pop().stop() == 0
        recoveries.add("replica leaves", load.recovery(RESUMED_SECONDS, left))
    eventually(lambda: share(replicas, [3]))
    load.check(*replica.logs)


def test_a_replica_paused_while_another_takes_over_is_fenced_when_it_wakes_and_repeats_nothing(
    load: Load,
    start: Services,
    tmp_path: Path,
    recoveries: Recoveries,
) -> None:
    replica = Replicas(start, tmp_path)
    sleeper = replica("sleeper")
    load.under_way()
    sleeper.send(signal.SIGSTOP)
    paused = time.monotonic()
    other = replica("other")
    recoveries.add("replica paused, another takes over", load.recovery(PATIENCE_SECONDS, paused))
    eventually(lambda: assigned(other) == 3, PATIENCE_SECONDS)
    time.sleep(max(0.0, paused + 60.0 - time.monotonic()))  # the fault is that it lasts so long
    before = sleeper.log()
    sleeper.send(signal.SIGCONT)
    woken = time.monotonic()
    eventually(lambda: share([sleeper, other], [1, 2]), RESUMED_SECONDS)
    recoveries.add("paused replica woken", load.recovery(RESUMED_SECONDS, woken))
    since = sleeper.log().removeprefix(before)
    assert "resuming from the committed offsets" in since or "partitions " in since
    load.check(*replica.logs)


def test_a_clean_leave_hands_its_partitions_over_within_two_seconds(
    load: Load, start: Services, tmp_path: Path
) -> None:
    replica = Replicas(start, tmp_path)
    stays = replica("stays")
    took = []
    for name in ("a", "b", "c"):
        leaves = replica(name)
        eventually(lambda p=leaves: share([stays, p], [1, 2]), PATIENCE_SECONDS)  # type: ignore[misc] # p
        load.under_way()
        left = time.monotonic()
        leaves.send(signal.SIGTERM)
        took.append(load.recovery(RESUMED_SECONDS, left))
        assert leaves.wait(30) == 0
    # A member that does not leave cleanly costs a session of six seconds each time.
    assert sorted(took)[1] < HANDOVER_SECONDS
    load.check(*replica.logs)
