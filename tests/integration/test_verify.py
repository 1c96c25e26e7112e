from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from predictor.verify.__main__ import main
from stream import clients, reading
from stream.keys import signing_key
from stream.topics import ensure_topics, partition_counts
from tests.checker import check
from tests.histories import BROKEN, RECORDS, Broken, Made, correct_history, model_record
from tests.late_histories import late_history_without_a_batch
from tests.services import Services, eventually
from tests.topics import Topics

SHOWN = {
    "a_record_neither_predicted_nor_rejected",
    "a_tally_of_one_more",
    "a_fall_off_a_version_not_barred",
    "a_counted_record_trained_on",
}
"""Those that need another topic than the predictions; all are shown without a broker."""


class Writer:
    """Writes a history to the topics as a predictor would, in transactions of ten outputs."""

    def __init__(self, env: dict[str, str], topics: Topics) -> None:
        self.env = env
        self.topics = topics
        self.settings = topics.settings
        self.admin: KafkaAdminClient = topics.admin
        self.producer: KafkaProducer = topics.producer
        self.key = topics.key

    def write(self, made: Made) -> None:
        settings = self.settings
        for topic, values, times in (
            (settings.data_topic, made.data, made.times),
            (settings.label_topic, made.labels, made.label_times),
        ):
            for at, value in values.items():
                self.producer.send(topic, value, partition=0, timestamp_ms=times.get(at))
        for version in made.models:
            value, headers = model_record(made, version, self.key)
            self.producer.send(self.settings.model_topic, value, headers=headers, partition=0)
        for status in made.statuses:
            self.producer.send(self.settings.status_topic, json.dumps(status).encode(), partition=0)
        self.producer.flush(30)
        self.outputs(self.settings.prediction_topic, made.predictions)
        self.outputs(self.settings.rejected_topic, made.rejected)
        self.outputs(self.settings.label_rejected_topic, made.rejected_labels)
        self.commit(settings.data_topic, made.committed, made.metadata)
        if made.labels_commit:
            self.commit(settings.label_topic, *made.labels_commit)

    def label_topic_id(self) -> str:
        (topic,) = self.admin.describe_topics([self.settings.label_topic])
        return str(topic["topic_id"])

    @contextmanager
    def transaction(self, name: str) -> Iterator[KafkaProducer]:
        """Begin a transaction, and leave its end to who asked for it."""
        with self.topics.transactional(name) as producer:
            producer.begin_transaction()
            yield producer

    def outputs(self, topic: str, records: Sequence[dict[str, Any]], commit: bool = True) -> None:
        with self.topics.transactional(f"{topic}-{id(records)}") as producer:
            for start in range(0, len(records), 10):
                producer.begin_transaction()
                for record in records[start : start + 10]:
                    producer.send(topic, json.dumps(record).encode(), partition=0)
                producer.flush(30)
                (producer.commit_transaction if commit else producer.abort_transaction)()

    def commit(self, topic: str, offset: int, metadata: str) -> None:
        consumer: KafkaConsumer = clients.consumer(self.settings, group_id=self.env["GROUP_ID"])
        try:
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            consumer.commit({place: OffsetAndMetadata(offset, metadata, -1)})
        finally:
            clients.close(consumer)


@pytest.fixture
def writer(settings_env: dict[str, str], topics: Topics) -> Writer:
    return Writer(settings_env, topics)


class Run(NamedTuple):
    """The result of a run of the verifier."""

    returncode: int
    stdout: str
    stderr: str


Verify = Callable[..., Run]


@pytest.fixture
def verify(
    settings_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Verify:
    def run(*arguments: str, **env: str) -> Run:
        for name, value in (settings_env | env).items():
            monkeypatch.setenv(name, value)
        return Run(main(arguments), *capsys.readouterr())

    return run


def test_both_checks_hold_on_a_correct_history(
    writer: Writer, tmp_path: Path, verify: Verify
) -> None:
    made = correct_history()
    writer.outputs(writer.settings.prediction_topic, made.predictions[:5], commit=False)
    writer.write(made)
    log = made.write_log(tmp_path / "log")

    report = check(writer.env, [log])
    run = verify("--log", str(log), "--json")

    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["verified"] is True
    assert found["violations"] == []
    assert found["not_checked"] == {}
    assert found["checked"] == {
        **dict.fromkeys(("I2", "I5", "I6", "I7"), RECORDS - 1),
        **{"I1": RECORDS, "I3": 1, "I4": 7, "I8": 0, "I9": 0},
    }
    assert (report.predictions, report.n, report.correct, report.models) == (
        found["predictions"],
        found["n"],
        found["correct"],
        set(found["models"]),
    )


def test_both_checks_hold_on_a_history_with_labels_that_come_later(
    writer: Writer, verify: Verify
) -> None:
    made = late_history_without_a_batch(writer.label_topic_id())
    writer.write(made)
    writer.producer.send(writer.settings.label_topic, b'{"id": "r1", "label": 1}').get(30)
    report = check(writer.env)
    run = verify("--json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["not_checked"] == {}
    assert found["outcomes"] == dict(report.outcomes)
    assert (found["rejected_labels"], found["held_labels"]) == (report.rejected_labels, report.held)
    assert (found["checked"]["I8"], found["checked"]["I9"]) == (len(made.labels), 54)
    assert found["pending_labels"] == 1
    shown = verify()
    assert "not yet read: 1 labels" in shown.stdout
    assert "51 labelled, 1 revised, 2 assumed" in shown.stdout.splitlines()[-1]


def test_a_label_that_nothing_answers_is_found_by_both_checks(
    writer: Writer, verify: Verify
) -> None:
    made = late_history_without_a_batch(writer.label_topic_id())
    made.held = made.held[1:]
    writer.write(made)
    run = verify()
    with pytest.raises(AssertionError, match=r"^I8 label partition 0"):
        check(writer.env)
    assert run.returncode == 1
    place = f"{writer.settings.label_topic} partition 0"
    assert run.stdout.splitlines()[-1].startswith(f"not verified: I8 {place}")


def test_without_a_label_topic_outcomes_are_compared_with_their_predictions_only(
    writer: Writer, verify: Verify
) -> None:
    made = late_history_without_a_batch(writer.label_topic_id())
    writer.write(made)
    writer.admin.delete_topics([writer.settings.label_topic])
    gone = "I8, I9: from before the label topic was recreated"
    eventually(lambda: gone in verify("--json").stdout)
    run = verify("--json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["checked"]["I9"] == 54
    assert found["not_checked"] == {gone: 52 + 2}


@pytest.mark.parametrize(
    "broken", [b for b in BROKEN if b.name in SHOWN], ids=lambda broken: broken.name
)
def test_both_checks_find_the_same_violation(
    writer: Writer, broken: Broken, verify: Verify
) -> None:
    made = correct_history()
    broken.breaks(made)
    writer.write(made)

    run = verify("--json")
    with pytest.raises(AssertionError, match=f"^{broken.invariant} {broken.topic} partition 0"):
        check(writer.env)

    assert run.returncode == 1, run.stdout + run.stderr
    (violation,) = json.loads(run.stdout)["violations"]
    assert violation["invariant"] == broken.invariant
    assert violation["topic"].endswith(broken.topic)


def test_records_not_yet_predicted_are_counted_and_no_violation(
    writer: Writer, verify: Verify
) -> None:
    made = correct_history()
    made.data |= {RECORDS + i: b'{"id": 1, "features": [1, 2]}' for i in range(5)}
    writer.write(made)
    run = verify()
    assert run.returncode == 0, run.stdout + run.stderr
    assert "not yet predicted: 5 records" in run.stdout
    assert run.stdout.splitlines()[-1].startswith(
        f"verified: {RECORDS - 1} predictions, 1 rejected"
    )


def test_only_committed_records_count_as_not_yet_predicted_and_an_open_transaction_is_named(
    writer: Writer, topics: Topics, verify: Verify
) -> None:
    writer.write(correct_history())
    topic, record = writer.settings.data_topic, b'{"id": 1, "features": [1, 2]}'
    with writer.transaction(f"{topic}-aborted") as aborted:
        for _ in range(3):
            aborted.send(topic, record, partition=0)
        aborted.flush(30)
        aborted.abort_transaction()
    for _ in range(5):
        writer.producer.send(topic, record, partition=0).get(30)
    with writer.transaction(f"{topic}-open") as left_open:
        offset = left_open.send(topic, record, partition=0).get(30).offset
        writer.producer.send(topic, record, partition=0).get(30)
        # A transaction has ended for its producer a moment before it has for readers.
        place = TopicPartition(topic, 0)
        eventually(lambda: reading.bounds(topics.consumer, place)[1] == offset)
        run = verify("--json")
        shown = verify()
        left_open.abort_transaction()
    found = json.loads(run.stdout)
    assert (run.returncode, found["verified"], found["pending"]) == (0, True, 5)
    (transaction,) = found["open_transactions"]
    assert transaction.pop("since").startswith("20")
    where = {"topic": topic, "partition": 0, "offset": offset}
    assert transaction == where | {"producer": f"{topic}-open"}
    assert "not yet predicted: 5 records" in shown.stdout
    line = f"{topic} partition 0: a transaction of {topic}-open is open from offset {offset} on"
    assert line in shown.stdout
    eventually(lambda: json.loads(verify("--json").stdout)["pending"] == 6)


def test_outputs_behind_an_open_transaction_end_the_run_with_a_line_that_names_it(
    writer: Writer, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = correct_history()
    writer.write(made)
    topic = writer.settings.prediction_topic
    monkeypatch.setattr(reading, "SILENCE_SECONDS", 5.0)
    with writer.transaction(f"{topic}-open") as left_open:
        offset = left_open.send(topic, b"{}", partition=0).get(30).offset

        def held() -> list[Run]:
            found = verify()  # where the broker is slow, it may give up before it is held
            return [found] if "cannot be read to the end" in found.stderr else []

        (run,) = eventually(held)
        left_open.abort_transaction()
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    place = f"{topic} partition 0: a transaction of {topic}-open is open from offset {offset} on"
    assert line.startswith(f"cannot be read to the end: {place}")
    eventually(lambda: verify().returncode == 0)


def test_an_output_whose_offset_was_never_committed_is_a_violation(
    writer: Writer, settings_env: dict[str, str], verify: Verify
) -> None:
    made = correct_history()
    made.data[RECORDS] = b'{"id": 80, "features": [1, 2]}'
    made.predictions.append(made.predictions[-1] | {"source": [0, RECORDS], "label": None})
    writer.write(made)
    run = verify()
    assert run.returncode == 1
    place = f"{settings_env['DATA_TOPIC']} partition 0 offset {RECORDS}"
    assert run.stdout.splitlines()[-1].startswith(f"not verified: I3 {place}:")
    with pytest.raises(AssertionError, match=r"^I3 data partition 0|^I1 prediction"):
        check(writer.env)


def test_another_group_has_committed_nothing(writer: Writer, verify: Verify) -> None:
    writer.write(correct_history())
    run = verify(GROUP_ID="nobody-of-this-name")
    assert run.returncode == 1
    assert "expected a committed offset of group nobody-of-this-name, found none" in run.stdout


def test_a_model_of_a_stranger_is_named_as_not_checked(
    writer: Writer, tmp_path: Path, verify: Verify
) -> None:
    trusted = writer.key
    writer.key = signing_key(tmp_path / "stranger" / "key.pem")
    assert writer.key.fingerprint != trusted.fingerprint
    writer.write(correct_history())
    run = verify()
    assert run.returncode == 0, run.stdout + run.stderr
    assert "not checked 24: I6, I7: model 1: not signed by a trusted key" in run.stdout


def test_sources_go_back_without_a_violation_when_the_data_topic_was_recreated(
    writer: Writer, verify: Verify
) -> None:
    made = correct_history()
    writer.write(made)
    topic = writer.settings.data_topic
    writer.admin.delete_topics([topic])
    _recreate(writer, topic)
    # The broker deletes the group's offset a moment after the topic.
    eventually(lambda: verify().returncode == 0)
    run = verify()
    assert run.returncode == 0, run.stdout + run.stderr
    assert (
        "not checked 1: I3: nothing is committed since the data topic was recreated" in run.stdout
    )
    again = correct_history()
    last = made.predictions[-1]
    for prediction in again.predictions:
        prediction["n"] += last["n"]
        prediction["correct"] += last["correct"]
        prediction["accuracy"] = prediction["correct"] / prediction["n"]
    again.tally["carried"] = [last["n"], last["correct"]]
    again.models.clear()
    again.statuses = [{"version": 2, "status": "barred"}]
    writer.write(again)

    run = verify()
    assert run.returncode == 0, run.stdout + run.stderr
    assert (
        f"not checked {RECORDS}: I1, I6, I7: from before the data topic was recreated" in run.stdout
    )
    assert check(writer.env, recreated=True).n == 2 * last["n"]


def _recreate(writer: Writer, topic: str) -> None:
    def gone() -> bool:
        return topic not in partition_counts(writer.admin, [topic])

    eventually(gone)
    ensure_topics(writer.admin, writer.settings, logging.getLogger("test"))


def test_missing_topics_end_the_run_with_one_line(
    settings_env: dict[str, str], verify: Verify
) -> None:
    run = verify()
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert f"no topic {settings_env['DATA_TOPIC']}" in line


def test_no_broker_ends_the_run_with_one_line(verify: Verify) -> None:
    run = verify(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert run.returncode == 1
    assert run.stderr.startswith("no broker answers at 127.0.0.1:9 ")
    assert len(run.stderr.splitlines()) == 1


def test_it_runs_as_a_module_and_exits_with_its_status(start: Services, writer: Writer) -> None:
    made = correct_history()
    made.at(40)["n"] += 1
    writer.write(made)
    run = start.python("-m", "predictor.verify")
    assert run.returncode == 1
    assert run.stdout.splitlines()[-1].startswith("not verified: I2 ")
    assert run.stderr == ""


def test_a_wrong_setting_ends_the_run_with_its_name(verify: Verify) -> None:
    run = verify(GROUP_ID="a b")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("GROUP_ID=a b:")


def test_a_log_that_is_not_there_ends_the_run_with_one_line(verify: Verify) -> None:
    run = verify("--log", "absent.log")
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert "absent.log" in line
