from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.services import Services, eventually
from tests.topics import Topics, assert_correct_runs_on, await_no_members


def reset(start: Services, *arguments: str, answer: str = "", **env: str) -> tuple[int, str]:
    done = start.python("-m", "predictor.reset", *arguments, answer=answer, env=env)
    return done.returncode, done.stdout + done.stderr


def kept(topics: Topics, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(record.value) for record in topics.records(topic)]


def test_after_a_reset_counting_starts_at_n_0_and_every_record_is_predicted_again(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.publish(1)
    topics.write(55)
    topics.write_values([b"not JSON"])
    predictor = start("predictor")
    eventually(lambda: topics.answered() == 56)
    log = tmp_path / "predictor.log"
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 5)
    before = log.read_text()

    status, output = reset(start, "--yes")
    assert (status, "has 1 members" in output) == (1, True), output
    assert kept(topics, topics.settings.prediction_topic)

    assert predictor.stop() == 0
    await_no_members(topics)
    status, output = reset(start, answer="n\n")
    assert (status, "nothing was deleted" in output) == (1, True), output
    assert kept(topics, topics.settings.prediction_topic)

    status, output = reset(start, answer="y\n")
    assert status == 0, output
    assert not kept(topics, topics.settings.prediction_topic)
    assert not kept(topics, topics.settings.rejected_topic)

    topics.write(45)
    successor = start("predictor")
    eventually(lambda: len(kept(topics, topics.settings.prediction_topic)) == 100)
    predictions = kept(topics, topics.settings.prediction_topic)
    rejected = eventually(lambda: kept(topics, topics.settings.rejected_topic))
    sources = [p["source"][1] for p in predictions + rejected]
    assert sorted(sources) == list(range(101))
    assert [p["n"] for p in predictions] == list(range(1, 101))
    assert_correct_runs_on(predictions)
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 10)
    assert before in [old.read_text() for old in tmp_path.glob("predictor.log*old*")]
    assert "no tally is committed" not in successor.log()


def test_a_reset_where_nothing_was_ever_predicted_changes_nothing(start: Services) -> None:
    status, output = reset(start, "--yes")
    assert (status, "n=0" in output) == (0, True), output


def test_a_reset_names_the_broker_that_does_not_answer(start: Services) -> None:
    status, output = reset(start, "--yes", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (status, "127.0.0.1:1" in output) == (1, True), output
    assert "Traceback" not in output
