"""`python -m predictor.status` beside a predictor on a real broker."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

import orjson

from predictor.status.__main__ import main
from tests.services import Services, eventually
from tests.topics import (
    Topics,
    await_answered,
    await_serving,
    predict_with_a_swap_a_refusal_and_rejected_records,
)
from tests.unit.classifiers import Sign


def status(env: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run the command; return its exit status, standard output and standard error."""
    output, errors = StringIO(), StringIO()
    with patch.dict(os.environ, env), redirect_stdout(output), redirect_stderr(errors):
        ended = main(arguments)
    return ended, output.getvalue(), errors.getvalue()


def test_the_status_is_what_the_topics_say(
    three: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    predict_with_a_swap_a_refusal_and_rejected_records(three, start, "cadence")

    ended, output, errors = status(settings_env, "--json")
    assert (ended, errors) == (0, "")
    found = orjson.loads(output)
    predictions = [p for partition in range(3) for p in three.predictions(partition)]
    counted = [p for p in predictions if p["label"] is not None and not p.get("seen")]
    right = sum(p["prediction"] == p["label"] for p in counted)
    window, counts = found["window"], found["counts"]
    assert (window["n"], window["correct"]) == (counts["n"], counts["correct"])
    assert (counts["n"], counts["correct"]) == (len(counted), right)
    assert window["predictions"] == len(predictions)
    assert window["coverage"] == (len(predictions) - 30) / len(predictions)
    assert (window["rejected"], counts["rejected"], counts["lag"]) == (3, 3, 0)
    assert list(window["reasons"]) == [three.rejected()[0]["reason"]]
    assert [row["lag"] for row in found["partitions"]] == [0, 0, 0]
    for number, row in enumerate(found["partitions"]):
        last = three.predictions(number)[-1]
        assert (row["n"], row["correct"], row["model"]) == (last["n"], last["correct"], 2)
    rows = {row["version"]: row for row in found["models"]}
    assert (rows[1]["status"], rows[2]["status"]) == ("replaced", "serving")
    assert (rows[2]["algorithm"], rows[2]["reason"]) == ("LogisticRegression", "cadence")
    for version in (1, 2):
        made = [p for p in predictions if p["model"] == version]
        assert rows[version]["predictions"] == len(made)
    assert [(swap["before"], swap["version"]) for swap in found["swaps"]] == [(1, 2)]
    (refused,) = found["refusals"]
    assert (refused["version"], refused["status"]) == (3, "refused")
    assert len(found["rejections"]) == 3

    ended, output, errors = status(settings_env, "--since", "10m")
    assert (ended, errors) == (0, "")
    assert "model 2 (LogisticRegression, reason cadence) serves since " in output
    assert "swaps in the window; the last one: 1 to 2 at " in output
    assert "3 rejected: value: not JSON" in output
    assert "model 3 refused by " in output


def test_checks_decide_the_exit_status_and_each_says_what_was_found(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    ended, output, _ = status(settings_env, "--check", "accuracy>=0.5", "--check", "lag<=0")
    lines = output.splitlines()
    assert ended == 0
    assert lines[0].startswith("accuracy>=0.5 holds: accuracy is ")
    assert lines[1] == "lag<=0 holds: lag is 0"

    checks = ("--check", "accuracy>=0.5", "--check", "rejected>0", "--window", "1h")
    ended, output, _ = status(settings_env, *checks)
    assert ended == 1
    assert output.splitlines()[1] == "rejected>0 does not hold: rejected is 0"
    ended, output, _ = status(settings_env, *checks, "--json")
    assert ended == 1
    assert [each["holds"] for each in orjson.loads(output)["checks"]] == [True, False]


def test_only_the_window_is_read_and_its_edge_is_where_it_begins(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    before = topics.answered()
    eventually(
        lambda: orjson.loads(status(settings_env, "--since", "2s", "--json")[1])["window"]["n"] == 0
    )
    topics.publish(2, Sign())
    await_serving(topics, 2)
    found = orjson.loads(status(settings_env, "--json")[1])
    assert found["window"]["predictions"] == topics.answered() > before
    assert not found["window"]["limited"]
    with patch("stream.follower.MOST", 20):
        newest = orjson.loads(status(settings_env, "--json")[1])["window"]
    assert newest["limited"]
    assert 0 < newest["predictions"] <= 20
    assert newest["since"] > found["window"]["since"]
    eventually(
        lambda: (
            "nothing in the window says it"
            in status(settings_env, "--since", "1s", "--check", "accuracy>0")[1]
        )
    )


def test_before_anything_was_predicted_the_status_says_so(
    topics: Topics, settings_env: dict[str, str]
) -> None:
    topics.write(7)
    ended, output, errors = status(settings_env)
    assert (ended, errors) == (0, "")
    assert "no model serves" in output
    assert "lag 7" in output
    ended, output, _ = status(settings_env, "--check", "accuracy>=0.8")
    assert ended == 1
    assert output == (
        "accuracy>=0.8 does not hold: accuracy is not known, nothing in the window says it\n"
    )


def test_a_topic_that_is_missing_is_named(settings_env: dict[str, str]) -> None:
    ended, output, errors = status(settings_env)
    assert (ended, output) == (1, "")
    assert "no topic " in errors
    assert settings_env["DATA_TOPIC"] in errors


def test_a_broker_that_does_not_answer_is_one_line(settings_env: dict[str, str]) -> None:
    ended, output, errors = status({**settings_env, "KAFKA_BOOTSTRAP_SERVERS": "localhost:1"})
    assert (ended, output) == (1, "")
    assert "no broker answers at localhost:1" in errors
    assert len(errors.splitlines()) == 1


def test_watch_shows_it_again_until_ctrl_c(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    watched = start.run("status", "predictor.status", "--watch", "--json")

    def shown() -> list[str]:
        return watched.log().split("\n")[:-1]  # what follows may be half a line

    eventually(shown)
    topics.write(50)
    await_answered(topics)

    def caught_up() -> bool:
        found = orjson.loads(shown()[-1])
        return bool(found["window"]["predictions"] == topics.written())

    eventually(caught_up)
