"""Models that fail on real records, under load."""

from __future__ import annotations

import math
import resource
import time
from functools import partial
from pathlib import Path

from stream.models import pack
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.soak.memory import resident_mib
from tests.topics import Topics, await_answered, regression
from tests.unit.classifiers import Leaks, Once, envelope, pickled


def test_a_model_that_fails_after_its_probe_is_barred_and_the_one_before_predicts_its_unit(
    three: Topics,
    start: Services,
    settings_env: dict[str, str],
    recoveries: Recoveries,
) -> None:
    three.publish(1)
    predictor = start("predictor")
    with (
        Topics(settings_env, partitions=3) as publisher,
        Load(three, models_every=math.inf) as load,
    ):
        load.recovery(PATIENCE_SECONDS)
        for version in (2, 4, 6):
            publisher.publish(version, Once())
            begun = time.monotonic()
            await_line(predictor, f"barred model {version}: model error: ArithmeticError")
            fault = "model that fails after its probe"
            recoveries.add(fault, load.recovery(PATIENCE_SECONDS, begun))
            publisher.publish(version + 1)
            eventually(partial(was_said, publisher, version + 1, "serving"), PATIENCE_SECONDS)
        assert predictor.stop() == 0
        start("predictor")
        load.recovery(PATIENCE_SECONDS)
        report = load.check()
        assert report.rejected == 0
        # Those that failed may have predicted before.
        assert report.models - {2, 4, 6} == {1, 3, 5, 7}
        barred = [s["version"] for s in publisher.statuses() if s["status"] == "barred"]
        assert barred == [2, 4, 6]


def test_a_model_that_leaks_is_barred_when_no_memory_is_left_and_the_one_before_goes_on(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    predictor = start("predictor")
    topics.write(100)
    await_answered(topics, 100)
    (pages, *_) = Path(f"/proc/{predictor.pid}/statm").read_text().split()
    # The model takes so much at a time that its last failure leaves the predictor itself enough.
    limit = int(pages) * resource.getpagesize() + 5_000_000_000
    resource.prlimit(predictor.pid, resource.RLIMIT_AS, (limit, limit))
    topics.publish(2, Leaks())
    await_line(predictor, "model 2 (test) serves from the next unit")

    def barred() -> bool:
        topics.write(10)
        return "barred model 2: model error: MemoryError" in predictor.log()

    eventually(barred, PATIENCE_SECONDS, predictor.tail)
    topics.write(100)
    await_answered(topics)
    assert topics.check(topics.log).models == {1, 2}
    assert topics.predictions()[-1]["model"] == 1
    assert predictor.stop() == 0


def test_each_of_a_hundred_swaps_leaves_no_memory_no_file_and_no_thread_behind(
    topics: Topics, start: Services
) -> None:
    predictor = start("predictor")

    def swap(versions: range) -> tuple[float, int, int]:
        for version in versions:
            topics.publish(version, regression(1_000_000))
            topics.write(20)
            await_line(predictor, f"model {version} (test) serves from the next unit")
        await_answered(topics)
        of_process = Path(f"/proc/{predictor.pid}")
        files, threads = (sum(1 for _ in (of_process / f).iterdir()) for f in ("fd", "task"))
        return resident_mib(predictor.pid), files, threads

    before, after = swap(range(1, 31)), swap(range(31, 101))
    # A hundred models of a megabyte would be a hundred.
    assert after[0] < before[0] + 20
    assert after[1] <= before[1] + 3, "a connection may be renewed meanwhile"
    assert after[2] <= before[2] + 3
    assert predictor.stop() == 0


def test_with_an_hour_of_a_version_a_second_on_the_topic_each_service_starts_with_the_newest(
    topics: Topics, start: Services
) -> None:
    pickle, stream = pickled(regression()), topics.stream
    topics.send(
        message
        for version in range(1, 3_601)
        for message in pack(envelope(version, after=version - 1, stream=stream), pickle, topics.key)
    )
    for version in range(1, 3_601, 4):
        topics.say(version, "serving")
    predictor = start("predictor")
    await_line(predictor, "model 3600 (test) serves from the next unit")
    assert predictor.log().count("serves from the next unit") == 1
    trainer = start("modelgenerator")
    topics.write(250)  # enough for one model
    await_line(trainer, "model=3601 ")
    await_line(predictor, "model 3601 (")
    listed = start.python("-m", "modelgenerator.models", "list", "--last", "2")
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["3600", "3601"]


def was_said(topics: Topics, version: int, status: str) -> bool:
    return any((s["version"], s["status"]) == (version, status) for s in topics.statuses())
