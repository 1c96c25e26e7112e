"""What a unit of work leaves behind when it is struck at its weakest moments."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.protocol.producer.transaction import WriteTxnMarkersRequest

from local.process import Process
from predictor.positions import SETTLE_SECONDS
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics, await_answered, regression
from tests.unit.classifiers import Held

STEP = "tests.faults.struck"


@pytest.fixture
def topics(topics: Topics) -> Topics:
    topics.publish(1)
    return topics


def write_until_struck(topics: Topics, predictor: Process) -> None:
    """Write records, so many at a time that each unit owes the log a line."""

    def is_struck() -> bool:
        topics.write(20)
        return "struck" in predictor.log()

    eventually(is_struck, PATIENCE_SECONDS, lambda: f"struck: {predictor.tail()}")


def commit_predictions_alone(topics: Topics) -> None:
    """End the transaction that is open on the prediction topic there, and nowhere else."""
    place = TopicPartition(topics.settings.prediction_topic, 0)
    (state,) = topics.admin.describe_producers([place]).values()
    (open_one,) = [p for p in state.active_producers if p.current_transaction_start_offset >= 0]
    marker = WriteTxnMarkersRequest.WritableTxnMarker
    request = WriteTxnMarkersRequest(
        markers=[
            marker(
                producer_id=open_one.producer_id,
                producer_epoch=open_one.producer_epoch,
                transaction_result=True,
                topics=[marker.WritableTxnMarkerTopic(name=place.topic, partition_indexes=[0])],
                coordinator_epoch=open_one.coordinator_epoch,
            )
        ]
    )

    async def send() -> None:
        (leader,) = await topics.admin._async_get_leader_for_partitions([place])
        response = await topics.admin._manager.send(request, node_id=leader)
        (result,) = response.markers
        assert [p.error_code for t in result.topics for p in t.partitions] == [0]

    topics.admin._manager.run(send)


def _younger(file: Path, than: float) -> bool:
    return file.stat().st_mtime > than


@pytest.mark.parametrize("step", ["commit_transaction", "after_commit_transaction"])
def test_killed_right_before_or_after_a_commit_it_resumes_from_what_is_committed(
    topics: Topics, start: Services, tmp_path: Path, step: str
) -> None:
    predictor = start.run("predictor", STEP, step, "3", "kill", REPLICA="one")
    write_until_struck(topics, predictor)
    assert predictor.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    logged = [int(line.split("n=")[1].split()[0]) for line in topics.log.read_text().splitlines()]
    assert max(logged) <= topics.predictions()[-1]["n"], "I4: the log is ahead of the topic"
    start("predictor", REPLICA="one")
    await_answered(topics)
    eventually(
        lambda: topics.log.read_text().count("\n") == topics.written() // 10, PATIENCE_SECONDS
    )
    assert not [*tmp_path.glob("*.old")], "I4: a log ahead of the topic was set aside"
    topics.check(topics.log)


@pytest.mark.parametrize("successor", ["one", "two"])
def test_records_of_half_a_commit_that_kept_only_the_predictions_are_not_predicted_again(
    topics: Topics, start: Services, successor: str
) -> None:
    one = start.replica("one", STEP, "commit_transaction", "3", "kill")
    write_until_struck(topics, one)
    assert one.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    before = topics.answered()
    commit_predictions_alone(topics)
    half = topics.answered()
    assert half > before
    topics.write(20)  # there may be nothing left to answer
    # A successor of the same name ends the transaction on the offsets; for another, it stays open.
    after = start.replica(successor)
    await_answered(topics, seconds=2 * SETTLE_SECONDS + PATIENCE_SECONDS)
    assert f"outputs reach offset {half - 1}, beyond the committed " in after.log()
    topics.write(100)
    await_answered(topics)
    if successor == "two":
        assert after.stop() == 0
        await_line(start.replica("one"), "partitions 0@")
    topics.check(start.logs[successor])


def test_a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it(
    topics: Topics, start: Services
) -> None:
    predictor = start.run("predictor", STEP, "commit_transaction", "3", "fail")
    write_until_struck(topics, predictor)
    await_answered(topics)
    topics.check(topics.log)


def test_woken_after_another_took_over_it_commits_nothing_of_the_unit_it_had_read(
    topics: Topics, start: Services
) -> None:
    one = start.replica("one", STEP, "begin_transaction", "3", "pause")
    write_until_struck(topics, one)
    start.replica("two")
    await_answered(topics)
    restored = one.log().count("partitions ")
    one.wake()
    eventually(lambda: one.log().count("partitions ") > restored, PATIENCE_SECONDS)
    topics.write(20)
    await_answered(topics)
    topics.check(*start.written)


def test_a_successor_waits_for_the_end_of_the_commit_that_its_predecessor_had_begun(
    topics: Topics, start: Services
) -> None:
    one = start.replica("one", STEP, "commit_transaction", "3", "pause")
    write_until_struck(topics, one)
    two = start.replica("two")
    eventually(
        lambda: "reading the committed offset" in two.log() or "partitions 0@" in two.log(),
        PATIENCE_SECONDS,
    )
    one.wake()
    await_answered(topics)
    topics.check(*start.written)


def test_a_replica_that_waits_for_the_end_of_a_commit_lets_others_join_and_predict(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    one = start.replica("one", STEP, "commit_transaction", "3", "pause")

    def one_is_struck() -> bool:
        three.write_values([b"a record of partition 0"] * 10)
        return "struck" in one.log()

    eventually(one_is_struck, PATIENCE_SECONDS, one.tail)
    others = [start.replica(name) for name in ("two", "three")]
    eventually(
        lambda: any("reading the committed offset" in each.log() for each in others),
        PATIENCE_SECONDS,
    )
    three.write(300)
    eventually(lambda: three.predictions(2), PATIENCE_SECONDS, "a prediction of partition 2")
    one.wake()
    eventually(lambda: [len(three.predictions(p)) for p in range(3)] == [100] * 3, PATIENCE_SECONDS)
    three.check(*start.written)


def test_with_nothing_to_predict_the_committed_tally_stays_as_it_is(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    health = tmp_path / "alive"
    start.run("predictor", STEP, "commit_transaction", "0", "fail", HEALTH_FILE=str(health))
    topics.write(100)
    await_answered(topics)
    for _ in range(4):  # each time, the loop has run for a second
        touched = health.stat().st_mtime
        eventually(partial(_younger, health, touched))
    topics.check()


def test_a_model_that_comes_while_a_unit_is_predicted_serves_from_the_next_unit_on(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    held, go = tmp_path / "held", tmp_path / "go"
    topics.publish(2, Held(held, go))
    predictor = start("predictor")
    topics.write(90)
    eventually(held.exists, PATIENCE_SECONDS)
    topics.publish(3, regression())
    await_line(predictor, "model 3 (test) serves from the next unit")
    go.touch()
    topics.write(100)
    await_answered(topics)
    versions = [p["model"] for p in topics.predictions()]
    assert set(versions) == {2, 3}
    assert versions == sorted(versions)
    topics.check()
