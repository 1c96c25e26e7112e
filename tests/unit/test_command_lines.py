"""Whatever can be run shows help when asked, and starts nothing when it is not understood."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from modelgenerator.labelled.__main__ import main as labelled
from modelgenerator.publish.__main__ import main as publish
from stream.command import command
from stream.settings import StreamSettings, described
from tests.services import ROOT

FOLDERS = (
    "benchmarks",
    "dashboard",
    "datagenerator",
    "examples",
    "local",
    "modelgenerator",
    "predictor",
    "tests",
)
MADE_FOR_ANOTHER = {Path("local/leash.py")}
"""Takes a whole command of somebody else's as its arguments, so it knows none that is wrong."""

SERVICES = ("dashboard", "datagenerator", "modelgenerator", "predictor")


def programs() -> list[Path]:
    """Return the files that can be run, relative to the repository."""
    return sorted(
        path.relative_to(ROOT)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text()
    )


def run(path: Path, argument: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a file in this process with one argument, and return its exit status."""

    def never(*_: object) -> None:
        raise AssertionError("it started")

    monkeypatch.setattr(sys, "argv", [str(path), argument])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its handlers
    for way in ("fork", "_exit", "execvp"):
        monkeypatch.setattr(os, way, never)
    module = ".".join(path.with_suffix("").parts).removesuffix(".__main__")
    for name in (module, f"{module}.__main__"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # another test may have imported it
    is_module = (ROOT / path).parent.joinpath("__init__.py").exists()
    execute = partial(runpy.run_module, alter_sys=True) if is_module else runpy.run_path
    with pytest.raises(SystemExit) as ended:
        execute(module if is_module else str(ROOT / path), run_name="__main__")
    return int(ended.value.code or 0)


def test_everything_that_can_be_run_is_found() -> None:
    found = {str(path) for path in programs()}
    assert {f"{service}/app.py" for service in SERVICES} <= found
    assert {"local/demo.py", "local/kafka.py", "tests/soak/__main__.py"} <= found


@pytest.mark.parametrize("path", programs(), ids=str)
@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_is_shown(
    path: Path,
    argument: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(path, argument, monkeypatch) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) > 3


@pytest.mark.parametrize("path", sorted({*programs()} - MADE_FOR_ANOTHER), ids=str)
def test_an_unknown_argument_ends_with_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(path, "--no-such-argument", monkeypatch) == 2
    refused = capsys.readouterr()
    assert refused.out == ""
    (line,) = refused.err.splitlines()
    assert "argument" in line


@pytest.mark.parametrize(
    "path", [path for path in programs() if path.parts[0] in SERVICES], ids=str
)
def test_the_help_of_a_service_or_command_lists_its_settings(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(path, "--help", monkeypatch)
    assert "  KAFKA_BOOTSTRAP_SERVERS (localhost:9092)\n" in capsys.readouterr().out


def test_the_help_of_a_service_shows_its_settings_with_their_defaults() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "datagenerator.app", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert shown.startswith("usage: python -m datagenerator.app")
    assert "Sends records to the data topic" in shown
    for setting in described(StreamSettings):
        assert f"  {setting.name} ({setting.default})\n" in shown
    assert "  RATE (100)\n" in shown


@pytest.mark.parametrize("number", ["0", "-5", "1.5", "many"])
def test_a_number_of_records_is_a_whole_one_from_1_on(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, arguments in (
        (publish, ["model.joblib", "--backtest", number]),
        (labelled, ["records.csv", "--last", number]),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert f"expected a whole number from 1 on, got '{number}'" in capsys.readouterr().err


@pytest.mark.parametrize("percent", ["30", "-0.1", "nan", "1e999", "half"])
def test_a_threshold_that_is_no_probability_is_a_wrong_option(
    capsys: pytest.CaptureFixture[str], percent: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        publish(["model.joblib", f"--threshold={percent}"])
    assert f"--threshold: expected a number from 0 to 1, got '{percent}'" in capsys.readouterr().err


def test_a_command_whose_file_is_missing_names_it_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(settings: StreamSettings) -> int:
        return len(Path("missing.joblib").read_bytes())

    assert command(StreamSettings, work) == 1
    assert capsys.readouterr().err == "missing.joblib: No such file or directory\n"
