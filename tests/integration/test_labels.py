from __future__ import annotations

import logging
from functools import partial
from typing import Any

import orjson
from kafka import OffsetAndMetadata, TopicPartition

from local.process import Process
from predictor.tally import Tally
from stream import clients
from stream.service import Stop
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics, await_answered, await_no_members


def made(topics: Topics, partition: int = 0) -> list[dict[str, Any]]:
    """Return the predictions as they were made."""
    return [p for p in topics.predictions(partition) if "outcome" not in p]


def waiting_for_labels(topics: Topics, start: Services, count: int, **env: str) -> Process:
    """Start a predictor that has predicted so many records without a label."""
    topics.publish(1)
    topics.write(count, label=False)
    predictor = start("predictor", **env)
    await_answered(topics)
    return predictor


def await_outcomes(topics: Topics, count: int) -> None:
    eventually(
        lambda: sum(len(topics.outcomes(p)) for p in range(topics.partitions)) >= count,
        PATIENCE_SECONDS,
        lambda: (
            f"{count} outcomes; there are {len(topics.outcomes())} in partition 0,"
            f" {topics.rejected_labels()[-3:]}"
        ),
    )


def await_rejected(topics: Topics, count: int) -> list[dict[str, Any]]:
    eventually(lambda: len(topics.rejected_labels()) >= count, PATIENCE_SECONDS)
    return topics.rejected_labels()


def assert_counted_in_order(topics: Topics) -> None:
    """Assert that counts run on in the order of predictions and outcomes, each counted once."""
    for partition in range(topics.partitions):
        n = correct = 0
        predictions = {}
        for p in topics.predictions(partition):
            source = tuple(p["source"])
            if "outcome" not in p:
                assert source not in predictions
                predictions[source] = p
            else:
                first = predictions[source]
                for name in ("id", "prediction", "probability", "model", "source", "time"):
                    assert p[name] == first[name]
            if (
                p["label"] is not None
                and not p.get("seen")
                and p.get("outcome") in (None, "labelled")
            ):
                n += 1
                correct += p["label"] == p["prediction"]
            if p.get("outcome") != "revised":
                assert (p["n"], p["correct"]) == (n, correct)
            correct = p["correct"]


def test_a_label_that_comes_later_is_counted_once_with_the_prediction_as_it_was_made(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(30)
    topics.write(30, label=False)
    predictor = start("predictor")
    await_answered(topics, 60)
    assert topics.predictions()[-1]["n"] == 30
    topics.publish(2)
    topics.label_ids(*range(30, 60), 30, 31)
    await_outcomes(topics, 30)
    outcomes = topics.outcomes()
    assert [o["source"][1] for o in outcomes] == list(range(30, 60))
    assert [o["label"] for o in outcomes] == [id % 2 for id in range(30, 60)]
    assert [o["n"] for o in outcomes] == list(range(31, 61))
    assert [o["labelled"] for o in outcomes] == [[0, offset] for offset in range(30)]
    assert {o["outcome"] for o in outcomes} == {"labelled"}
    assert {o["model"] for o in outcomes} == {1}
    assert all(0 <= o["delay"] < 300 for o in outcomes)
    assert_counted_in_order(topics)
    rejected = await_rejected(topics, 2)
    assert [r["source"] for r in rejected] == [[0, 30], [0, 31]]
    assert all("the record has the label" in r["reason"] for r in rejected)
    eventually(topics.logged)
    assert predictor.stop() == 0


def tally(topics: Topics, partition: int = 0) -> Tally:
    """Return the tally that is committed for a partition."""
    return Tally.from_metadata(committed(topics, topics.settings.data_topic, partition).metadata)


def held(topics: Topics) -> list[int]:
    """Return the differences of the offsets of labels that wait for their records."""
    found = committed(topics, topics.settings.label_topic).metadata
    early: list[int] = orjson.loads(found)["early"]
    return early


def committed(topics: Topics, topic: str, partition: int = 0) -> Any:
    """Return what is committed with the outputs that can be read by now.

    The offsets of a transaction may follow its records; a consumer waits for them, an admin client
    does not.
    """
    place = TopicPartition(topic, partition)
    connect = partial(clients.connected, clients.consumer, topics.settings, Stop())
    with clients.closing(connect(logging.getLogger("test"), group_id=topics.group)) as reader:
        return reader.committed(place, metadata=True, timeout_ms=int(1_000 * PATIENCE_SECONDS))


def test_a_label_that_revises_one_moves_correct_and_not_n(topics: Topics, start: Services) -> None:
    topics.publish(1)
    topics.write(10, label=False)
    topics.write(1)
    start("predictor")
    await_answered(topics)
    right = topics.predictions()[0]["prediction"]
    topics.label(1 - right, 0)
    topics.label(right, 0)
    topics.label(right, 0, revises=True)
    topics.label(1 - topics.predictions()[10]["label"], 10, revises=True)
    topics.label(1, 3, revises=True)  # the first label of its record
    topics.producer.flush(30)
    await_outcomes(topics, 4)
    first, again, inside, without = topics.outcomes()
    assert (first["outcome"], first["n"], first["correct"]) == ("labelled", 2, 1)
    assert (again["outcome"], again["n"], again["correct"]) == ("revised", 2, 2)
    assert (inside["outcome"], inside["source"], inside["n"]) == ("revised", [0, 10], 2)
    assert inside["correct"] == 1
    assert (without["outcome"], without["n"]) == ("labelled", 3)
    assert [r["source"] for r in await_rejected(topics, 1)] == [[0, 1]]
    eventually(lambda: tally(topics).revised == 2)
    assert tally(topics).orphans == 1


def test_labels_that_are_nobodys_are_rejected_with_the_reason(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    three.write(9, label=False)
    start("predictor", LABEL_EARLY_SECONDS="1")
    await_answered(three)
    three.label(1, 999)
    three.label(1, source=(2, 1))
    three.label(1, 3, source=(0, 0))
    three.label(1, source=(0, 77))
    topic = three.settings.label_topic
    for value in (b"not JSON", b'{"label": 1}', b'{"id": 1, "label": 2}', None):
        three.producer.send(topic, value, key=b"k", partition=0)
    three.label(1, 3, source=(0, 1))
    three.producer.flush(30)
    await_outcomes(three, 1)
    reasons = {r["source"][1]: r["reason"] for r in await_rejected(three, 8)}
    assert sorted(reasons) == list(range(8))
    for offset, part in enumerate(
        ["orphan", "belongs to partition 2", "id: ", "orphan", "not JSON", "id: missing", "label: "]
    ):
        assert part in reasons[offset], reasons
    assert tally(three).orphans == 8


def test_where_ids_repeat_a_label_by_id_means_the_newest_that_waits_and_one_by_source_is_exact(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write_values([b'{"id": "a", "features": [1, 2]}'] * 4)
    start("predictor")
    await_answered(topics, 4)
    topics.label(1, source=(0, 1))
    topics.label(1, "a")
    topics.label(1, "a")
    topics.label(1, source=(0, 3))
    topics.producer.flush(30)
    await_outcomes(topics, 3)
    assert [o["source"][1] for o in topics.outcomes()] == [1, 3, 2]
    assert [r["source"] for r in await_rejected(topics, 1)] == [[0, 3]]


def test_a_label_before_its_record_waits_for_it_also_over_a_restart_and_else_is_an_orphan(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 5, LABEL_EARLY_SECONDS="3600")
    topics.label_ids(5, 7, 6)
    eventually(lambda: held(topics) == [0, 1, 1])
    topics.write(1, label=False)
    await_outcomes(topics, 1)
    predictor.kill()
    topics.write(1, label=False)  # before the start: held labels wait only until the data ends
    start("predictor", LABEL_EARLY_SECONDS="1")
    await_outcomes(topics, 2)
    assert [(o["id"], o["labelled"]) for o in topics.outcomes()] == [(5, [0, 0]), (6, [0, 2])]
    assert_counted_in_order(topics)
    assert [r["source"] for r in await_rejected(topics, 1)] == [[0, 1]]
    assert held(topics) == []
    topics.write(1, label=False)
    eventually(lambda: len(made(topics)) == 8)  # nothing is committed while it is checked
    topics.check()


def test_more_early_labels_than_can_be_held_are_read_later_and_at_the_end_the_oldest_give_way(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.label_ids(*range(300))
    topics.write(1, label=False)
    start("predictor", LABEL_EARLY_SECONDS="3600")
    await_outcomes(topics, 1)
    rejected = await_rejected(topics, 299 - 256)
    assert [r["source"][1] for r in rejected] == list(range(1, 300 - 256))
    eventually(lambda: len(held(topics)) == 256)
    topics.write(299, label=False)
    await_outcomes(topics, 257)
    assert_counted_in_order(topics)


def test_beyond_label_wait_predictions_expire_in_order_and_their_labels_are_too_late(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 30, LABEL_WAIT="10", LABEL_EARLY_SECONDS="1")
    found = tally(topics)
    assert (found.waiting, found.expired, found.expired_to) == (10, 20, 20)
    assert predictor.stop() == 0
    start("predictor", LABEL_WAIT="1000", LABEL_EARLY_SECONDS="1")
    topics.label_ids(20, 19)
    topics.label(1, source=(0, 0))
    topics.label_ids(29)
    await_outcomes(topics, 2)
    assert {r["reason"].split(":")[0] for r in await_rejected(topics, 2)} == {"orphan or too late"}
    found = tally(topics)
    assert (found.waiting, found.late, found.expired_to) == (8, 2, 20)


def test_time_alone_expires_predictions_and_assumes_the_label_0_where_that_is_set(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(20, label=False)
    topics.label_ids(7)
    env = {"LABEL_ASSUME": "0", "LABEL_EARLY_SECONDS": "1"}
    predictor = start("predictor", LABEL_WAIT="seconds:3600", **env)
    await_outcomes(topics, 1)  # however long that takes
    assert predictor.stop() == 0
    start("predictor", LABEL_WAIT="seconds:5", **env)
    await_outcomes(topics, 20)
    first, *assumed = topics.outcomes()
    assert (first["outcome"], first["n"]) == ("labelled", 1)
    assert {(o["outcome"], o["label"], o["n"]) for o in assumed} == {("assumed", 0, 1)}
    assert [o["id"] for o in assumed] == [id for id in range(20) if id != 7]
    topics.label_ids(3)
    assert "too late" in await_rejected(topics, 1)[0]["reason"]
    found = tally(topics)
    assert (found.n, found.assumed, found.expired, found.waiting) == (1, 19, 0, 0)
    assert_counted_in_order(topics)


def test_predictions_that_wait_are_read_back_after_kill_9_and_each_label_is_counted_once(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 5_000)
    topics.label_ids(*range(0, 1_000))
    await_outcomes(topics, 1)
    predictor.kill()
    topics.label_ids(*range(900, 2_000))
    predictor = start("predictor")
    await_outcomes(topics, 2_000)
    await_line(predictor, "predictions wait for their labels")
    assert sorted(o["id"] for o in topics.outcomes()) == list(range(2_000))
    assert len(await_rejected(topics, 100)) == 100
    topics.write(200, label=False)
    topics.label_ids(*range(2_000, 5_200))
    await_outcomes(topics, 5_200)
    assert_counted_in_order(topics)
    eventually(topics.logged)
    found = tally(topics)
    assert (found.n, found.late, found.waiting, found.orphans) == (5_200, 5_200, 0, 100)


def test_with_the_label_offset_lost_or_both_no_label_is_counted_twice_nor_left_out(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 20, LABEL_EARLY_SECONDS="3600")
    topics.label_ids(1, 2, 20)
    eventually(lambda: held(topics) == [2])
    assert predictor.stop() == 0
    await_no_members(topics)
    place = TopicPartition(topics.settings.label_topic, 0)
    topics.admin.alter_group_offsets(topics.group, {place: OffsetAndMetadata(0, "", -1)})
    predictor = start("predictor", LABEL_EARLY_SECONDS="3600")
    topics.label_ids(3)
    await_outcomes(topics, 3)
    assert predictor.stop() == 0
    eventually(lambda: topics.admin.delete_groups([topics.group])[topics.group] == "OK")
    predictor = start("predictor", LABEL_EARLY_SECONDS="3600")
    topics.write(1, label=False)
    topics.label_ids(4)
    await_outcomes(topics, 5)
    assert [o["id"] for o in topics.outcomes()] == [1, 2, 3, 20, 4]
    assert "no tally is committed; counts are taken from the last output, n=3" in predictor.log()
    assert topics.rejected_labels() == []
    assert_counted_in_order(topics)
    found = tally(topics)
    assert (found.n, found.late, found.waiting) == (5, 5, 16)


def test_labels_of_a_recreated_label_topic_are_read_from_its_beginning(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 20, LABEL_EARLY_SECONDS="3600")
    topics.label_ids(1, 2, 99)
    await_outcomes(topics, 2)
    topics.delete(topics.settings.label_topic)
    await_line(predictor, "the label topic was recreated; labels are read from offset 0")
    topics.label_ids(2, 3)
    await_outcomes(topics, 3)
    assert [o["id"] for o in topics.outcomes()] == [1, 2, 3]
    assert [r["source"] for r in await_rejected(topics, 1)] == [[0, 0]]
    assert held(topics) == []


def test_a_recreated_data_topic_expires_all_that_waits(topics: Topics, start: Services) -> None:
    predictor = waiting_for_labels(topics, start, 20, LABEL_EARLY_SECONDS="1")
    topics.delete(topics.settings.data_topic)
    await_line(predictor, "the data topic was recreated; 20 predictions no longer wait")
    topics.write(3, label=False)
    topics.label_ids(5, 20)
    await_outcomes(topics, 1)
    assert topics.outcomes()[0]["id"] == 20
    assert "too late" in await_rejected(topics, 1)[0]["reason"]
    found = tally(topics)
    assert (found.expired, found.waiting, found.n) == (20, 2, 1)


def test_from_one_replica_to_three_and_back_labels_meet_what_another_replica_predicted(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    three.write(3_000, label=False)
    replicas = [start.replica("one")]
    await_answered(three)
    replicas += [start.replica("two"), start.replica("three")]
    three.label_ids(*range(0, 1_000))
    for replica in replicas[1:]:
        await_line(replica, "predictions wait for their labels")
    three.write(300, label=False)
    three.label_ids(*range(900, 2_000))
    await_outcomes(three, 2_000)
    for replica in replicas[1:]:
        assert replica.stop() == 0
    three.label_ids(*range(2_000, 3_300))
    await_outcomes(three, 3_300)
    assert_counted_in_order(three)
    assert sorted(o["id"] for p in range(3) for o in three.outcomes(p)) == list(range(3_300))
    eventually(lambda: sum(len(three.rejected_labels(p)) for p in range(3)) == 100)


def test_a_tally_of_the_version_before_is_gone_on_from_and_labels_of_what_it_predicted_are_too_late(
    topics: Topics, start: Services
) -> None:
    topics.write(20, label=False)
    place = TopicPartition(topics.settings.data_topic, 0)
    before = (
        '{"tp":5,"fp":1,"tn":3,"fn":1,"seen":0,"unlabelled":10,"rejected":0,"model":1,'
        f'"incarnation":"{data_id(topics)}"'
        "}"
    )
    commit = partial(topics.admin.alter_group_offsets, topics.group)
    offsets = {place: OffsetAndMetadata(20, before, -1)}
    # A new cluster has no coordinator yet when it is asked for the first one.
    clients.connect(partial(commit, offsets), topics.settings, Stop(), logging.getLogger("test"))
    topics.publish(1)
    topics.write(5, label=False)
    start("predictor", LABEL_EARLY_SECONDS="1")
    topics.label_ids(3, 22)
    topics.label(1, source=(0, 4))
    topics.producer.flush(30)
    await_outcomes(topics, 1)
    (outcome,) = topics.outcomes()
    assert (outcome["id"], outcome["n"]) == (22, 11)
    reasons = {r["reason"].split(":")[0] for r in await_rejected(topics, 2)}
    assert reasons == {"orphan or too late"}
    found = tally(topics)
    assert (found.n, found.unlabelled, found.expired_to, found.waiting) == (11, 15, 20, 4)


def data_id(topics: Topics) -> str:
    (topic,) = topics.admin.describe_topics([topics.settings.data_topic])
    return str(topic["topic_id"])


def test_predictions_that_retention_took_expire_and_the_others_are_still_known(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 20, LABEL_EARLY_SECONDS="1")
    assert predictor.stop() == 0
    place = TopicPartition(topics.settings.prediction_topic, 0)
    # Transactions have offsets of their own, however many they were.
    topics.admin.delete_records({place: topics.records(place.topic)[11].offset})
    predictor = start("predictor", LABEL_EARLY_SECONDS="1")
    topics.label_ids(3, 15)
    topics.label(1, source=(0, 10))
    topics.producer.flush(30)
    assert len(await_rejected(topics, 2)) == 2
    line = f"11 waiting predictions are no longer on {place.topic}; they are expired"
    assert line in predictor.log()
    found = tally(topics)
    assert (found.late, found.expired, found.expired_to, found.waiting) == (1, 11, 11, 8)


def test_while_it_catches_up_labels_of_no_record_let_no_prediction_expire(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.label_ids(*range(1_000_000, 1_000_300))
    for first in range(0, 5_000, 500):
        topics.write(500, label=False)
        topics.label_ids(*range(max(0, first - 500), first))
    topics.label_ids(*range(4_500, 5_000))
    start("predictor", LABEL_WAIT="1200", LABEL_EARLY_SECONDS="1")
    await_outcomes(topics, 5_000)
    assert len(await_rejected(topics, 300)) == 300
    found = tally(topics)
    assert (found.late, found.expired, found.waiting) == (5_000, 0, 0)
    assert_counted_in_order(topics)


def test_a_partition_that_stays_where_it_is_when_the_topics_grow_is_not_read_back(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 20)
    topics.admin.create_partitions({topics.settings.data_topic: 2})
    await_line(predictor, f"added partitions to topic {topics.settings.label_topic}, from 1 to 2")
    await_line(predictor, "partitions 0@20 n=0 1@0 n=0")
    topics.label_ids(3)
    topics.producer.send(topics.settings.data_topic, b'{"id": 99, "features": [1, 2]}', partition=1)
    topics.label(1, 99, partition=1)
    topics.producer.flush(30)
    eventually(lambda: len(topics.outcomes(1)) == 1)
    await_outcomes(topics, 1)
    assert "predictions wait for their labels" not in predictor.log()


def test_after_a_reset_labels_are_counted_again_from_their_beginning(
    topics: Topics, start: Services
) -> None:
    predictor = waiting_for_labels(topics, start, 20, LABEL_EARLY_SECONDS="1")
    topics.label_ids(1, 2, 1)
    await_rejected(topics, 1)
    assert predictor.stop() == 0
    await_no_members(topics)
    done = start.python("-m", "predictor.reset", "--yes")
    assert done.returncode == 0, done.stderr
    start("predictor", LABEL_EARLY_SECONDS="1")
    eventually(lambda: topics.records(topics.settings.label_rejected_topic))
    outcomes = [
        orjson.loads(record.value)
        for record in topics.records(topics.settings.prediction_topic)
        if b'"outcome"' in record.value
    ]
    assert [(o["id"], o["n"], o["labelled"]) for o in outcomes] == [(1, 1, [0, 0]), (2, 2, [0, 1])]
    found = tally(topics)
    assert (found.n, found.late, found.orphans, found.waiting) == (2, 2, 1, 18)


def test_after_a_suspension_labels_of_no_record_hold_up_no_others_though_no_record_comes(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(100, label=False)
    predictor = start("predictor", LABEL_EARLY_SECONDS="0.5")
    await_answered(topics)
    predictor.pause()
    await_no_members(topics)
    predictor.wake()
    await_line(predictor, "partitions 0@100 n=0")
    topics.label_nothing(1_000)  # more than are held until the end of the data is known
    topics.label_ids(*range(100))
    eventually(lambda: len(topics.outcomes()) == 100)
    eventually(lambda: len(topics.rejected_labels()) == 1_000)
