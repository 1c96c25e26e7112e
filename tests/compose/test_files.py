"""What the compose files and images say, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.compose.stack import APPS, CLUSTER, KAFKA, MONITORING, PROJECT, SETTINGS, V1, V2, run

LIMIT_MB = {"datagenerator": 520, "modelgenerator": 555, "predictor": 470}
"""DuckDB, which the predictor does not need, takes 72 MB, pandas 45; river, of the others, 11."""


def image(service: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(run("docker", "inspect", f"{PROJECT}-{service}"))
    return found[0]


def services(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*V2, "config", "--format", "json", env=env))
    return found["services"]  # type: ignore[no-any-return] # JSON


@pytest.mark.parametrize("compose", [V1, V2])
@pytest.mark.parametrize(
    "files",
    [
        (),
        KAFKA,
        CLUSTER,
        MONITORING,
        ("--env-file", "cluster.env"),
        ("--profile", "dashboard"),
    ],
)
def test_both_versions_of_compose_take_each_file_without_a_warning(
    compose: Sequence[str], files: Sequence[str]
) -> None:
    assert run(*compose, *files, "config", "-q") == ""


@pytest.mark.parametrize("service", APPS)
def test_every_setting_of_a_service_can_be_given_from_outside(service: str) -> None:
    own = {name.upper() for name in SETTINGS[service].model_fields} - {"HEALTH_FILE"}
    given = services(dict.fromkeys(own, "42"))[service]["environment"]
    assert {name for name, value in given.items() if value == "42"} == own


def test_the_example_of_an_env_file_names_settings_that_exist() -> None:
    known = {name.upper() for settings in SETTINGS.values() for name in settings.model_fields}
    known |= {"COMPOSE_IGNORE_ORPHANS", "DATA_FOLDER", "CPUS"}
    known |= {"EXTRA_PACKAGES", "KAFKA_HOST_PORT", "DASHBOARD_PORT", "DASHBOARD_MEMORY"}
    known |= {f"{service.upper()}_MEMORY" for service in APPS}
    lines = run("cat", ".env.example").splitlines()
    named = {line.lstrip("# ").partition("=")[0] for line in lines if "=" in line}
    assert {name for name in named if name.isupper()} <= known
    assert len(named) > 20


def test_the_private_key_is_on_a_volume_of_the_modelgenerator_alone() -> None:
    mounts = {
        service: {v["target"]: (v.get("source"), v.get("read_only", False)) for v in s["volumes"]}
        for service, s in services().items()
    }
    assert [s for s, found in mounts.items() if "private-key" in str(found)] == ["modelgenerator"]
    assert mounts["predictor"]["/keys/trusted"] == ("trusted-keys", True)
    assert mounts["modelgenerator"]["/keys/trusted"] == ("trusted-keys", False)


@pytest.mark.parametrize("service", APPS)
def test_an_image_is_small_has_no_compiler_and_runs_python_as_nobody_in_particular(
    service: str,
) -> None:
    found = image(service)
    assert found["Size"] <= LIMIT_MB[service] * 10**6
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Cmd"] == ["python", "-m", f"{service}.app"]
    assert "PYTHONUNBUFFERED=1" in found["Config"]["Env"]
    name = f"{PROJECT}-{service}"
    assert run("docker", "run", "--rm", name, "sh", "-c", "command -v gcc cc", status=127) == ""


def test_the_images_share_the_layers_that_weigh_most() -> None:
    layers = [image(service)["RootFS"]["Layers"] for service in APPS]
    shared = set.intersection(*(set(found) for found in layers))
    base = json.loads(run("docker", "inspect", "python:3.13-slim"))[0]["RootFS"]["Layers"]
    assert len(shared) >= len(base) + 2
