from __future__ import annotations

import math
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import TopicPartition
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stream.keys import SigningKey
from stream.models import Message, pack
from stream.records import Schema, encode_rejected, reject
from tests.services import (
    SERVICES,
    Services,
    assert_ends,
    await_line,
    children,
    eventually,
    last_error,
)
from tests.topics import Topics, assert_exactly_once, await_answered, await_serving, regression
from tests.unit.classifiers import (
    STRANGER,
    Hanging,
    Held,
    Malicious,
    Sign,
    Slow,
    SlowCalls,
    envelope,
    pickled,
)

RECOVERY_SECONDS = 60.0
"""Twice 15 seconds, and the start of a process on a busy machine."""


def test_each_record_is_answered_once_by_the_model_served_and_a_new_model_takes_over(
    topics: Topics, start: Services
) -> None:
    topics.write(500)
    start("predictor")
    topics.publish(1)
    await_answered(topics, 500)
    topics.publish(2)

    def both_serve() -> bool:
        topics.write(10)
        return [status["version"] for status in topics.statuses()] == [1, 2]

    eventually(both_serve)
    await_answered(topics)
    assert_exactly_once(topics)
    versions = [p["model"] for p in topics.predictions()]
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}
    serving = topics.statuses()[1]
    assert serving["since"] == {"0": versions.index(2)}
    eventually(topics.logged)
    topics.check(topics.log)


def test_a_lost_log_file_is_filled_in_from_the_topic_at_the_start(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(105)
    predictor = start("predictor")
    await_answered(topics)
    eventually(topics.logged)
    assert predictor.stop() == 0
    topics.log.unlink()
    start("predictor")
    eventually(topics.logged)
    topics.check(topics.log)


def test_with_its_offsets_deleted_it_resumes_after_its_own_last_output_and_not_another_groups(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(100)
    topics.write_values([b"the last one is rejected"])
    predictor = start("predictor")
    await_answered(topics, 101)
    assert predictor.stop() == 0
    eventually(lambda: topics.admin.delete_groups([topics.group])[topics.group] == "OK")
    # Another group on the same data topic has predictions of its own, but no rejected topic.
    foreign = encode_rejected(reject((0, 140), b"", "of another group"))
    topics.producer.send(
        topics.settings.rejected_topic, foreign, partition=0, headers=[("group", b"another")]
    ).get(30)
    topics.write_values([b"and so is this"])
    topics.write(50)
    predictor = start("predictor")
    await_answered(topics, 153)
    assert "no tally is committed; counts are taken from the last output, n=100" in predictor.log()
    assert topics.predictions()[-1]["n"] == 150
    own = [r for r in topics.rejected() if r["reason"] != "of another group"]
    sources = [p["source"][1] for p in topics.predictions() + own]
    assert sorted(sources) == list(range(152))


def test_a_model_published_again_is_not_served_again(topics: Topics, start: Services) -> None:
    predictor = start("predictor")
    topics.publish(1)
    await_line(predictor, "model 1 (test) serves from the next unit")
    for version in (1, 2, 2, 1, 2, 3, 3, 2, 1):
        topics.publish(version)
    await_line(predictor, "model 3 (test) serves from the next unit")
    await_serving(topics, 3)
    topics.publish(4)
    await_serving(topics, 4)
    lines = [predictor.log().count(f"model {n} (test) serves from the next unit") for n in range(5)]
    assert lines in ([0, 1, 1, 1, 1], [0, 1, 0, 1, 1])  # 2 and 3 may come together
    served = [status["version"] for status in topics.statuses()]
    assert served == sorted(set(served))
    assert topics.check().n == topics.written()


def test_a_barred_model_that_was_the_first_gives_way_to_the_one_before_it_on_the_topic(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.publish(2, Sign(raises_above=5.0))
    topics.write(100, mean=1_000.0)
    start("predictor")
    await_answered(topics, 100)
    assert topics.rejected() == []
    assert {p["model"] for p in topics.predictions()} == {1}


WRONG: list[tuple[bytes | None, str]] = [
    (b"not json", "value: not JSON"),
    (b'{"id": 1, "features": [NaN, 1], "label": 1}', "value: not JSON"),
    (b'{"id": 1, "features": [1, -Infinity], "label": 1}', "value: not JSON"),
    (b'{"id": 1, "features": [1e39, 1], "label": 1}', "features[0]: expected a number <= 3.4e+38"),
    (b'{"id": 1, "features": [1], "label": 1}', "features: expected 2 numbers, got 1"),
    (b'{"id": 1, "features": [1, 2], "label": 2}', "label: expected 0 or 1, true or false"),
    (None, "value: expected a JSON object, got null"),
    (b'{"id": "%b", "features": [1, 2]}' % (b"9" * 1_000_000), "id: at most 256 bytes, got 10000"),
    (b"[" * 900_000, "value: not JSON"),
]
"""The record, and what the reason begins with."""


def test_wrong_records_are_rejected_with_a_reason_and_the_counts_leave_them_out(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(10)
    topics.write_values(value for value, _ in WRONG)
    topics.write_values([b'{"id": 1, "features": [1, 2], "label": 1}'], key=b"9" * 1_000_000)
    topics.write(10)
    predictor = start("predictor")
    reasons = [*(reason for _, reason in WRONG), "key: at most 10000 bytes, got 1000000"]
    await_answered(topics, 20 + len(reasons))
    rejected = topics.rejected()
    for found, reason in zip(rejected, reasons, strict=True):
        assert found["reason"].startswith(reason)
    assert [r["source"] for r in rejected] == [[0, 10 + place] for place in range(len(reasons))]
    assert max(len(r["value"]) for r in rejected) == 1_000
    warnings = [line for line in predictor.log().splitlines() if "WARNING" in line]
    assert not [line for line in warnings for reason in reasons if reason in line]
    assert topics.predictions()[-1]["n"] == 20
    assert_exactly_once(topics)
    eventually(topics.logged)
    topics.check(topics.log)


def test_unlabelled_records_are_predicted_and_seen_ones_published_and_neither_is_counted(
    topics: Topics, start: Services
) -> None:
    topics.write(30)
    topics.write(10, label=False)
    topics.write(10)
    topics.publish(1, trained_to={"0": 19})
    start("predictor")
    await_answered(topics, 50)
    predictions = topics.predictions()
    assert [p.get("seen", False) for p in predictions] == [True] * 20 + [False] * 30
    assert [p["n"] for p in predictions] == (
        [0] * 20 + list(range(1, 11)) + [10] * 10 + list(range(11, 21))
    )
    assert [p["label"] for p in predictions[30:40]] == [None] * 10
    topics.check()


def refused_models(marker: Path, trusted: SigningKey) -> dict[str, list[Message]]:
    malicious, sound = pickled(Malicious(marker)), pickled(regression())
    whole = list(pack(envelope(9), b"x" * 1_300_000, trusted))
    return {
        "not a model: value: not JSON": [
            Message(b"garbage", [("signature", trusted.sign(b"garbage"))])
        ],
        "expected one signature header, got none": list(pack(envelope(2), malicious, None)),
        "not signed by a trusted key": list(pack(envelope(3), malicious, STRANGER)),
        "features: the stream has 2, the model 3": list(
            pack(envelope(4, features=3), malicious, trusted)
        ),
        "made with scikit-learn 0.24.2": list(
            pack(envelope(5, sklearn="0.24.2"), malicious, trusted)
        ),
        "feature 1 of the stream is 'b', of the model 'c'": list(
            pack(envelope(6, feature_names=["a", "c"]), sound, trusted)
        ),
        "cannot be unpickled": list(pack(envelope(7), b"garbage", trusted)),
        "sha256: does not match": [
            replace(message, value=value, headers=[("signature", trusted.sign(value))])
            for message in pack(envelope(8), malicious, trusted)
            for value in [message.value.replace(b'"sha256":"', b'"sha256":"0')]
        ],
        "refused model 9: part 2 of 3 is missing": [whole[0], whole[2]],
        "does not predict the labels 0 and 1": list(
            pack(envelope(10), pickled(regression().fit([[0, 0], [1, 1]], [1, 2])), trusted)
        ),
    }


def test_wrong_models_are_refused_in_one_line_while_the_old_one_serves_and_their_code_never_runs(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    marker = tmp_path / "malicious code ran"
    topics.describe(Schema(["a", "b"], "label", "1"))
    topics.publish(1)
    predictor = start("predictor", MODEL_MAX_BYTES="2000000")
    await_serving(topics, 1)
    refused = refused_models(marker, topics.key)
    refused["model error: ArithmeticError"] = list(
        pack(envelope(20), pickled(Sign(raises_above=-math.inf)), topics.key)
    )
    refused["larger than 2000000 bytes"] = list(
        pack(envelope(21), np.random.default_rng(0).bytes(2_500_000), topics.key)
    )
    for messages in refused.values():
        topics.send(messages)
    for reason in refused:  # once a newer model serves, nobody asks for what is wrong with these
        await_line(predictor, reason)
    topics.write(20)
    topics.publish(30)
    await_line(predictor, "model 30 (test) serves from the next unit")
    await_serving(topics, 30)

    def summed_up() -> bool:
        topics.write(10)
        return f"model=30 swaps=1 refused={len(refused)} " in predictor.log()

    eventually(summed_up)
    await_answered(topics)
    for reason in refused:
        assert predictor.log().count(reason) == 1, reason
    assert predictor.log().count("WARNING predictor: refused ") == len(refused)
    assert not marker.exists()

    def said() -> Counter[tuple[int, str]]:
        return Counter((s["version"], s["status"]) for s in topics.statuses())

    versions = {4, 5, 6, 7, 8, 9, 10, 20, 21}
    eventually(
        lambda: {version for version, status in said() if status == "refused"} == versions,
        message=lambda: str(said()),
    )
    assert set(said().values()) == {1}
    report = topics.check()
    assert (report.n, report.models) == (topics.written(), {1, 30})


def test_a_model_that_lacks_a_part_is_refused_on_record_though_a_newer_one_came_with_it(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    predictor = start("predictor")
    await_serving(topics, 1)
    predictor.pause()
    first, _, third = pack(envelope(2), b"x" * 1_300_000, topics.key)
    topics.send([first, third])
    topics.publish(3)
    predictor.wake()
    await_serving(topics, 3)
    await_line(predictor, "refused model 2: part 2 of 3 is missing")


def test_models_that_are_slow_or_hang_are_refused_while_the_old_one_serves_and_a_good_one_follows(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    predictor = start("predictor", MODEL_MAX_MICROSECONDS="100", MODEL_LOAD_SECONDS="5")
    await_line(predictor, "model 1 (test) serves from the next unit")
    topics.publish(2, Slow(0.0002))
    topics.publish(3, Hanging())
    topics.publish(4, Slow(3_600))
    answered: list[int] = []

    def all_are_refused() -> bool:
        topics.write(10)
        await_answered(topics, topics.written(), RECOVERY_SECONDS)
        answered.append(topics.predictions()[-1]["model"])
        return predictor.log().count("refused model") == 3

    eventually(all_are_refused, 90)
    assert set(answered) == {1}

    def reasons() -> list[str]:
        found = [s["reason"] for s in topics.statuses() if s["status"] == "refused"]
        return found if len(found) == 3 else []

    slow, hanging, stuck = eventually(reasons)
    assert re.match(r"too slow: \d+ µs a record .*MODEL_MAX_MICROSECONDS=100", slow)
    assert hanging == stuck == "not loaded and probed within MODEL_LOAD_SECONDS=5"
    topics.publish(5)
    await_line(predictor, "model 5 (test) serves from the next unit")
    topics.write(1)  # a unit that had begun may still be model 1's
    await_answered(topics)
    topics.write(10)
    await_answered(topics)
    assert {p["model"] for p in topics.predictions()[-10:]} == {5}
    topics.check()


def test_a_restart_finds_the_newest_good_model_behind_refused_ones(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.describe(Schema(["a", "b"], "label", "1"))
    topics.publish(1)
    for messages in refused_models(tmp_path / "marker", topics.key).values():
        topics.send(messages)
    topics.write(20)
    start("predictor")
    await_answered(topics, 20)
    assert {p["model"] for p in topics.predictions()} == {1}


def test_records_that_a_slow_model_raises_on_one_by_one_take_several_units_and_bar_nothing(
    topics: Topics, start: Services
) -> None:
    topics.publish(1, SlowCalls(0.02, raises_above=100.0))
    for sound in np.random.default_rng(0).geometric(0.1, size=40):
        topics.write(int(sound))
        topics.write(1, mean=1_000.0)
    predictor = start("predictor", MODEL_PREDICT_SECONDS="6")
    await_answered(topics, seconds=120.0)  # hundreds of calls
    assert len(topics.rejected()) == 40
    assert "the model raises on many records: " in predictor.log()
    assert "barred" not in predictor.log()
    assert_exactly_once(topics)
    topics.check()


def test_a_model_that_hangs_on_real_records_is_barred_and_the_one_before_predicts_the_unit(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    held, never = tmp_path / "held", tmp_path / "never"
    topics.publish(1)
    predictor = start("predictor", MODEL_PREDICT_SECONDS="2")
    topics.write(100)
    await_answered(topics, 100)
    topics.publish(2, Held(held, never))
    await_line(predictor, "model 2 (test) serves from the next unit")

    def barred_ones() -> list[dict[str, Any]]:
        topics.write(20)
        return [status for status in topics.statuses() if status["status"] == "barred"]

    (barred,) = eventually(barred_ones)
    assert held.exists()
    await_answered(topics)
    assert topics.rejected() == []
    assert barred["reason"] == "model error: no answer within MODEL_PREDICT_SECONDS=2"
    assert predictor.log().count("barred model 2: ") == 1
    assert predictor.stop() == 0
    topics.check()


def test_sigterm_while_a_model_hangs_ends_the_predictor_and_bars_nothing(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    held, never = tmp_path / "held", tmp_path / "never"
    topics.publish(1, Held(held, never))
    predictor = start("predictor")
    topics.write(100)
    eventually(held.exists)
    assert_ends(predictor)
    assert "barred" not in predictor.log()


def test_a_predictor_without_a_model_waits_and_loses_no_record(
    topics: Topics, start: Services
) -> None:
    predictor = start("predictor")
    topics.write(100)
    await_line(predictor, "partitions 0@0")
    assert topics.answered() == 0
    topics.publish(1)
    await_answered(topics, 100)
    topics.check()


def test_a_replica_whose_model_is_older_than_the_tally_waits_for_a_newer_one(
    topics: Topics, start: Services
) -> None:
    topics.publish(5)
    topics.write(100)
    predictor = start("predictor")
    await_answered(topics, 100)
    assert predictor.stop() == 0
    place = TopicPartition(topics.settings.model_topic, 0)
    topics.admin.delete_records({place: -1})
    topics.publish(4)
    topics.write(100)
    predictor = start("predictor")
    await_line(predictor, "was predicted with model 5 and waits for it or a newer one (here: 4)")
    topics.publish(6)
    await_answered(topics, 200)
    assert [p["model"] for p in topics.predictions()] == [5] * 100 + [6] * 100


def test_of_two_predictors_with_one_name_one_ends_with_a_line_that_says_why(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    first, second = (start.replica(name, REPLICA="same") for name in ("first", "second"))

    def one_ended() -> bool:
        three.write(50)
        return first.status is not None or second.status is not None

    eventually(one_ended)
    ended, other = (first, second) if first.status is not None else (second, first)
    assert ended.status == 1
    last = ended.log().splitlines()[-1]
    assert "another predictor runs under the name REPLICA=same" in last
    assert f"uses the transactional id {three.group}-same; give each" in last
    assert "Traceback" not in ended.log()
    await_answered(three)
    assert other.status is None
    assert_exactly_once(three)
    assert three.check(*(log for log in start.logs.values() if log.exists())).n == three.written()


def test_of_two_predictors_with_one_log_file_one_ends_with_a_line_that_says_why(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    first = start("predictor", REPLICA="first")
    three.write(60)
    await_answered(three)
    eventually(three.logged)
    line = last_error(start("predictor", REPLICA="second"), 2)
    assert line.startswith(f"LOG_FILE={three.log}: another predictor writes this file")
    first.kill()
    start("predictor", REPLICA="second")
    three.write(60)
    await_answered(three)
    eventually(three.logged)
    three.check(three.log)


def test_a_model_with_n_jobs_starts_no_process_that_could_outlive_a_killed_predictor(
    topics: Topics, start: Services
) -> None:
    columns = [("first", StandardScaler(), [0]), ("second", StandardScaler(), [1])]
    parallel = make_pipeline(ColumnTransformer(columns, n_jobs=2), LogisticRegression())
    matrix = np.random.default_rng(0).normal(size=(200, 2))
    topics.publish(1, parallel.fit(matrix, matrix[:, 0] > 0))
    topics.write(100)
    predictor = start("predictor")
    await_answered(topics, 100)
    assert len(children(predictor.pid)) == 1  # the watcher of local/leash.py


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_within_five_seconds(
    topics: Topics, start: Services, number: int
) -> None:
    topics.publish(1)
    topics.write(20_000)
    predictor = start("predictor")
    eventually(lambda: topics.answered() > 0)
    assert_ends(predictor, number)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_for_an_absent_broker_with_one_warning_and_ends_cleanly(
    start: Services, service: str
) -> None:
    process = start(service, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    await_line(process, "no broker answers at 127.0.0.1:1")
    assert_ends(process)
    assert process.log().count("WARNING") == 1


@pytest.mark.parametrize(
    ("service", "variable", "value", "line"),
    [
        ("predictor", "COMMIT_INTERVAL_MS", "soon", "COMMIT_INTERVAL_MS=soon: "),
        ("predictor", "GROUP_ID", "two words", "GROUP_ID=two words: "),
        ("modelgenerator", "DATA_PARTITIONS", "0", "DATA_PARTITIONS=0: "),
        ("modelgenerator", "WINDOW", "10", "WINDOW=10: "),
        ("datagenerator", "RATE", "-1", "RATE=-1: "),
        ("datagenerator", "KAFKA_BOOTSTRAP_SERVERS", "b:c", "KAFKA_BOOTSTRAP_SERVERS=b:c: "),
        ("predictor", "KAFKA_SASL_PASSWORD", "secret", "KAFKA_SASL_PASSWORD is not a setting"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line_that_names_it(
    start: Services, service: str, variable: str, value: str, line: str
) -> None:
    process = start(service, **{variable: value})
    assert last_error(process, 2).startswith(line)
    assert len(process.log().splitlines()) == 1
    assert "secret" not in process.log()


def test_more_data_partitions_grow_the_topics_and_are_predicted(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    topics.write(100)
    start("predictor")
    await_answered(topics, 100)
    settings_env["DATA_PARTITIONS"] = "2"
    with Topics(settings_env, partitions=2) as grown:
        grown.write(100)
        await_answered(grown, 200)
        assert_exactly_once(grown)
