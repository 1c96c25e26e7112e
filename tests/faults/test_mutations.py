"""The tests have teeth: each deliberate fault of the code is noticed by the test named for it.

Without the fault, these tests pass in `make test` and `make test-faults`.
"""

from __future__ import annotations

import re

import pytest

from tests.mutations import MUTATIONS, Mutation, environment
from tests.services import Services

SECONDS = 1800.0


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_a_deliberate_fault_is_noticed(mutation: Mutation, start: Services) -> None:
    alone = ("-p", "no:cacheprovider", "-p", "no:xdist")
    command = ("-m", "pytest", *alone, mutation.test)
    found = start.python(*command, seconds=SECONDS, env=environment(mutation.name))
    said = "\n".join(line for line in found.stdout.splitlines() if line.startswith("E "))
    assert found.returncode == 1, f"{mutation.test} did not fail\n{found.stdout[-3000:]}"
    assert re.search(mutation.finding, said), f"another failure than looked for\n{said}"
