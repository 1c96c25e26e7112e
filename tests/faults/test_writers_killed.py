"""The datagenerator and the modelgenerator killed at work, and two datagenerators at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics


@pytest.fixture
def watch(three: Topics) -> Iterator[Load]:
    """Tell how far the predictors have come; records come from elsewhere."""
    with Load(three, rate=0, models_every=math.inf) as load:
        yield load


def more_was_sent(load: Load, before: dict[int, int]) -> bool:
    return load.ends() != before


def more_was_published(topics: Topics, before: int) -> bool:
    return len(topics.models()) > before


def test_a_datagenerator_killed_five_times_skips_no_id_and_sends_none_twice(
    watch: Load,
    start: Services,
    recoveries: Recoveries,
) -> None:
    start("modelgenerator", RETRAIN_EVERY="1000")
    start("predictor")
    generator = start("datagenerator", RATE="2000")
    watch.recovery(PATIENCE_SECONDS)
    for _ in range(5):
        generator.kill()
        killed, ends = time.monotonic(), watch.ends()
        generator = start("datagenerator", RATE="2000")
        eventually(partial(more_was_sent, watch, ends), PATIENCE_SECONDS)
        recoveries.add("datagenerator killed (-9)", watch.recovery(PATIENCE_SECONDS, killed))
    assert generator.stop() == 0
    watch.finish()
    for partition, ids in watch.topics.ids().items():  # what SIGTERM left unsent differs
        assert ids == list(range(partition, 3 * len(ids), 3))
    assert watch.topics.check(watch.topics.log).rejected == 0


def test_two_datagenerators_at_once_each_warn_of_the_other(three: Topics, start: Services) -> None:
    first = start("datagenerator", RATE="200")
    eventually(lambda: sum(map(len, three.ids().values())) > 0, PATIENCE_SECONDS)
    second = start("datagenerator", RATE="200")
    for process in (first, second):
        await_line(process, "a second datagenerator")
        assert process.log().count("a second datagenerator") == 1


def test_a_modelgenerator_killed_while_it_publishes_leaves_no_torn_model_and_versions_go_on(
    three: Topics,
    start: Services,
    recoveries: Recoveries,
) -> None:
    start("predictor")
    modelgenerator = start("modelgenerator", RETRAIN_EVERY="100")
    with Load(three, models_every=math.inf) as load:
        eventually(three.models, PATIENCE_SECONDS)
        for _ in range(5):
            # At this pace it publishes nearly all the time.
            modelgenerator.kill()
            killed, last = time.monotonic(), len(three.models())
            modelgenerator = start("modelgenerator", RETRAIN_EVERY="100")
            eventually(partial(more_was_published, three, last), PATIENCE_SECONDS)
            recoveries.add("modelgenerator killed (-9)", time.monotonic() - killed)
        assert modelgenerator.stop() == 0
        load.finish()
    versions = [model["version"] for model in three.models()]
    assert versions == list(range(1, len(versions) + 1))
    assert all(model["parts"] == 1 for model in three.models())
    report = three.check(three.log)
    assert report.n + report.seen == three.written()
    assert report.not_checked == set()
