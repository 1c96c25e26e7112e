from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboard.settings import DashboardSettings
from datagenerator.settings import Settings as DatageneratorSettings
from modelgenerator.settings import Settings as ModelgeneratorSettings
from predictor.settings import PredictorSettings
from stream.settings import StreamSettings, described
from tests.services import ROOT

README = (ROOT / "README.md").read_text()
SERVICES: dict[str, type[StreamSettings]] = {
    "all": StreamSettings,
    "datagenerator": DatageneratorSettings,
    "modelgenerator": ModelgeneratorSettings,
    "predictor": PredictorSettings,
    "dashboard": DashboardSettings,
}


def settings_table() -> str:
    """Return the table of settings that the code has."""
    rows = ["| variable | read by | default | what it is |", "| --- | --- | --- | --- |"]
    of_all = described(StreamSettings)
    for service, settings in SERVICES.items():
        for setting in described(settings):
            if service != "all" and setting in of_all:
                continue
            named = setting.default in ("none", "host name")
            default = setting.default if named else f"`{setting.default}`"
            rows.append(f"| `{setting.name}` | {service} | {default} | {setting.description} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert settings_table() in README


@pytest.mark.parametrize("example", sorted((ROOT / "tests" / "records").glob("*.json")))
def test_the_records_shown_are_examples_that_round_trip(example: Path) -> None:
    shown = example.read_text().strip()
    if example.name == "model.json":
        shown = shown[: shown.index('"pickle":"') + len('"pickle":"')]
    assert shown in README


def test_the_producer_shown_is_the_one_that_is_tested() -> None:
    producer = (ROOT / "examples" / "producer.py").read_text()
    assert f"```python\n{producer}```" in README
    assert len([line for line in producer.splitlines() if line]) <= 15


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documents = [README, *(path.read_text() for path in [ROOT / "CONTRIBUTING.md"])]
    named = {name for text in documents for name in re.findall(r"`make ([a-z-]+)", text)}
    assert {"demo", "test", "check"} <= named
    for name in named:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_every_file_that_a_document_links_to_exists() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_test_that_a_document_names_exists_and_each_line_about_rights_names_one() -> None:
    for document in (ROOT / "docs").glob("*.md"):
        text = document.read_text()
        for file, name in re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", text):
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"
    security = (ROOT / "docs" / "security.md").read_text()
    rows = security.split("| with Write on |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(rows) >= 20
    assert [row for row in rows if not re.search(r"\.py::\w+` \|$", row)] == []
