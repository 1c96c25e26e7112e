"""Two real versions of scikit-learn on one stream: the upgrade, in the order documented and not."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import sklearn

from local.process import Process
from tests.services import PATIENCE_SECONDS, ROOT, Services, await_line, eventually
from tests.topics import Topics, assert_exactly_once

OURS = sklearn.__version__
OLDER = f"{OURS.split('.')[0]}.{int(OURS.split('.')[1]) - 1}"
_REQUIREMENTS = [ROOT / service / "requirements.txt" for service in ("modelgenerator", "predictor")]


@pytest.fixture(scope="session")
def older() -> str:
    """A Python with the minor version of scikit-learn before ours; made once, then kept."""
    lock = (ROOT / "requirements.lock").read_text().splitlines(keepends=True)
    others = "".join(line for line in lock if not line.startswith("scikit-learn=="))
    required = "".join(path.read_text() for path in _REQUIREMENTS)
    known = hashlib.sha256(f"{sys.version}{others}{required}".encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "binary-classifier-with-dynamic-models" / f"scikit-learn-{OLDER}-{known}"
    python = str(folder / "bin" / "python")
    if folder.exists():
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Built elsewhere and moved when complete: an interrupted run leaves nothing half done.
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
    try:
        (temporary / "constraints.txt").write_text(others)
        subprocess.run([sys.executable, "-m", "venv", temporary], check=True)
        wanted = [word for path in _REQUIREMENTS for word in ("-r", str(path))]
        pip = [str(temporary / "bin" / "python"), "-m", "pip", "install", "-q"]
        fixed = ["-c", str(temporary / "constraints.txt")]
        subprocess.run([*pip, f"scikit-learn=={OLDER}.*", *wanted, *fixed], check=True)
        with suppress(OSError):  # another process was first
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return python


@pytest.fixture
def settings_env(settings_env: dict[str, str]) -> dict[str, str]:
    return settings_env | {"RETRAIN_EVERY": "100"}


def newest_of(topics: Topics, version: str) -> int:
    """The newest model made with a version of scikit-learn, 0 if there is none."""
    made = [m["version"] for m in topics.models() if m["sklearn"].startswith(f"{version}.")]
    return max(made, default=0)


def models_of(topics: Topics, version: str) -> set[int]:
    return {m["version"] for m in topics.models() if m["sklearn"].startswith(f"{version}.")}


def answered_by(topics: Topics, count: int) -> set[int]:
    """Write so many records, and return the models that predict them."""
    before = topics.answered()
    topics.write(count)
    eventually(lambda: topics.answered() == topics.written(), PATIENCE_SECONDS)
    return {p["model"] for p in topics.predictions()[before:]}


def replaced(process: Process, start: Services, service: str, **python: str) -> Process:
    """Stop a service and start it by another Python."""
    assert process.stop() == 0
    return start(service, **python)


def test_the_modelgenerator_is_upgraded_first_and_the_predictors_after_it(
    topics: Topics, start: Services, older: str
) -> None:
    ours = ".".join(OURS.split(".")[:2])
    generator = start("modelgenerator", python=older)
    predictor = start("predictor", python=older)
    topics.write(300)
    await_line(predictor, ") serves from the next unit")
    generator = replaced(generator, start, "modelgenerator")
    await_line(predictor, f"made with scikit-learn {OURS}, installed is {OLDER}.")
    assert answered_by(topics, 50) <= models_of(topics, OLDER)
    # Restarted in between, the old predictor finds the newest model that it can load.
    predictor = replaced(predictor, start, "predictor", python=older)
    assert answered_by(topics, 50) == {newest_of(topics, OLDER)}
    predictor = replaced(predictor, start, "predictor")
    assert answered_by(topics, 50) <= models_of(topics, ours)
    assert_exactly_once(topics)
    assert "Traceback" not in generator.log() + predictor.log()


def test_a_predictor_upgraded_first_says_that_it_finds_no_model_and_waits_and_going_back_works(
    topics: Topics, start: Services, older: str
) -> None:
    ours = ".".join(OURS.split(".")[:2])
    generator = start("modelgenerator", python=older)
    topics.write(450)
    eventually(lambda: newest_of(topics, OLDER) >= 2, PATIENCE_SECONDS)
    predictor = start("predictor")
    await_line(predictor, f"older ones: made with scikit-learn {OLDER}.")
    await_line(
        predictor,
        f"no model of {topics.settings.model_topic} can be served; waiting",
        PATIENCE_SECONDS,
    )
    assert topics.answered() == 0
    generator = replaced(generator, start, "modelgenerator")
    await_line(predictor, ") serves from the next unit")
    assert answered_by(topics, 50) <= models_of(topics, ours)
    # And back again, in the same order.
    before = newest_of(topics, OLDER)
    generator = replaced(generator, start, "modelgenerator", python=older)
    eventually(lambda: newest_of(topics, OLDER) > before, PATIENCE_SECONDS)
    newest = newest_of(topics, OLDER)
    await_line(predictor, f"refused model {newest}: made with scikit-learn {OLDER}.")
    assert answered_by(topics, 50) <= models_of(topics, ours)
    predictor = replaced(predictor, start, "predictor", python=older)
    assert answered_by(topics, 50) <= models_of(topics, OLDER)
    assert_exactly_once(topics)
    assert "Traceback" not in generator.log() + predictor.log()
