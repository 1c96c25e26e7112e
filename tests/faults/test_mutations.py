"""The tests have teeth: each deliberate fault of the code is noticed by the test named for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Change, Mutation, StaleError, apply
from tests.services import ROOT, Services

COPIED = ("datagenerator", "modelgenerator", "predictor", "stream", "local", "tests")
SECONDS = 1800


def copy(folder: Path) -> Path:
    """Copy the code, so that it can be changed."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, start: Services, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, which sees no other code than that."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**start.env, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def run_tests(folder: Path, start: Services, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy, on the broker of this run."""
    return run(folder, start, "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_deliberate_fault_is_noticed(mutation: Mutation, start: Services, tmp_path: Path) -> None:
    folder = copy(tmp_path / "copy")
    apply(mutation, folder)
    found = run_tests(folder, start, mutation.test)
    said = "\n".join(line for line in found.stdout.splitlines() if line.startswith("E "))
    assert found.returncode == 1, f"{mutation.test} did not fail\n{found.stdout[-3000:]}"
    assert re.search(mutation.finding, said), f"another failure than looked for\n{said}"


def test_the_same_tests_pass_where_nothing_is_changed(start: Services, tmp_path: Path) -> None:
    folder = copy(tmp_path / "copy")
    found = run_tests(folder, start, *sorted({mutation.test for mutation in MUTATIONS}))
    assert found.returncode == 0, found.stdout[-5000:]


def test_a_copy_runs_its_own_code(start: Services, tmp_path: Path) -> None:
    folder = copy(tmp_path / "copy")
    (folder / "predictor" / "__init__.py").write_text("raise SystemExit('the copy')")
    assert run(folder, start, "predictor.app").stderr == "the copy\n"
    found = run_tests(folder, start, "tests/unit/test_tally.py")
    assert "the copy" in found.stdout + found.stderr


def test_a_fault_whose_place_is_gone_is_said_to_be_stale(tmp_path: Path) -> None:
    gone = Mutation("gone", (Change("file.py", "old", "new"),), "", "")
    (tmp_path / "file.py").write_text("something else")
    with pytest.raises(StaleError, match=r"gone: file.py holds 'old' 0 times"):
        apply(gone, tmp_path)
