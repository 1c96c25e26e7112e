from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.load import RESUMED_SECONDS, Load
from tests.faults.proxy import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    COMMIT_OFFSETS,
    END_TRANSACTION,
    PRODUCE,
    Moment,
    Proxy,
    Strike,
    behind_proxy,
)
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services
from tests.topics import Topics, await_answered

STALLED_SECONDS = 2 * 45.0
"""Each of four clients in turn finds out by a deadline of ten seconds."""

MOMENTS: tuple[Moment, ...] = ("before", "half", "answered")
COMMIT = (PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, COMMIT_OFFSETS, END_TRANSACTION)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    with ExitStack() as stack:
        broker, proxy = behind_proxy(tmp_path_factory.mktemp("kafka"))
        stack.enter_context(broker)
        yield broker.bootstrap_servers, stack.enter_context(proxy)


@pytest.fixture(scope="module")
def kafka(proxied: tuple[str, Proxy]) -> str:
    return proxied[0]


@pytest.fixture(scope="module")
def proxy(proxied: tuple[str, Proxy]) -> Proxy:
    return proxied[1]


def test_connections_cut_at_every_step_of_a_commit_lose_and_repeat_no_record(
    load: Load,
    proxy: Proxy,
    start: Services,
    recoveries: Recoveries,
) -> None:
    predictor = start("predictor", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
    load.under_way()
    for api, moment in itertools.product(COMMIT, MOMENTS):
        assert proxy.strike(Strike("cut", api, moment)).struck.wait(RESUMED_SECONDS), (api, moment)
        recoveries.add("connection cut during a commit", load.recovery(RESUMED_SECONDS))
    load.check()
    assert predictor.status is None
    assert "Traceback" not in predictor.log()


@pytest.mark.parametrize(
    ("api", "moment"),
    [(COMMIT_OFFSETS, "half"), (END_TRANSACTION, "before"), (END_TRANSACTION, "answered")],
)
def test_connections_that_stall_in_a_commit_time_out_and_nothing_is_lost_or_repeated(
    load: Load,
    proxy: Proxy,
    start: Services,
    recoveries: Recoveries,
    api: int,
    moment: Moment,
) -> None:
    predictor = start("predictor", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
    load.under_way()
    assert proxy.strike(Strike("stall", api, moment)).struck.wait(RESUMED_SECONDS)
    recoveries.add("connection stalled during a commit", load.recovery(STALLED_SECONDS))
    load.check()
    assert predictor.status is None
    assert "Traceback" not in predictor.log()


@pytest.mark.parametrize("seed", [1, 2])
def test_connections_cut_at_random_requests_lose_and_repeat_no_record(
    load: Load,
    proxy: Proxy,
    start: Services,
    recoveries: Recoveries,
    seed: int,
) -> None:
    rng = random.Random(seed)
    predictor = start("predictor", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
    for _ in range(15):
        strike = Strike("cut", None, rng.choice(MOMENTS), rng.randrange(1, 60))
        assert proxy.strike(strike).struck.wait(PATIENCE_SECONDS), strike
    recoveries.add("connection cut at random, 15 times", load.recovery(PATIENCE_SECONDS))
    load.check()
    assert predictor.status is None
    assert "Traceback" not in predictor.log()


def test_units_become_smaller_where_the_line_lets_no_whole_one_through_in_time(
    topics: Topics, proxy: Proxy, start: Services
) -> None:
    topics.publish(1)
    topics.write(5_000)
    proxy.produce_bytes_a_second = 40_000
    through = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{proxy.port}"}
    try:
        # However few records each poll returns, a unit collects too many.
        predictor = start("predictor", **through, COMMIT_INTERVAL_MS="5000")
        await_answered(topics, seconds=2 * PATIENCE_SECONDS)
    finally:
        proxy.produce_bytes_a_second = math.inf
    said = r"commit of (\d+) records failed: .*; the next unit has at most (\d+)"
    found = re.search(said, predictor.log())
    assert found
    assert int(found[2]) == int(found[1]) // 2
    topics.check()
