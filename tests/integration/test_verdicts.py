"""What becomes of a model that a person publishes, and what its pin holds up."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import pytest

from local.process import Process
from modelgenerator.publish import publish
from modelgenerator.publisher import NotPublished
from modelgenerator.verdicts import NotServed
from tests.services import Services, eventually
from tests.topics import Topics, await_answered, await_serving, publisher, regression
from tests.unit.classifiers import Sign, envelope, pickled


@pytest.fixture
def topics(topics: Topics, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Topics that the environment names, too."""
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    return topics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with a model for the stream."""
    joblib.dump(regression(), tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


@pytest.fixture
def foreign(tmp_path: Path) -> dict[str, str]:
    """Make a model of a package that predictors lack; return the environment that has it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "house_rules.py").write_text(
        "from sklearn.linear_model import LogisticRegression\n\n\n"
        "class HouseRules(LogisticRegression):\n    pass\n"
    )
    return {"PYTHONPATH": str(folder)}


MAKE_FOREIGN = """
import sys, joblib, numpy as np
from house_rules import HouseRules
matrix = np.random.default_rng(0).normal(size=(200, 2))
joblib.dump(HouseRules().fit(matrix, (matrix[:, 0] > 0).astype(int)), sys.argv[1])
"""


def served(topics: Topics) -> list[dict[str, Any]]:
    """Return the statuses of models that predict."""
    return [status for status in topics.statuses() if status["status"] == "serving"]


def while_records_come(topics: Topics, command: Process) -> tuple[int, list[str]]:
    """Write records until a command ends; return its exit status, and its lines."""

    def ended() -> bool:
        topics.write(10)
        return command.status is not None

    eventually(ended, 90, command.tail)
    status = command.status
    assert status is not None
    return status, command.log().splitlines()


def test_the_command_says_which_predictor_serves_the_model_and_since_where(
    topics: Topics, start: Services, path: Path
) -> None:
    topics.publish(1)
    start.replica("first")
    await_serving(topics, 1)
    command = start.run("publish", "modelgenerator.publish", str(path))
    status, lines = while_records_come(topics, command)
    assert status == 0
    assert lines[0] == f"published {path} as model 2 (LogisticRegression)"
    assert lines[1].startswith("pinned: nothing else is published until")
    said = re.fullmatch(
        r"model 2 is serving: first predicts with it since 0@(\d+);"
        r" what others do: python -m modelgenerator\.models",
        lines[2],
    )
    assert said
    await_answered(topics)
    since = next(p["source"][1] for p in topics.predictions() if p["model"] == 2)
    assert int(said[1]) == since

    for name, expected in ((["rollback", "1"], "model 3 is"), (["unpin"], "model 4 is")):
        command = start.run("models", "modelgenerator.models", *name)
        status, lines = while_records_come(topics, command)
        assert status == 0
        assert lines[-1].startswith(f"{expected} serving: first predicts with it since 0@")


def test_a_model_that_predictors_lack_a_package_for_ends_the_command_with_their_reason(
    topics: Topics, start: Services, tmp_path: Path, foreign: dict[str, str]
) -> None:
    start("modelgenerator", RETRAIN_EVERY="100")
    start.replica("lacking")

    def newest() -> int:
        topics.write(50)
        return max(topics.versions(), default=0)

    eventually(newest, 90)
    await_answered(topics)  # the command waits half a minute, and no predictor's start
    path = tmp_path / "foreign.joblib"
    assert start.python("-c", MAKE_FOREIGN, str(path), env=foreign).returncode == 0
    done = start.python("-m", "modelgenerator.publish", str(path), env=foreign)
    version = next(m["version"] for m in topics.models() if m["recipe"] == "by_hand")
    assert done.returncode == 1
    assert f"as model {version} (HouseRules)" in done.stdout
    assert done.stderr.splitlines()[-1] == (  # the modelgenerator may have fenced it before
        f"model {version} was refused by lacking: cannot be unpickled: ModuleNotFoundError: No"
        " module named 'house_rules'; it holds no pin, and the model before it goes on, unless"
        " another predictor serves it"
    )
    eventually(lambda: newest() > version, 90)
    assert topics.models()[version]["pinned"] is False
    # Any later one: each is soon replaced.
    eventually(lambda: newest() and any(s["version"] > version for s in served(topics)), 90)
    await_answered(topics)
    topics.check()


def test_where_no_predictor_answers_the_command_says_so_and_it_is_no_failure(
    topics: Topics, start: Services, path: Path
) -> None:
    topics.write(10)
    run = ("-m", "modelgenerator.publish", str(path))
    done = start.python(*run, "--wait", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "model 1: no predictor has answered within 0.5 s. A predictor answers" in done.stdout
    done = start.python(*run, "--no-wait")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    done = start.python("-m", "modelgenerator.models", "unpin", "--wait", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("model 3: no predictor has answered within 0.5 s")


def test_an_idle_stream_is_told_from_a_refusal(topics: Topics, start: Services) -> None:
    topics.publish(1)
    start.replica("idle")
    await_serving(topics, 1)
    with pytest.warns(UserWarning, match="model 2: no predictor has answered within 2 s"):
        assert publish(regression(), wait=2) == 2
    with ThreadPoolExecutor() as pool:
        publishing = pool.submit(publish, Sign(raises_above=5.0))

        def ended() -> bool:
            topics.write(20, mean=1_000.0)
            return publishing.done()

        eventually(ended)
        with pytest.raises(NotServed, match=r"model 3 was barred by idle: .* it holds no pin, and"):
            publishing.result()


SAID = {
    "refused": (["refused"], False),
    "barred": (["barred"], False),
    "barred after it served": (["serving", "barred"], False),
    "refused by one, served by another": (["refused", "serving"], True),
    "serving": (["serving"], True),
    "nothing": ([], True),
}


@pytest.mark.parametrize("name", SAID)
def test_a_model_holds_its_pin_unless_it_is_out_of_service(name: str, topics: Topics) -> None:
    statuses, holds = SAID[name]
    topics.publish(1)
    topics.publish(2, pinned=True)
    for status in statuses:
        topics.say(2, status, f"replica of {status}")
    assert pinned(topics) == (2 if holds else None)


def pinned(topics: Topics) -> int | None:
    """Publish as the modelgenerator does; return the version of the model that is pinned."""
    with publisher(topics.settings, topics.key) as found:
        try:
            found.publish(envelope(), pickled(regression()), unless_pinned=True)
        except NotPublished as error:
            return int(str(error).removeprefix("model ").split()[0])
    return None


def test_the_pin_before_counts_where_the_newest_is_out_of_service(topics: Topics) -> None:
    topics.publish(1, pinned=True)
    topics.publish(2, pinned=True)
    topics.publish(3, pinned=True)
    assert pinned(topics) == 3
    topics.say(3, "refused")
    assert pinned(topics) == 2
    topics.say(2, "barred")
    assert pinned(topics) == 1
    topics.say(1, "barred")
    assert pinned(topics) is None


def test_a_pin_that_was_ended_does_not_come_back_with_a_barred_model(topics: Topics) -> None:
    topics.publish(1, pinned=True)
    with publisher(topics.settings, topics.key) as found:
        assert found.unpin() == 2
    topics.say(2, "barred")
    assert pinned(topics) is None


def test_a_modelgenerator_that_starts_goes_on_as_if_a_refused_model_were_not_there(
    topics: Topics, start: Services
) -> None:
    topics.write(300)
    topics.publish(1, trained_to={"0": 299}, pinned=True)
    topics.say(1, "refused")
    start("modelgenerator")
    eventually(lambda: topics.versions()[:2] == [1, 2], 90)  # one with all 300 follows soon
