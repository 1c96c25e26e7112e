from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation, NotFoundError, change, environment, find
from tests.services import ROOT, Services


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_what_a_deliberate_fault_breaks_and_the_test_that_notices_it_are_there(
    mutation: Mutation,
) -> None:
    for target in mutation.changes:
        find(target)
    file, _, test = mutation.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("target", ["predictor.gone:f", "predictor.tally:gone", "kafka:Gone.f"])
def test_a_fault_whose_function_is_gone_says_so(target: str) -> None:
    with pytest.raises(NotFoundError, match=f"^{target} is gone .*tests/mutations.py"):
        change(target, lambda function: function)


def test_a_fault_that_cannot_be_made_ends_the_service_with_one_line(tmp_path: Path) -> None:
    predictor = Services({}, tmp_path)("predictor", **environment("none"))
    assert predictor.wait(60) == 1
    assert predictor.log() == "there is no deliberate fault 'none'\n"
