"""The paths of a record and of a model in docs/architecture.md are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()
PATHS = [
    "The path of a record, from poll to commit",
    "The path of a model, from message to swap",
]

Step = tuple[str, str]
"""File and function, class, or method of a class."""


def steps(path: str) -> list[Step]:
    """Return the steps of a path in their order."""
    _, found = DOCUMENT.split(f"## {path}\n")
    return re.findall(r"^\d\. `([\w/]+\.py)` `([\w.]+)`:", found.partition("\n## ")[0], re.M)


def definitions(file: str) -> dict[str, set[str]]:
    """Return each function, class and method of a file, with the names that it uses."""
    found: dict[str, set[str]] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[f"{prefix}{node.name}"] = {
                    each.attr if isinstance(each, ast.Attribute) else each.id
                    for each in ast.walk(node)
                    if isinstance(each, ast.Attribute | ast.Name)
                }
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{node.name}.")

    walk(ast.parse((ROOT / file).read_text()).body, "")
    return found


@pytest.mark.parametrize("path", PATHS)
def test_a_path_has_at_most_eight_steps_and_each_is_a_function_of_its_file(path: str) -> None:
    found = steps(path)
    assert 4 <= len(found) <= 8
    assert [step for step in found if step[1] not in definitions(step[0])] == []


@pytest.mark.parametrize("path", PATHS)
def test_each_step_is_called_in_the_file_of_a_step_before_it(path: str) -> None:
    found = steps(path)
    for number, (file, name) in enumerate(found[1:], start=1):
        before = {earlier for earlier, _ in found[:number]}
        used = set().union(*(names for each in before for names in definitions(each).values()))
        assert name.rpartition(".")[2] in used, f"{file} {name} is called by no step before it"


def test_every_file_and_folder_that_the_document_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", DOCUMENT)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_name_beside_a_file_in_the_table_of_changes_stands_in_that_file() -> None:
    pairs = re.findall(r"`([\w/]+\.py)` \((`[^)]+`)\)", DOCUMENT)
    assert len(pairs) >= 5
    for file, names in pairs:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{file}: {name}"
