"""The commands of the README's walk-through, typed into a terminal as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pexpect
import pytest

from tests.compose.stack import APPS, NETWORK, clean_engine, exit_statuses, run, surroundings
from tests.services import ROOT

SECTION = re.search(r"## With Docker\n(.*?)\n### ", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = re.findall(r"^    (docker.*)$", SECTION[1], re.MULTILINE) if SECTION else []
START_SECONDS = 180
STOP_SECONDS = 30


def typed(command: str, folder: Path = ROOT) -> pexpect.spawn[str]:
    """Type a command into a terminal of its own."""
    return pexpect.spawn(
        command,
        cwd=folder,
        env=surroundings(),
        encoding="utf-8",
        timeout=START_SECONDS,
        dimensions=(50, 250),
    )


def ended(terminal: pexpect.spawn[str], status: int | None = 0) -> str:
    """Wait until the command in a terminal has ended, and return what it wrote since."""
    terminal.expect(pexpect.EOF)
    terminal.wait()
    terminal.close()
    written = str(terminal.before)
    assert status is None or terminal.exitstatus == status, written
    return written


@pytest.mark.parametrize("compose", ["docker-compose", "docker compose"])
def test_the_commands_of_the_readme_do_what_it_says_one_after_the_other(
    compose: str, tmp_path: Path
) -> None:
    network, kafka_up, up, consume, containers, copy, verify, down, stop = (
        command.replace("docker-compose ", f"{compose} ") for command in COMMANDS
    )
    with clean_engine():
        run("docker", "network", "rm", NETWORK)
        ended(typed(network))
        ended(typed(kafka_up))

        services = typed(up)
        services.expect(r"predictor: n=\d{2,} accuracy=0\.\d+ model=\d+")

        console = typed(consume)
        console.expect(r'\{"id":\d+,"prediction":[01],.*"source":\[0,\d+\],"time":\d+\}')
        console.sendintr()
        ended(console, status=None)

        listed = ended(typed(containers))
        predictor = re.search(r"^([0-9a-f]{12}) .*predictor", listed, re.MULTILINE)
        assert predictor, listed
        ended(typed(copy.replace("<containerID>", predictor[1]), tmp_path))
        first = (tmp_path / "predictor.log").read_text().splitlines()[0]
        assert re.fullmatch(r"\S+Z partition=0 n=10 accuracy=\d\.\d{6} model=\d+", first)
        assert "verified: " in ended(typed(verify))

        services.sendintr()
        services.expect(pexpect.EOF, timeout=STOP_SECONDS)
        assert exit_statuses() == dict.fromkeys(APPS, 0)
        ended(typed(down))
        ended(typed(stop))
