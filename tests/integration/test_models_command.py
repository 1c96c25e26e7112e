from __future__ import annotations

import os
import re
import signal
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import joblib
import numpy as np
import orjson
import pytest
from kafka import TopicPartition

from modelgenerator.models import table
from modelgenerator.models.__main__ import main
from stream import clients, reading
from stream.models import pack, unpack
from stream.times import instant
from tests.services import Services, eventually
from tests.topics import Topics, await_answered, await_no_members, await_serving
from tests.unit.classifiers import STRANGER, Malicious, Sign, envelope, pickled


def models(env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run the command; return its exit status, standard output and standard error."""
    output, errors = StringIO(), StringIO()
    with patch.dict(os.environ, env), redirect_stdout(output), redirect_stderr(errors):
        status = main(arguments)
    return status, output.getvalue(), errors.getvalue()


def listed(env: dict[str, str], *arguments: str) -> dict[int, dict[str, Any]]:
    status, output, errors = models(env, "--json", *arguments)
    assert status == 0, errors
    return {row["version"]: row for row in orjson.loads(output)}


def test_the_list_says_what_became_of_each_model_as_the_topics_have_it(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    topics.publish(2, Sign(raises_above=5.0))
    topics.publish(3, features=3)
    topics.send(pack(envelope(4), b"garbage", STRANGER))

    def fallen() -> set[int]:
        topics.write(20, mean=1_000.0)
        return {s["version"] for s in topics.statuses() if s["status"] in ("barred", "refused")}

    eventually(lambda: fallen() == {2, 3}, 60)
    topics.publish(5)
    await_serving(topics, 5)
    topics.publish(6, recipe="later")

    rows = listed(settings_env)
    assert {version: row["status"] for version, row in rows.items() if version != 6} == {
        1: "replaced",
        2: "barred",
        3: "refused",
        4: "refused",
        5: "serving",
    }
    assert rows[6]["recipe"] == "later"
    assert rows[4]["key"] == "not trusted"
    assert rows[1]["key"] == rows[5]["key"] == topics.key.fingerprint
    assert "ArithmeticError" in rows[2]["why"]
    assert "features: the stream has 2, the model 3" in rows[3]["why"]
    predictions = topics.predictions()
    for version in (1, 5):
        served = [p for p in predictions if p["model"] == version]
        right = [p["prediction"] == p["label"] for p in served]
        assert rows[version]["records"] == rows[version]["counted"] == len(served)
        assert rows[version]["accuracy"] == sum(right) / len(right)
        assert rows[version]["since"] == {"0": served[0]["source"][1]}

    newest = listed(settings_env, "--last", "2", "--predictions", "10")
    assert list(newest) == [5, 6]
    assert 0 < newest[5]["records"] + newest[6]["records"] <= 10  # marks of transactions count
    status, output, errors = models(settings_env, "--predictions", "0")
    assert (status, errors) == (0, "")  # no progress bar where nobody looks
    assert [line.split()[0] for line in output.splitlines()[1:]] == list("123456")


def test_with_the_predictors_stopped_the_list_says_since_when_none_has_been_heard(
    topics: Topics, start: Services, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SILENT_SECONDS", 0)
    topics.publish(1)
    assert models(settings_env)[1].splitlines()[-1].startswith("no predictor heard so far")
    predictor = start("predictor")
    await_serving(topics, 1)
    topics.write(10)
    await_answered(topics)
    assert predictor.stop() == 0
    last = instant(topics.records(topics.settings.prediction_topic)[-1].timestamp)
    assert listed(settings_env, "--predictions", "0")[1]["heard"] == last
    output = models(settings_env, "--predictions", "0")[1]
    assert re.match(r"no predictor heard for \d+ min, neither a pred", output.splitlines()[-1])
    assert "serving" in output


def test_what_is_counted_is_what_the_tally_says_also_after_a_reset_and_in_another_group(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1, trained_to={"0": 19})
    topics.write(50)

    def predict(**env: str) -> None:
        before = len(topics.predictions())
        predictor = start("predictor", **env)
        eventually(lambda: len(topics.predictions()) == before + 50)
        assert predictor.stop() == 0

    predict()
    row = listed(settings_env)[1]
    assert (row["records"], row["counted"], row["correct"]) == (50, 30, last_n(topics)[1])
    predict(GROUP_ID=f"{topics.group}-again")
    row = listed(settings_env)[1]
    assert (row["records"], row["counted"], row["correct"]) == (100, 30, last_n(topics)[1])
    head, line = models(settings_env)[1].splitlines()
    place = head.index("counted")
    assert line[place : place + len("counted")].strip() == "30"

    await_no_members(topics)
    assert start.python("-m", "predictor.reset", "--yes").returncode == 0
    row = listed(settings_env)[1]
    assert (row["records"], row["counted"], row["accuracy"]) == (0, 0, None)


def last_n(topics: Topics) -> tuple[int, int]:
    """Return n and correct of the last prediction."""
    last = topics.predictions()[-1]
    return last["n"], last["correct"]


def test_a_model_is_shown_exported_restored_and_unpinned(
    topics: Topics, start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    topics.publish(1, trained_to={"0": 7})
    topics.publish(2)
    start("predictor")
    await_serving(topics, 2)

    status, output, errors = models(settings_env, "show", "1")
    assert status == 0, errors
    assert "max_iter" in output
    assert topics.key.fingerprint in output

    path = tmp_path / "model.joblib"
    assert models(settings_env, "export", "1", str(path))[0] == 0
    assert joblib.load(path).predict([[1.0, 0.0], [-1.0, 0.0]]).tolist() == [1, 0]
    status, _, errors = models(settings_env, "export", "1", str(path))
    assert (status, "exists already" in errors) == (1, True)

    status, output, errors = models(settings_env, "rollback", "1", "--no-wait")
    assert (status, "model 3 restores 1" in output) == (0, True), errors
    await_serving(topics, 3)
    old, _, again = topics.models()
    assert again["restores"] == 1
    assert again["pinned"]
    for same in ("pickle", "sha256", "trained_to", "recipe", "sklearn"):
        assert again[same] == old[same]
    assert listed(settings_env)[3]["pinned"]

    status, output, errors = models(settings_env, "unpin", "--no-wait")
    assert (status, "model 4" in output) == (0, True), errors
    assert topics.models()[-1]["version"] == 4
    assert not any(row["pinned"] for row in listed(settings_env).values())


def test_what_must_not_be_restored_is_refused_in_one_line(
    topics: Topics, settings_env: dict[str, str], tmp_path: Path
) -> None:
    marker = tmp_path / "malicious code ran"
    topics.publish(1)
    topics.publish(2)
    topics.producer.send(
        topics.settings.status_topic,
        b'{"version":2,"status":"barred","since":{},"reason":"it raises","replica":"r"}',
        partition=0,
    )
    for version, key in ((3, None), (4, STRANGER)):
        topics.send(pack(envelope(version), pickled(Malicious(marker)), key))
    topics.admin.delete_records({TopicPartition(topics.settings.model_topic, 0): 1})
    topics.producer.flush(30)
    expected = {
        "1": "no model 1; it has 2 to 4",
        "2": "model 2 is barred: it raises (r); --force takes it anyway",
        "3": "not signed by a trusted key",
        "4": "not signed by a trusted key",
        "9": "no model 9",
    }
    for given, reason in expected.items():
        status, output, errors = models(settings_env, "rollback", given)
        assert (status, output, len(errors.splitlines())) == (1, "", 1)
        assert reason in errors
    for command in (["show", "4"], ["export", "4", str(tmp_path / "file")]):
        status, _, errors = models(settings_env, *command)
        assert (status, "not signed by a trusted key" in errors) == (1, True)
    assert not marker.exists()
    assert not (tmp_path / "file").exists()
    assert models(settings_env, "rollback", "2", "--force", "--no-wait")[0] == 0


def test_a_rollback_opens_one_consumer_and_reads_each_record_once(
    topics: Topics, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(1, 31):
        topics.publish(version)
    consumers, read = Mock(wraps=clients.consumer), Mock(wraps=unpack)
    monkeypatch.setattr("stream.clients.consumer", consumers)
    monkeypatch.setattr("stream.model_topic.unpack", read)
    assert models(settings_env, "rollback", "3", "--no-wait")[0] == 0
    assert consumers.call_count == 1
    assert read.call_count == 30 + 1, "each record, and the bytes of the model"


def test_what_exceeds_the_limits_is_not_published_again_and_one_line_says_why(
    topics: Topics, settings_env: dict[str, str]
) -> None:
    topics.publish(1, pinned=True)
    settings_env["MODEL_MAX_MICROSECONDS"] = "0.001"
    for command in (["rollback", "1"], ["unpin"]):
        status, output, errors = models(settings_env, *command)
        assert (status, output, len(errors.splitlines())) == (1, "", 1)
        assert f"{topics.settings.model_topic}: not published: too slow" in errors
    assert topics.versions() == [1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "no broker answers at 127.0.0.1:1"),
        ({"MODEL_TOPIC": "no-such-topic"}, "no topic no-such-topic"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    settings_env: dict[str, str], changed: dict[str, str], said: str
) -> None:
    for command in ([], ["show", "1"], ["rollback", "1"]):
        status, output, errors = models(settings_env | changed, *command)
        assert (status, output, len(errors.splitlines())) == (1, "", 1)
        assert said in errors


def large() -> Sign:
    """Return a classifier of more than 50 MB that does not get smaller when it is compressed."""
    model = Sign()
    vars(model)["ballast"] = np.random.default_rng(0).bytes(51_000_000)
    return model


PUBLISH = """
import sys
from modelgenerator.settings import Settings
from stream.keys import signing_key
from tests.topics import publisher
from tests.unit.classifiers import envelope
from pathlib import Path
settings = Settings()
with publisher(settings, signing_key(settings.signing_key)) as found:
    print(found.publish(envelope(1), Path(sys.argv[1]).read_bytes()))
"""
KILLED_WITHIN = """
import os, signal
from kafka import KafkaProducer

send, sent = KafkaProducer.send, []
def send_and_die(self, *args, **options):
    if len(sent) == 40:
        sent[30].get()
        os.kill(os.getpid(), signal.SIGKILL)
    sent.append(send(self, *args, **options))
    return sent[-1]
KafkaProducer.send = send_and_die
"""


def test_a_model_of_50_megabytes_is_served_and_its_killed_publisher_leaves_nothing(
    topics: Topics, start: Services, settings_env: dict[str, str], tmp_path: Path
) -> None:
    pickle = tmp_path / "large.joblib"
    pickle.write_bytes(pickled(large()))
    assert pickle.stat().st_size > 50e6
    topics.publish(1)
    predictor = start("predictor")
    await_serving(topics, 1)
    place = TopicPartition(topics.settings.model_topic, 0)

    def written() -> int:
        """Where the topic ends for those who see what is not committed, too."""
        with clients.consumer(topics.settings, isolation_level="read_uncommitted") as consumer:
            return reading.bounds(consumer, place)[1]

    def publisher(program: str) -> tuple[str, int]:
        done = start.python("-c", program, str(pickle))
        return done.stdout, done.returncode

    assert publisher(KILLED_WITHIN + PUBLISH) == ("", -signal.SIGKILL)
    half = written()
    assert 30 < half < 45
    topics.write(50)
    await_answered(topics)

    assert publisher(PUBLISH) == ("2\n", 0)
    assert written() > half + 80
    await_serving(topics, 2)
    assert "WARNING predictor: refused" not in predictor.log()
    rows = listed(settings_env, "--predictions", "0")
    assert {version: row["status"] for version, row in rows.items()} == {
        1: "replaced",
        2: "serving",
    }
    assert rows[2]["bytes"] == pickle.stat().st_size
    exported = tmp_path / "exported"
    assert models(settings_env, "export", "2", str(exported))[0] == 0
    assert exported.read_bytes() == pickle.read_bytes()
