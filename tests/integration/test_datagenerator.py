from __future__ import annotations

import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from datagenerator.late_labels import LateLabels
from datagenerator.settings import Settings
from local.process import Process
from stream import reading
from stream.service import Stop
from tests.services import ROOT, Services, assert_ends, await_line, eventually, last_error

Env = dict[str, str]

EXAMPLE = ROOT / "examples" / "digits.csv"


def stored(env: Env, topic: str) -> dict[int, list[Any]]:
    """Everything on a topic, by partition."""
    servers = env["KAFKA_BOOTSTRAP_SERVERS"]
    with KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        return {
            partition: list(reading.read_range(consumer, place, start, end, Stop()))
            for partition in consumer.partitions_for_topic(topic) or ()
            for place in [TopicPartition(topic, partition)]
            for start, end in [reading.bounds(consumer, place)]
        }


def values(env: Env, topic: str) -> dict[int, list[Any]]:
    """Everything on a topic, decoded, by partition."""
    return {p: [orjson.loads(r.value) for r in rs] for p, rs in stored(env, topic).items()}


def ids(env: Env) -> dict[int, list[int]]:
    return {p: [r["id"] for r in rs] for p, rs in values(env, env["DATA_TOPIC"]).items()}


def test_each_id_up_to_count_is_sent_once_to_its_partition_and_then_the_service_idles(
    start: Services, settings_env: Env
) -> None:
    process = start("datagenerator", RATE="0", COUNT="3001", DATA_PARTITIONS="3")
    await_line(process, "done: sea ends with id 3000")
    assert ids(settings_env) == {p: list(range(p, 3001, 3)) for p in range(3)}
    assert process.wait(0.5) is None
    assert_ends(process)


def test_a_restart_with_a_larger_count_sends_the_rest(start: Services, settings_env: Env) -> None:
    for count, done in (("50", "id 49"), ("80", "id 79")):
        process = start("datagenerator", RATE="0", COUNT=count, DATA_PARTITIONS="2")
        await_line(process, f"done: sea ends with {done}")
        assert_ends(process)
    assert ids(settings_env) == {p: list(range(p, 80, 2)) for p in range(2)}


def test_what_a_kill_left_out_of_some_partitions_is_filled_in(
    kafka: str, start: Services, settings_env: Env
) -> None:
    # Kills seldom leave partitions so unequal when all of them are on one broker.
    left = {0: range(0, 90, 3), 1: range(1, 10, 3), 2: range(0)}
    records = [(p, b'{"id":%d,"features":[1,2,3]}' % id) for p, part in left.items() for id in part]
    somebody(kafka, settings_env["DATA_TOPIC"], records, partitions=3)
    process = start("datagenerator", RATE="0", COUNT="300", DATA_PARTITIONS="3")
    await_line(process, "first_id=2 ")
    await_line(process, "done")
    assert ids(settings_env) == {p: list(range(p, 300, 3)) for p in range(3)}


def test_the_schema_is_written_once_however_often_the_service_restarts(
    start: Services, settings_env: Env
) -> None:
    for _ in range(2):
        process = start("datagenerator", STREAM="agrawal", COUNT="10")
        await_line(process, "done")
        assert_ends(process)
    (schemas,) = values(settings_env, settings_env["DATA_TOPIC"] + ".schema").values()
    (schema,) = schemas
    assert schema["feature_names"][:3] == ["salary", "commission", "age"]
    assert (schema["label"], schema["positive"]) == ("label", "1")


def test_a_source_of_another_schema_ends_its_start_with_one_line(
    start: Services, settings_env: Env
) -> None:
    process = start("datagenerator", COUNT="10")
    await_line(process, "done")
    line = last_error(start("datagenerator", STREAM="agrawal"))
    assert line.startswith(f"{settings_env['DATA_TOPIC']}.schema has 3 features ('att1', ")
    assert "the source has 9 features" in line
    assert "choose another DATA_TOPIC" in line
    assert ids(settings_env) == {0: list(range(10))}


def test_a_source_of_another_width_than_the_records_there_ends_with_one_line(
    kafka: str, start: Services, settings_env: Env
) -> None:
    topic = settings_env["DATA_TOPIC"]
    somebody(kafka, topic, [(0, b'{"id": "a", "features": [1, 2]}'), (0, b"no record")])
    line = last_error(start("datagenerator"))
    assert line.startswith(f"{topic}, partition 0 has records of 2 features; the source has 3")


def test_above_somebody_elses_records_ids_go_on_at_the_highest_and_one(
    kafka: str, start: Services, settings_env: Env
) -> None:
    features = b'"features": [1, 2, 3]}'
    records = [(0, b'{"id": 41, ' + features), (0, b'{"id": "b", ' + features), (0, b"{")]
    somebody(kafka, settings_env["DATA_TOPIC"], records)
    process = start("datagenerator", COUNT="44")
    await_line(process, "first_id=42 ")
    await_line(process, "done")
    assert len(stored(settings_env, settings_env["DATA_TOPIC"])[0]) == 5


def somebody(kafka: str, topic: str, records: list[tuple[int, bytes]], partitions: int = 1) -> None:
    """Let somebody else send the first records of a topic that has no schema yet."""
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}})
    admin.wait_for_topics([topic])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka)
    for partition, record in records:
        producer.send(topic, record, partition=partition)
    producer.flush(timeout=30)
    producer.close()


def test_when_the_topic_grows_a_restart_goes_on_above_the_highest_id(
    start: Services, settings_env: Env
) -> None:
    for count, partitions in (("100", "1"), ("160", "3")):
        process = start("datagenerator", RATE="0", COUNT=count, DATA_PARTITIONS=partitions)
        await_line(process, f"done: sea ends with id {int(count) - 1}")
        assert_ends(process)
    found = ids(settings_env)
    assert sorted(id for part in found.values() for id in part) == list(range(160))
    assert all(id % 3 == p for p, part in found.items() for id in part if id >= 100)


def test_new_partitions_are_followed_while_it_sends_and_no_id_is_missing_or_sent_twice(
    kafka: str, start: Services, settings_env: Env
) -> None:
    process = start("datagenerator", RATE="500", DATA_PARTITIONS="2")
    topic = settings_env["DATA_TOPIC"]
    eventually(lambda: sum(map(len, ids(settings_env).values())) > 500)
    with KafkaAdminClient(bootstrap_servers=kafka) as admin:
        admin.create_partitions({topic: 3})
    eventually(lambda: len(ids(settings_env).get(2, [])) > 100)
    assert_ends(process)
    # What was on its way to one partition may be lost at the end, and its successor arrived.
    end = max(map(max, ids(settings_env).values())) + 1
    await_line(start("datagenerator", RATE="0", COUNT=str(end)), "done")
    found = ids(settings_env)
    sent = sorted(id for part in found.values() for id in part)
    first = found[2][0]
    assert sent == list(range(len(sent)))
    assert all(id % 3 == p for p, part in found.items() for id in part if id >= first)
    assert all(id % 2 == p for p in (0, 1) for id in found[p] if id < first - 2)


def test_what_a_kill_left_out_before_the_topic_grew_goes_where_it_would_have_gone(
    kafka: str, start: Services, settings_env: Env
) -> None:
    left = [(0, b'{"id":%d,"features":[1,2,3]}' % id) for id in range(0, 20, 2)]
    left += [(1, b'{"id":%d,"features":[1,2,3]}' % id) for id in range(1, 10, 2)]
    somebody(kafka, settings_env["DATA_TOPIC"], left, partitions=3)
    process = start("datagenerator", RATE="0", COUNT="300", DATA_PARTITIONS="3")
    await_line(process, "first_id=11 partitions=2 ")
    await_line(process, "done")
    found = ids(settings_env)
    assert sorted(id for part in found.values() for id in part) == list(range(300))
    assert all(id % 2 == p for p in (0, 1) for id in found[p] if id < 20)
    assert all(id % 3 == p for p, part in found.items() for id in part if id >= 20)


def test_a_file_is_sent_once_whole_and_a_restart_sends_no_row_again(
    start: Services, settings_env: Env
) -> None:
    options = {"STREAM": str(EXAMPLE), "LABEL": "parity", "POSITIVE": "odd", "RATE": "0"}
    process = start("datagenerator", **options, COUNT="1000")
    await_line(process, "done")
    assert_ends(process)
    again = start("datagenerator", **options)
    await_line(again, "first_id=1000 ")
    await_line(again, "ends with id 1796")
    (records,) = values(settings_env, settings_env["DATA_TOPIC"]).values()
    assert [r["id"] for r in records] == list(range(1797))
    assert sum(r["label"] for r in records) == 906
    rows = [map(int, row.split(",")[:-1]) for row in EXAMPLE.read_text().splitlines()[1:]]
    pixels = [column for column in zip(*rows, strict=True) if any(column)]
    sent = sorted(tuple(map(int, r["features"])) for r in records)
    assert sent == sorted(zip(*pixels, strict=True))


def test_records_have_the_ids_of_the_file_and_a_kill_leaves_none_out_and_sends_none_twice(
    start: Services, settings_env: Env, tmp_path: Path
) -> None:
    path = tmp_path / "customers.csv"
    # More rows than are sent before both kills, however late these are.
    rows = [f"c-{n * 7919 % 10007},{n % 13}.5,{'yes' if n % 3 else 'no'}\n" for n in range(10_000)]
    path.write_text(f"customer,x,sold\n{''.join(rows)}")
    options = {"STREAM": str(path), "LABEL": "sold", "ID": "customer", "DATA_PARTITIONS": "2"}
    sent = partial(customers, settings_env)
    for _ in range(2):
        kill_after(300, lambda: len(sent()), start("datagenerator", **options, RATE="800"))
    await_line(start("datagenerator", **options, RATE="0"), "ends with id 9999")
    assert sorted(sent()) == sorted(row.split(",")[0] for row in rows)


def kill_after(more: int, count: Callable[[], int], process: Process) -> None:
    """Kill a process once it has sent more than so many."""
    goal = count() + more
    eventually(lambda: count() > goal)
    process.kill()


def customers(env: Env) -> list[str]:
    return [r["id"] for records in values(env, env["DATA_TOPIC"]).values() for r in records]


def test_a_restart_reads_the_columns_as_the_schema_on_the_topic_says(
    start: Services, settings_env: Env, tmp_path: Path
) -> None:
    path = tmp_path / "some.csv"
    rows = "".join(f"5,{n % 13}.5,{'yes' if n % 3 else 'no'}\n" for n in range(100))
    path.write_text(f"same,x,sold\n{rows}")
    options = {"STREAM": str(path), "LABEL": "sold", "RATE": "0"}
    process = start("datagenerator", **options, COUNT="50")
    await_line(process, "ends with id 49")
    assert "'same' number 0.0 % 1 '5' left out: constant" in re.sub(" +", " ", process.log())
    assert_ends(process)
    path.write_text(f"same,x,sold\n{rows.replace('5,', '6,', 1)}")
    process = start("datagenerator", **options)
    await_line(process, "ends with id 99")
    (schemas,) = values(settings_env, settings_env["DATA_TOPIC"] + ".schema").values()
    assert [schema["feature_names"] for schema in schemas] == [["x"]]
    (records,) = values(settings_env, settings_env["DATA_TOPIC"]).values()
    assert {len(record["features"]) for record in records} == {1}


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    """Return a file of categories, times and numbers."""
    path = tmp_path / "plans.csv"
    rows = "".join(
        f"{n % 13}.5,{'Köln' if n % 2 else 'Łódź'},2026-01-{n % 28 + 1:02d} 10:00,0{n % 5},"
        f"{'yes' if n % 3 else 'no'}\n"
        for n in range(100)
    )
    path.write_text(f"x,city,since,zip,sold\n{rows}")
    return path


def test_a_table_with_categories_is_sent_by_type_and_a_restart_follows_the_recorded_schema(
    start: Services, settings_env: Env, plans: Path
) -> None:
    options = {"STREAM": str(plans), "LABEL": "sold", "RATE": "0"}
    process = start("datagenerator", **options, TYPES="zip:category", DROP="x", COUNT="50")
    await_line(process, "ends with id 49")
    assert_ends(process)
    await_line(start("datagenerator", **options), "ends with id 99")
    ((schema,),) = values(settings_env, settings_env["DATA_TOPIC"] + ".schema").values()
    assert schema["feature_names"] == ["city", "since", "zip"]
    assert schema["types"] == ["category", "time", "category"]
    assert (schema["positive"], schema["negative"]) == ("yes", "no")
    (records,) = values(settings_env, settings_env["DATA_TOPIC"]).values()
    lines = [line.split(",") for line in plans.read_text().splitlines()[1:]]
    wanted = [
        ([city, f"{since.replace(' ', 'T')}:00Z", zip], int(sold == "yes"))
        for _, city, since, zip, sold in lines
    ]
    assert [record["id"] for record in records] == list(range(100))
    assert sorted((r["features"], r["label"]) for r in records) == sorted(wanted)


def test_a_schema_of_the_version_before_is_followed_with_times_as_seconds(
    kafka: str, start: Services, settings_env: Env, plans: Path
) -> None:
    topic = settings_env["DATA_TOPIC"]
    columns = {"x": "number", "city": "left out: DROP", "since": "time", "zip": "number"}
    before = {"feature_names": ["x", "since", "zip"], "label": "sold", "positive": "yes"}
    schema = orjson.dumps(before | {"file_columns": columns})
    somebody(kafka, f"{topic}.schema", [(0, schema)])
    process = start("datagenerator", STREAM=str(plans), LABEL="sold", RATE="0")
    await_line(process, "ends with id 99")
    assert values(settings_env, f"{topic}.schema") == {0: [orjson.loads(schema)]}
    (records,) = values(settings_env, topic).values()
    assert {type(value) for record in records for value in record["features"]} == {float}
    assert min(record["features"][1] for record in records) == 1767261600


def test_rows_with_times_are_replayed_in_order_and_faster_if_asked_for(
    start: Services, settings_env: Env, tmp_path: Path
) -> None:
    path = tmp_path / "some.csv"
    rows = "".join(f"2026-01-{n // 24 + 1:02d} {n % 24}:00,{n}.5,{n % 2}\n" for n in range(72))
    path.write_text(f"t,x,sold\n{rows}")
    options = {"STREAM": str(path), "LABEL": "sold", "TIME": "t", "SPEED": "86400"}
    process = start("datagenerator", **options)
    await_line(process, "rate=that of t x 86400")
    await_line(process, "ends with id 71")
    (records,) = values(settings_env, settings_env["DATA_TOPIC"]).values()
    assert [record["features"] for record in records] == [[n + 0.5] for n in range(72)]


def test_repeats_are_sent_when_asked_for_and_named_as_seen_data(start: Services) -> None:
    process = start("datagenerator", STREAM="breast_cancer", REPEAT="1", RATE="0", COUNT="600")
    await_line(process, "ends with id 599")
    assert "records from id 569 on repeat earlier ones" in process.log()


def test_records_come_at_the_rate_asked_for(start: Services, settings_env: Env) -> None:
    process = start("datagenerator", RATE="400")
    topic = settings_env["DATA_TOPIC"]
    eventually(lambda: len(stored(settings_env, topic).get(0, [])) > 1_200)
    assert_ends(process)
    (sent,) = stored(settings_env, topic).values()
    milliseconds = [record.timestamp for record in sent]
    fastest = min(b - a for a, b in zip(milliseconds, milliseconds[400:], strict=False))
    assert 450 < fastest < 1_100  # half a second at most is made up for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_full_speed_ends_it_within_five_seconds(start: Services, number: int) -> None:
    process = start("datagenerator", RATE="0")
    await_line(process, "first_id")
    assert_ends(process, number)


def test_a_setting_that_does_not_fit_the_file_ends_the_start_with_one_line(start: Services) -> None:
    line = last_error(start("datagenerator", STREAM=str(EXAMPLE), LABEL="parity"), 2)
    assert line.startswith("POSITIVE: say which value of column 'parity'")


def test_a_wrong_cell_ends_the_start_with_one_line(start: Services, tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("a,y\n1,0\nx,1\n2,1\n")
    line = last_error(start("datagenerator", STREAM=str(path), LABEL="y"))
    assert line.startswith(f"{path}, line 3, column 'a': 'x' is not a number within")


def late(env: Env) -> dict[int, list[dict[str, Any]]]:
    return values(env, env["DATA_TOPIC"].replace(".data", ".label"))


def test_a_late_label_is_sent_once_to_the_partition_of_its_record(
    start: Services, settings_env: Env
) -> None:
    env = {"RATE": "0", "COUNT": "600", "DATA_PARTITIONS": "3"}
    await_line(start("datagenerator", **env), "done")
    topic = settings_env["DATA_TOPIC"]
    wanted = {
        p: [{"label": r["label"], "id": r["id"]} for r in records]
        for p, records in values(settings_env, topic).items()
    }
    other = {**settings_env, "DATA_TOPIC": f"other.{topic}"}
    process = start("datagenerator", **env | other, LABEL_DELAY="records:100")
    await_line(process, "done")
    assert not any("label" in r for rs in values(other, other["DATA_TOPIC"]).values() for r in rs)
    assert late(other) == wanted
    assert_ends(process)


@pytest.mark.parametrize("delay", ["records:1000", "1", "exponential:0.5"])
def test_no_label_is_missing_whenever_the_datagenerator_was_killed(
    start: Services, settings_env: Env, delay: str
) -> None:
    env = {"LABEL_DELAY": delay, "LABEL_SHARE": "0.8", "DATA_PARTITIONS": "2", "RATE": "2000"}
    for _ in range(3):
        kill_after(700, partial(labels_sent, settings_env), start("datagenerator", **env))
    end = max(map(max, ids(settings_env).values())) + 1
    for line in ("done", " 0 labels of records that were sent are still to come"):
        process = start("datagenerator", **env, COUNT=str(end))
        await_line(process, line)
        assert_ends(process)
    sent = {id: p for p, found in ids(settings_env).items() for id in found}
    found = {label["id"]: p for p, labels in late(settings_env).items() for label in labels}
    assert found.items() <= sent.items()
    given = Settings.model_validate({name.lower(): value for name, value in env.items()})
    assert sorted(found) == [id for id in range(end) if LateLabels(given).has_label(id)]
    assert labels_sent(settings_env) < 1.5 * len(found)


def labels_sent(env: Env) -> int:
    return sum(map(len, late(env).values()))


def test_late_labels_of_ids_that_repeat_name_their_records_whenever_it_was_killed(
    start: Services, settings_env: Env, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    # More rows than are sent before both kills, however late these are.
    rows = [f"c-{n % 50},{n}.5,{'yes' if n % 3 else 'no'}\n" for n in range(10_000)]
    path.write_text(f"customer,x,sold\n{''.join(rows)}")
    options = {"STREAM": str(path), "LABEL": "sold", "ID": "customer", "DATA_PARTITIONS": "2"}
    options |= {"LABEL_DELAY": "records:100", "TYPES": "x:number"}
    for _ in range(2):
        process = start("datagenerator", **options, RATE="800")
        kill_after(300, partial(labels_sent, settings_env), process)
    await_line(start("datagenerator", **options, RATE="0"), "ends with id 9999")
    records, labels = values(settings_env, settings_env["DATA_TOPIC"]), late(settings_env)
    for partition, sent in records.items():
        named = {label["source"][1]: label for label in labels[partition]}
        assert sorted(named) == list(range(len(sent)))
        for offset, record in enumerate(sent):
            assert named[offset]["id"] == record["id"]
            assert named[offset]["label"] == bool(int(record["features"][0]) % 3)


def test_labels_come_at_the_times_of_their_column_whenever_it_was_killed(
    start: Services, settings_env: Env, tmp_path: Path
) -> None:
    # More rows than are sent before both kills, however late these are.
    rows, speed = 60_000, 4_000
    # The first ones wait while more are sent than a restart looks at in any case.
    delays = [60_000 if n < 200 else 600 * (n % 5) if n % 7 else -60 for n in range(rows)]
    known = ["" if n % 11 == 0 else str(n + delay) for n, delay in enumerate(delays)]
    path = tmp_path / "orders.csv"
    lines = [f"{n},{n % 9}.5,{time},{n % 3 % 2}\n" for n, time in enumerate(known)]
    path.write_text(f"ordered,x,known,sold\n{''.join(lines)}")
    options = {"STREAM": str(path), "LABEL": "sold", "TIME": "ordered", "LABEL_TIME": "known"}
    options |= {"SPEED": str(speed)}
    for more in (11_000, 600):
        kill_after(more, partial(labels_sent, settings_env), start("datagenerator", **options))
    last = f"ends with id {rows - 1}"
    for line in (last, " 0 labels of records that were sent are still to come"):
        process = start("datagenerator", **options)
        await_line(process, line)
        assert_ends(process)
    topic = settings_env["DATA_TOPIC"]
    records = stored(settings_env, topic)[0]
    sent = [{"id": n, "features": [n % 9 + 0.5]} for n in range(rows)]
    assert [orjson.loads(record.value) for record in records] == sent
    labels = stored(settings_env, topic.replace(".data", ".label"))[0]
    found = [(orjson.loads(label.value), label.timestamp) for label in labels]
    assert {label["id"] for label, _ in found} == {n for n in range(rows) if known[n]}
    assert len(found) < 1.5 * rows
    for label, at in found:
        id = label["id"]
        assert label["label"] == id % 3 % 2
        # The clock of labels looks at the time between the record before it and its own.
        assert at - records[id - 1].timestamp > 1_000 * delays[id] / speed - 2


@pytest.mark.parametrize("delay", [None, "records:47"])
def test_labels_of_earlier_records_are_features_whenever_the_datagenerator_was_killed(
    start: Services, settings_env: Env, delay: str | None
) -> None:
    env = {"STREAM": "persistent", "LABEL_LAGS": "48,100", "DATA_PARTITIONS": "2"}
    env |= {"LABEL_SHARE": "0.8"} | ({"LABEL_DELAY": delay} if delay else {})
    for _ in range(2):
        process = start("datagenerator", **env, RATE="1000")
        kill_after(200, lambda: sum(map(len, ids(settings_env).values())), process)
    end = max(map(max, ids(settings_env).values())) + 200
    await_line(start("datagenerator", **env, RATE="0", COUNT=str(end)), "done")
    topic = settings_env["DATA_TOPIC"]
    ((schema,),) = values(settings_env, f"{topic}.schema").values()
    assert schema["feature_names"] == ["x0", "x1", "x2", "x3", "x4", "label_48", "label_100"]
    records = {r["id"]: r for part in values(settings_env, topic).values() for r in part}
    sent = [records[id] for id in range(end)]
    labelled = [label for part in late(settings_env).values() for label in part] if delay else sent
    labels = {r["id"]: r["label"] for r in labelled if "label" in r}
    assert 0.7 < len(labels) / end < 0.9
    for id, record in enumerate(sent):
        assert record["features"][-2:] == [labels.get(id - 48), labels.get(id - 100)]


def test_a_lag_that_would_leak_ends_the_start_with_one_line(start: Services) -> None:
    line = last_error(start("datagenerator", LABEL_LAGS="1,9", LABEL_DELAY="records:5"), 2)
    assert line == (
        "LABEL_LAGS=1: with LABEL_DELAY=records:5, a label may come 5 records after its own;"
        " each lag has to be longer"
    )
