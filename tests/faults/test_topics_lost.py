"""Topics and offsets that go, come back as others, or are changed by an operator."""

from __future__ import annotations

import math
import re
import time

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from stream import clients
from stream.records import Schema
from tests.checker import check_snapshot
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.snapshot import take_snapshot
from tests.topics import Topics, await_answered, await_no_members
from tests.unit.classifiers import Once


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
def test_a_recreated_data_topic_is_read_from_its_beginning_and_counts_go_on(
    load: Load,
    start: Services,
    settings_env: dict[str, str],
    recoveries: Recoveries,
    running: bool,
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    load.finish()
    if not running:
        predictor.stop()
    before = load.topics.written()
    eventually(lambda: load.topics.answered() == before, PATIENCE_SECONDS)
    load.topics.delete(load.topics.settings.data_topic)
    with Topics(settings_env, partitions=3) as again, Load(again, models_every=math.inf) as anew:
        deleted = time.monotonic()
        if not running:
            predictor = start("predictor")
        eventually(lambda: again.answered() > before + 1_000, PATIENCE_SECONDS)
        recoveries.add("data topic recreated", time.monotonic() - deleted)
        anew.stop()
        eventually(lambda: again.answered() == before + again.written(), PATIENCE_SECONDS)
        assert sum(again.predictions(p)[-1]["n"] for p in range(3)) == before + again.written()
    assert "Traceback" not in predictor.log()
    again.check(again.log, recreated=True)


def test_where_nobody_can_tell_whether_the_data_topic_was_recreated_a_line_says_so(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(400)
    place = TopicPartition(topics.settings.data_topic, 0)
    of_older_software = (
        '{"tp":150,"fp":0,"tn":150,"fn":0,"seen":0,"unlabelled":0,"rejected":0,"model":1}'
    )
    with clients.closing(clients.consumer(topics.settings, group_id=topics.group)) as group:
        group.assign([place])
        group.commit({place: OffsetAndMetadata(300, of_older_software, -1)})
    predictor = start("predictor")
    await_answered(topics, 100)
    line = "partition 0: the tally of older software does not tell which data topic it counted: if"
    assert (
        f"{line} that was recreated since, up to 300 of its records are skipped" in predictor.log()
    )
    assert topics.predictions()[0]["n"] == 301


@pytest.mark.parametrize("operator", ["deletes the group", "resets its offsets"])
def test_without_committed_tallies_it_resumes_after_the_last_prediction(
    load: Load,
    start: Services,
    recoveries: Recoveries,
    operator: str,
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    assert predictor.stop() == 0
    await_no_members(load.topics)
    if operator == "deletes the group":
        deleted = load.topics.admin.delete_groups([load.topics.group])
        assert deleted == {load.topics.group: "OK"}
    else:
        group = clients.consumer(load.topics.settings, group_id=load.topics.group)
        places = [TopicPartition(load.topics.settings.data_topic, p) for p in range(3)]
        group.assign(places)
        group.commit({place: OffsetAndMetadata(0, "", -1) for place in places})
        clients.close(group)
    predictor = start("predictor")
    recoveries.add("committed offsets lost", load.recovery(PATIENCE_SECONDS))
    lost = [line for line in predictor.log().splitlines() if "no tally is committed" in line]
    assert {re.findall(r"partition (\d)", line)[0] for line in lost} == {"0", "1", "2"}
    assert all("counts are taken from the last output" in line for line in lost)
    assert all(line.endswith(" 0 records lost unpredicted") for line in lost)
    load.check()


def test_a_deleted_prediction_topic_is_recreated_and_counts_go_on(
    load: Load, start: Services, recoveries: Recoveries
) -> None:
    predictor = start("predictor")
    load.recovery(PATIENCE_SECONDS)
    load.topics.delete(load.topics.settings.prediction_topic)
    deleted, written = time.monotonic(), load.topics.written()
    # Of each partition, there are records that can only be predicted onto the new topic.
    eventually(lambda: load.topics.written() > written + 500, PATIENCE_SECONDS)
    recoveries.add("prediction topic deleted", load.recovery(PATIENCE_SECONDS, deleted))
    load.finish()
    assert "Traceback" not in predictor.log()
    snapshot = take_snapshot(load.topics.env)
    # The earlier predictions are gone, as after retention.
    snapshot.starts["predictions"] = dict.fromkeys(snapshot.starts["predictions"], 1)
    report = check_snapshot(snapshot, load.topics.settings.trusted_keys)
    assert report.n == load.topics.written()
    assert report.predictions < report.n


def test_with_the_status_and_schema_topics_deleted_models_are_still_served_and_barred(
    three: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    settings = three.settings
    three.describe(Schema(["a", "b"], "label", "1"))
    three.publish(1)
    predictor = start("predictor")
    with (
        Topics(settings_env, partitions=3) as publisher,
        Load(three, models_every=math.inf) as load,
    ):
        load.recovery(PATIENCE_SECONDS)
        three.delete(settings.status_topic, settings.schema_topic)
        publisher.publish(2)
        await_line(predictor, "model 2 (test) serves from the next unit")
        publisher.publish(3, Once())
        await_line(predictor, "barred model 3")
        load.recovery(PATIENCE_SECONDS)
        assert predictor.stop() == 0
        predictor = start("predictor")
        load.recovery(PATIENCE_SECONDS)
        load.finish()
        # Twice, if the first was not yet sent when the topic was recreated.
        assert {s["version"] for s in three.statuses() if s["status"] == "barred"} == {3}
    report = three.check()
    assert report.n == three.written()
    assert report.models - {3} == {1, 2}  # the barred one may have predicted before it failed


def test_a_model_topic_recreated_while_the_modelgenerator_runs_gets_new_versions(
    three: Topics, start: Services, recoveries: Recoveries
) -> None:
    three.describe(Schema(["a", "b"], "label", "1"))
    predictor, modelgenerator = start("predictor"), start("modelgenerator", RETRAIN_EVERY="1000")
    with Load(three, models_every=math.inf) as load:
        eventually(lambda: len(three.statuses()) >= 3, PATIENCE_SECONDS)
        last = three.statuses()[-1]["version"]
        deleted = time.monotonic()
        three.delete(three.settings.model_topic)
        eventually(
            lambda: any(s["version"] > last + 2 for s in three.statuses()),
            PATIENCE_SECONDS,
            modelgenerator.log,
        )
        recoveries.add("model topic deleted", time.monotonic() - deleted)
        load.finish()
    versions = [s["version"] for s in three.statuses() if s["status"] == "serving"]
    assert versions == sorted(set(versions))
    assert "Traceback" not in predictor.log() + modelgenerator.log()
    report = three.check()
    assert report.n + report.seen == three.written()
