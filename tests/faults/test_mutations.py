"""The tests have teeth: each deliberate fault of the code is noticed by the test named for it."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.mutations import MUTATIONS, Mutation, environment
from tests.services import Services

SECONDS = 1800.0


def run_tests(start: Services, *tests: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the broker of this run."""
    alone = ("-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    return start.python("-m", "pytest", *alone, *tests, seconds=SECONDS, env=env)


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_deliberate_fault_is_noticed(mutation: Mutation, start: Services) -> None:
    found = run_tests(start, mutation.test, **environment(mutation.name))
    said = "\n".join(line for line in found.stdout.splitlines() if line.startswith("E "))
    assert found.returncode == 1, f"{mutation.test} did not fail\n{found.stdout[-3000:]}"
    assert re.search(mutation.finding, said), f"another failure than looked for\n{said}"


def test_the_same_tests_pass_where_nothing_is_changed(start: Services) -> None:
    found = run_tests(start, *sorted({mutation.test for mutation in MUTATIONS.values()}))
    assert found.returncode == 0, found.stdout[-5000:]
