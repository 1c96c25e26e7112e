"""The page as a service of compose, for those who ask for it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.stack import APPS, V1, Stack, clean_engine, run
from tests.services import eventually

PORT = "8085"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("DASHBOARD_PORT", PORT)
    with clean_engine():
        found = Stack(V1, tmp_path)
        yield found
        found.close()


def get(path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=10) as answer:
        return bytes(answer.read())


def state() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(get("/api/state"))
    except OSError:  # it has not started yet
        return {}
    return found


def test_the_profile_serves_the_page_on_this_machine_and_without_it_there_are_three_services(
    stack: Stack,
) -> None:
    profile = ("--profile", "dashboard")
    stack(*profile, "build", seconds=600, status=None)  # a download may fail once
    stack(*profile, "build", seconds=600)
    stack.kafka("up", "-d")
    stack("up", "-d")
    assert [name for name in (*APPS, "dashboard") if stack.containers(name)] == [*APPS]
    stack(*profile, "up", "-d")
    stack.await_more(300)
    eventually(lambda: state().get("health", {}).get("state") == "well", 120, lambda: str(state()))
    eventually(lambda: (shown := state()) and shown["windows"]["1000"]["n"] > 100)
    assert b"page.js" in get("/")
    stack.await_health("dashboard", "healthy")
    ports = run("docker", "port", stack.container("dashboard"))
    assert ports.split() == ["8080/tcp", "->", f"127.0.0.1:{PORT}"]
    stack(*profile, "down")
