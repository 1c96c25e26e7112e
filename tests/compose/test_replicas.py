"""Replicas of the predictor, and a cluster of three brokers that loses one for good."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.compose.stack import (
    APPS,
    CLUSTER,
    V2,
    Stack,
    clean_engine,
    exit_statuses,
    run,
)
from tests.services import eventually

SIX = {"DATA_PARTITIONS": "6", "RATE": "300"}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with clean_engine():
        found = Stack(V2, tmp_path)
        yield found
        found.close()


def partitions(stack: Stack) -> list[list[int]]:
    """Return the partitions that each replica said it has last."""
    found = []
    for container in stack.containers("predictor"):
        lines = run("docker", "logs", container).splitlines()
        last = next((line for line in reversed(lines) if "predictor: partitions " in line), "")
        found.append([int(w.partition("@")[0]) for w in last.split() if "@" in w])
    return found


def test_three_replicas_share_six_partitions_and_hand_them_back_to_one(stack: Stack) -> None:
    """The walk-through's core under the second version of compose comes with it."""
    stack.kafka("up", "-d")
    stack("up", "-d", env=SIX)
    stack.await_more(500)
    assert stack.consume("streaming.prediction")
    assert partitions(stack) == [[0, 1, 2, 3, 4, 5]]
    stack("up", "-d", "--scale", "predictor=3", env=SIX)

    def shared_out() -> bool:
        found = partitions(stack)
        return sorted(map(len, found)) == [2, 2, 2] and sorted(chain(*found)) == [*range(6)]

    eventually(shared_out, 120, lambda: str(partitions(stack)))
    stack.await_more(1000)
    assert len(stack.logs()) == 3
    stack.check()
    stack("start", "datagenerator")
    stack.await_more()
    stack("up", "-d", "--scale", "predictor=1", env=SIX)
    eventually(lambda: partitions(stack) == [[0, 1, 2, 3, 4, 5]], 120)
    stack.await_more(500)
    assert len(stack.logs()) == 1
    stack.check()
    stack("stop")
    assert exit_statuses() == dict.fromkeys(APPS, 0)
    stack.kafka("stop")


def test_a_cluster_that_loses_a_broker_for_good_loses_nothing_else(tmp_path: Path) -> None:
    servers = "localhost:29092,localhost:29093,localhost:29094"
    env = ("--env-file", "cluster.env")
    with clean_engine():
        stack = Stack(V2, tmp_path, servers, CLUSTER)
        stack.kafka("up", "-d")
        stack(*env, "up", "-d", env=SIX)
        stack.await_more(500)
        assert stack.consume("streaming.prediction")
        # The one whose name the console commands use stays.
        run("docker", "kill", stack.container("broker-2"))
        stack.await_more(1000)
        assert stack.consume("queueing.model", 1)
        stack.check()
        assert stack.containers("broker-2") == []
        stack.close()
