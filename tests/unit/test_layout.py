"""The rules of the layout: who may import whom, how long an app.py is, what is required."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.services import ROOT
from tests.services import SERVICES as THREE

SERVICES = (*THREE, "dashboard")
PACKAGES = (*SERVICES, "estimators", "local", "quality", "stream")
DISTRIBUTIONS = {
    "kafka": "kafka-python",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "sklearn": "scikit-learn",
    "snappy": "python-snappy",
}
NEEDED_UNSEEN = {"crc32c", "scikit-learn"}
"""Used without an import of ours: by the Kafka client, by the models that are loaded."""


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules that a file imports, as dotted names; ``from a import b`` counts as ``a.b`` too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute here"
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another_or_what_runs_it_locally(service: str) -> None:
    strangers = {*SERVICES, "local", "tests"} - {service}
    assert {
        str(path): found for path in _files(service) if (found := _packages(path) & strangers)
    } == {}


def test_what_the_services_share_knows_neither_scikit_learn_nor_a_service() -> None:
    strangers = {*SERVICES, "sklearn", "local", "quality", "tests"}
    assert {
        str(path): found for path in _files("stream") if (found := _packages(path) & strangers)
    } == {}


def test_the_quality_of_a_stream_is_computed_without_kafka_and_any_service() -> None:
    strangers = {*SERVICES, "kafka", "sklearn", "numpy", "local", "tests"}
    clients = {"stream.clients", "stream.reading", "stream.topics"}
    assert {
        str(path): found
        for path in _files("quality")
        if (found := _packages(path) & strangers | _imports(path) & clients)
    } == {}


def test_what_a_published_model_may_contain_needs_numpy_and_scikit_learn_alone() -> None:
    # scikit-learn requires threadpoolctl, so whoever has the one has the other.
    known = {*sys.stdlib_module_names, "numpy", "sklearn", "threadpoolctl", "estimators"}
    assert set().union(*map(_packages, _files("estimators"))) <= known


def test_what_runs_everything_locally_imports_no_service() -> None:
    assert {
        str(path): found for path in _files("local") if (found := _packages(path) & set(SERVICES))
    } == {}


@pytest.mark.parametrize("service", SERVICES)
def test_an_app_is_shorter_than_100_lines(service: str) -> None:
    assert len((ROOT / service / "app.py").read_text().splitlines()) < 100


@pytest.mark.parametrize("package", [*SERVICES, "local"])
def test_requirements_hold_what_is_imported_and_nothing_else(package: str) -> None:
    waiting = _files(package)
    seen: set[Path] = set()
    imported: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in _imports(path):
            module = ROOT / f"{name.replace('.', '/')}.py"
            if module.exists() and module not in seen:
                waiting.append(module)
            imported.add(name.partition(".")[0])
    imported -= {*sys.stdlib_module_names, *PACKAGES}
    used = {DISTRIBUTIONS.get(name, name) for name in imported}
    lines = (ROOT / package / "requirements.txt").read_text().splitlines()
    required = {re.split(r"[<>=~! #]", line)[0] for line in lines} - {""}
    assert required - (NEEDED_UNSEEN - used) == used


def _needed(service: str) -> set[str]:
    """Return the packages of ours that a service imports, and those that they import."""
    waiting, needed = [service], set[str]()
    while waiting:
        package = waiting.pop()
        needed.add(package)
        found = set().union(*map(_packages, _files(package))) & {*PACKAGES}
        waiting += found - needed
    return needed


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_the_packages_that_its_service_imports(service: str) -> None:
    copied = re.findall(
        r"^COPY --chown=\S+ (\w+)/", (ROOT / service / "Dockerfile").read_text(), re.M
    )
    assert _needed(service) <= {*copied}
    assert {f"!{name}" for name in copied} <= {*(ROOT / ".dockerignore").read_text().split()}


def test_what_is_installed_for_a_notebook_holds_the_packages_that_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {f"{package}*" for package in _needed("modelgenerator")} == {*include}
