from __future__ import annotations

import io
import re
import signal
import threading
import time
from typing import Any

import joblib
import numpy as np
import orjson
import pytest

from modelgenerator.feed import LOOK_SECONDS
from modelgenerator.training.trainer import HURRY
from stream.models import Message, pack
from stream.records import Record, Schema, encode_record
from tests.services import (
    PATIENCE_SECONDS,
    Services,
    assert_ends,
    await_line,
    eventually,
    last_error,
)
from tests.topics import Topics, regression
from tests.unit.classifiers import STRANGER, envelope, pickled


def published(log: str) -> list[dict[str, str]]:
    """The fields of each publication's line."""
    lines = [line for line in log.splitlines() if " model=" in line]
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


def logged(log: str) -> list[int]:
    """The versions that the log tells of; one line may sum up several models."""
    versions: list[int] = []
    for one, first, last in re.findall(r" model=(\d+) | models, from (\d+) to (\d+): ", log):
        versions += range(int(one or first), int(one or last) + 1)
    return versions


def test_the_first_model_comes_with_the_200th_record(topics: Topics, start: Services) -> None:
    process = start("modelgenerator")
    await_line(process, "partition=0 from offset=0")
    topics.write(199)
    time.sleep(1)  # a model now would be one too early
    assert topics.assembled() == []
    topics.write(1)
    ((envelope, pickle),) = eventually(topics.assembled)
    assert (envelope.version, envelope.reason, envelope.trained_on) == (1, "first", 200)
    assert (envelope.trained_to, envelope.features, envelope.classes) == ({"0": 199}, 2, [0, 1])
    assert envelope.accepts_missing
    model = joblib.load(io.BytesIO(pickle))
    assert model.predict([[1.0, 0.5], [-1.0, np.nan]]).tolist() == [1, 0]


def await_trained(topics: Topics, offset: int) -> list[int]:
    """Wait for a model that was trained to an offset; return all versions."""
    eventually(lambda: any(e.trained_to["0"] >= offset for e, _ in topics.assembled()))
    return topics.versions()


def test_versions_rise_one_by_one_and_continue_after_a_restart(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    topics.write(569)
    await_trained(topics, 450)
    assert_ends(process)
    models = [envelope for envelope, _ in topics.assembled()]
    versions = [envelope.version for envelope in models]
    assert versions == list(range(1, len(models) + 1))
    trained_to = [envelope.trained_to["0"] for envelope in models]
    assert trained_to[0] == 199
    assert min(np.diff(trained_to)) >= HURRY
    assert logged(process.log()) == versions
    assert published(process.log())[0].keys() >= {
        "recipe", "reason", "trained_on", "vote", "sgd", "rff", "knn", "linear", "hgb_since",
        "bytes", "milliseconds",
    }  # fmt: skip

    again = start("modelgenerator")
    await_line(again, "partition=0 from offset=0")
    topics.write(200)
    eventually(lambda: len(topics.versions()) > len(models))
    envelope, _ = topics.assembled()[len(models)]
    # The model from before the restart is not published again.
    assert envelope.version == len(models) + 1
    assert envelope.trained_to["0"] > trained_to[-1]
    assert_ends(again)


def test_records_without_a_label_or_out_of_contract_are_not_trained_on(
    topics: Topics, start: Services
) -> None:
    topics.write_values(
        [
            None,
            b"garbage",
            b'{"id":1,"features":[NaN],"label":1}',
            b'{"id":1,"features":[1,2,3],"label":1}',
            b'{"id":1,"features":[1,2],"label":2}',
            b'{"id":1,"features":[1,2]}',
        ]
    )
    topics.write(200)
    process = start("modelgenerator")
    ((envelope, _),) = eventually(topics.assembled)
    # The record of another width counts among the first 200, so training waits for one more.
    assert envelope.trained_on == 200
    assert envelope.trained_to == {"0": 205}
    assert_ends(process, signal.SIGINT)


def test_the_schema_gives_the_names_and_the_width(topics: Topics, start: Services) -> None:
    names = ["a", "b"]
    topics.describe(Schema(names, "label", "1"))
    topics.write(250)
    start("modelgenerator")
    ((envelope, _),) = eventually(topics.assembled)
    assert envelope.feature_names == names


THREE, TWO = Schema(["a", "b", "c"], "label", "1"), Schema(["a", "b"], "label", "1")


def widths(topics: Topics) -> list[tuple[int, dict[str, int]]]:
    """Each model's number of features, and how far it was trained."""
    return [(envelope.features, envelope.trained_to) for envelope, _ in topics.assembled()]


def test_a_schema_of_another_width_starts_training_over_with_records_of_that_width(
    topics: Topics, start: Services
) -> None:
    topics.describe(TWO)
    topics.write(250)
    process = start("modelgenerator")
    eventually(topics.assembled)
    topics.describe(THREE)
    await_line(process, ".schema names 3 features, the models have 2; training starts over")
    topics.write(250, width=3)
    assert eventually(lambda: widths(topics)[1:])[0] == (3, {"0": 449})
    assert "partition=0 offset=0: features: expected 3 numbers, got 2" in process.log()
    assert topics.assembled()[1][0].feature_names == THREE.feature_names
    assert_ends(process)


def test_records_that_were_wider_before_the_schema_are_trained_on_once_it_follows(
    topics: Topics, start: Services
) -> None:
    topics.describe(TWO)
    topics.write(250)
    start("modelgenerator")
    start("predictor")
    eventually(topics.predictions)
    topics.write(250, width=3)
    topics.describe(THREE)
    assert eventually(lambda: widths(topics)[1:])[0] == (3, {"0": 449})

    def predicted() -> bool:
        topics.write(10, width=3)
        return any(prediction["model"] > 1 for prediction in topics.predictions())

    eventually(predicted)
    assert not [status for status in topics.statuses() if status["status"] == "refused"]


def test_a_schema_that_appears_later_counts_and_so_does_its_correction_back(
    topics: Topics, start: Services
) -> None:
    topics.write(250)
    start("modelgenerator")
    eventually(topics.assembled)
    topics.describe(THREE)
    topics.write(250, width=3)
    assert eventually(lambda: widths(topics)[1:])[0] == (3, {"0": 449})
    topics.describe(TWO)
    topics.write(250)
    eventually(lambda: widths(topics)[-1][0] == 2 and widths(topics)[-1][1]["0"] >= 500)


def test_a_schema_that_fits_no_record_ends_nothing_and_the_log_says_what_is_missing(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    await_line(process, "partition=0 from")
    topics.describe(THREE)
    topics.write(200)
    await_line(process, "invalid 200, most often features: expected 3 numbers, got 2")
    assert topics.assembled() == []
    topics.describe(TWO)
    assert eventually(lambda: widths(topics)) == [(2, {"0": 199})]


def test_a_corrected_schema_counts_for_the_next_model_without_a_restart(
    topics: Topics, start: Services
) -> None:
    topics.describe(Schema(["a", "wrong"], "label", "1"))
    topics.write(250)
    start("modelgenerator")
    eventually(topics.assembled)
    topics.describe(Schema(["a", "b"], "label", "1"))
    topics.write(100)
    corrected, _ = eventually(lambda: topics.assembled()[1:])[0]
    assert corrected.feature_names == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"label": "1"},
            "1,500 records read: 0 labelled 0, 0 labelled 1, invalid 1,500, most often label:"
            " expected 0 or 1, true or false; a text needs positive and negative in the schema, got"
            " '1' (1,500 of them, first at partition 0 offset 0); the first model needs 200"
            " labelled records of both labels: 200 more",
        ),
        (
            {"lable": 1},
            "1,500 records read: 0 labelled 0, 0 labelled 1, 1,500 without a label; unknown fields:"
            " lable; 1,500 records wait for a label, the oldest for ",
        ),
        (
            {"label": 1},
            "1,500 records read: 0 labelled 0, 1,500 labelled 1; the first model needs 200 labelled"
            " records of both labels: one labelled 0",
        ),
    ],
)
def test_a_line_says_why_no_model_comes(
    topics: Topics, start: Services, change: dict[str, Any], line: str
) -> None:
    topics.write_values([orjson.dumps({"id": 1, "features": [0.5, 1.0], **change})] * 1_500)
    process = start("modelgenerator")
    await_line(process, f"no model yet: {line}")
    assert_ends(process)
    assert topics.assembled() == []


def test_whatever_records_and_statuses_say_each_line_of_the_log_is_one_printable_bounded_line(
    topics: Topics, start: Services
) -> None:
    evil = "\n2026-01-01 ERROR forged\x1b[2J\x85" + "x" * 100_000
    topics.write_values([orjson.dumps({"id": 1, "features": [0.5, 1.0], evil: 1})] * 10)
    processes = [start("modelgenerator"), start("predictor")]
    await_line(processes[0], "unknown fields: ")
    topics.write(200)
    eventually(topics.assembled)
    topics.say(1, "refused", replica=evil, reason=evil)
    topics.send([Message(evil.encode(), [("signature", evil.encode())])])
    await_line(processes[0], "its recipe vote is suspended")
    await_line(processes[1], "refused ")
    for process in processes:
        assert_ends(process)
        for line in process.log().split("\n")[:-1]:
            assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ \w+: ", line), line[:300]
            assert line.isprintable()
            assert len(line) < 2_100


def test_new_partitions_are_read_too(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    start("modelgenerator")
    topics.write(200)
    eventually(topics.assembled)
    with Topics(settings_env, partitions=3) as grown:
        grown.write(300)
    eventually(lambda: set(topics.assembled()[-1][0].trained_to) == {"0", "1", "2"})


def test_two_publishers_at_once_publish_every_version_once_and_whole(topics: Topics) -> None:
    pickles = {name: pickled(regression(1_500_000)) for name in ("a", "b")}  # three parts each
    versions: dict[str, list[int]] = {"a": [], "b": []}

    def publisher(name: str) -> None:
        for _ in range(10):
            versions[name].append(topics.publish_next(envelope(recipe=name), pickles[name]))

    threads = [threading.Thread(target=publisher, args=(name,)) for name in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    models = topics.assembled()
    assert [model.version for model, _ in models] == list(range(1, 21))
    assert all(pickle == pickles[model.recipe] for model, pickle in models)
    assert len(topics.models()) == 20 * 3
    for name, told in versions.items():
        assert told == [e.version for e, _ in models if e.recipe == name]


def test_garbage_at_the_end_of_the_model_topic_does_not_matter(topics: Topics) -> None:
    assert topics.publish_next() == 1
    topics.send(pack(envelope(99), b"x", None))
    topics.send(pack(envelope(98), b"x", STRANGER))
    topics.send([Message(b"garbage", [("signature", b"garbage")])] * 100)
    assert topics.publish_next() == 2


def test_versions_continue_after_those_of_the_status_topic_when_the_model_topic_was_recreated(
    topics: Topics, settings_env: dict[str, str]
) -> None:
    assert topics.publish_next() == 1
    topics.say(7, "serving")
    topics.say(9, "serving", sealed=False)
    for value in (b"garbage", b'{"version":1e99}'):
        topics.producer.send(topics.settings.status_topic, value, partition=0)
    topics.producer.flush(30)
    topics.delete(topics.settings.model_topic)
    with Topics(settings_env) as again:
        assert again.publish_next() == 8
        assert again.versions() == [8]


def test_training_starts_over_when_the_data_topic_is_recreated(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    process = start("modelgenerator")
    topics.write(500)
    versions = await_trained(topics, 400)
    topics.delete(topics.settings.data_topic)
    with Topics(settings_env) as again:
        again.write(200, rule=lambda features: features[0] <= 0)
    eventually(lambda: topics.versions()[-1] > versions[-1])
    fresh, pickle = topics.assembled()[-1]
    assert (fresh.version, fresh.reason) == (versions[-1] + 1, "first")
    assert fresh.trained_to == {"0": 199}
    assert joblib.load(io.BytesIO(pickle)).predict([[1.0, 0.5]]).tolist() == [0]
    assert "was deleted and recreated; training starts over" in process.log()
    assert_ends(process)


def test_topics_that_are_deleted_while_it_runs_are_created_again(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    process = start("modelgenerator")
    topics.write(250)
    eventually(topics.assembled)
    settings = topics.settings
    topics.delete(settings.data_topic, settings.schema_topic, settings.status_topic)
    eventually(lambda: set(settings.topics) <= set(topics.admin.list_topics()))
    with Topics(settings_env) as again:
        again.describe(THREE)
        again.write(250, width=3)
        eventually(lambda: widths(again)[-1] == (3, {"0": 199}))
    assert_ends(process)


def test_a_trainer_that_fell_behind_continues_near_the_end_and_says_so(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", WINDOW="300", RETRAIN_EVERY="100")
    topics.write(200)
    eventually(topics.assembled)
    process.pause()
    topics.write(5_000)
    time.sleep(LOOK_SECONDS)  # it measures its lag before it reads on
    process.wake()
    eventually(lambda: (topics.assembled()[-1][0].trained_to["0"]) > 5_000, 120)
    (line,) = re.findall(r"WARNING.*more than WINDOW=300.* (\d+) records were not", process.log())
    assert int(line) > 3_000


def test_it_ends_in_the_middle_of_a_long_fit(topics: Topics, start: Services) -> None:
    width = 1_500
    rng = np.random.default_rng(0)
    matrix = rng.random((1_200, width)).round(3).tolist()
    topics.write_values(encode_record(Record(id, row, id % 2)) for id, row in enumerate(matrix))
    process = start("modelgenerator")
    await_line(process, "partition=0 from")
    eventually(lambda: published(process.log()), PATIENCE_SECONDS)
    assert_ends(process)


def test_a_private_key_that_others_may_read_ends_the_start_with_one_line(
    topics: Topics, start: Services
) -> None:
    topics.settings.signing_key.chmod(0o644)
    assert "others may read this private key" in last_error(start("modelgenerator"))
