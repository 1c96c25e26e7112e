from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from tests.services import ROOT


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [
        ("run", "local.run"),
        ("run PORT=9093", "local.run --port 9093"),
        ("kafka PORT=9093", "local.kafka --port 9093"),
        ("topic", "local.topic"),
        (
            "topic NAME=queueing.data FROM=end COUNT=5",
            "local.topic queueing.data --from end --count 5",
        ),
    ],
)
def test_the_variables_of_a_target_are_the_arguments_of_its_command(
    typed: str, arguments: str
) -> None:
    command = ("make", "--dry-run", "--old-file=.venv/stamp", *typed.split())
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert shlex.split(done.stdout.replace("\\\n", "")) == [
        "exec",
        ".venv/bin/python",
        "-m",
        *arguments.split(),
    ]
