"""An engine to run the compose files on; without one nothing here can be shown."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.compose.stack import V1, V2, run
from tests.services import ROOT


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    if (ROOT / ".env").exists():
        pytest.exit("tests/compose need the settings as they are: move .env away", 1)
    for command in (("docker", "info"), (*V1, "version"), (*V2, "version")):
        if not shutil.which(command[0]) or subprocess.run(command, capture_output=True).returncode:
            pytest.exit(f"tests/compose need a Docker engine: `{' '.join(command)}` fails", 1)
    for compose in (V1, V2):
        run(*compose, "build", seconds=600, status=None)  # a download may fail once
        run(*compose, "build", seconds=600)
