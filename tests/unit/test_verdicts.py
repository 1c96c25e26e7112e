from __future__ import annotations

import argparse

import pytest

from modelgenerator.verdicts import NotServed, Verdicts, add_wait_options, verdict
from stream.records import Status


def test_a_status_answers_for_its_own_version_or_for_one_that_it_replaced() -> None:
    assert verdict(Status(8, "serving", {"0": 5, "12": 7}, None, "a"), 8) == (
        "model 8 is serving: a predicts with it since 0@5 12@7; what others do:"
        " python -m modelgenerator.models"
    )
    assert verdict(Status(9, "serving", {"0": 5}), 8) == (
        "model 8 was replaced by model 9 before it predicted"
    )
    for version, status in ((7, "serving"), (7, "refused"), (9, "refused"), (9, "barred")):
        assert verdict(Status(version, status, {}, "for a test"), 8) is None


def test_a_model_that_is_not_served_holds_no_pin_and_that_is_said() -> None:
    with pytest.raises(NotServed, match=r"8 was barred by a: it raises; it holds no pin, and"):
        verdict(Status(8, "barred", {}, "it raises", "a"), 8)
    with pytest.raises(NotServed, match=r"goes on, unless another predictor serves it$"):
        verdict(Status(8, "refused", {}, "no module", "a"), 8)


def test_a_barred_model_is_out_of_service_and_a_refused_one_that_nobody_serves() -> None:
    said = {1: ["refused"], 2: ["refused", "serving"], 3: ["serving", "refused"], 4: ["serving"]}
    said |= {5: ["barred"], 6: ["serving", "barred", "serving"], 7: ["something new"]}
    statuses = [Status(version, each) for version, all_ in said.items() for each in all_]
    verdicts = Verdicts(statuses)
    assert verdicts.out_of_service() == {1, 5, 6}
    verdicts.forget(5)
    assert verdicts.out_of_service() == {5, 6}
    verdicts.add([Status(4, "barred"), Status(2**53, "serving")])  # nobody can name a version after
    assert (verdicts.out_of_service(), verdicts.newest) == ({4, 5, 6}, 7)


def test_how_long_a_command_waits_is_a_number_of_seconds() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_wait_options(parser)
    given: tuple[list[str], ...] = ([], ["--wait", "2.5"], ["--no-wait"], ["--wait", "0"])
    assert [parser.parse_args(each).wait for each in given] == [30.0, 2.5, 0.0, 0.0]
    for wrong in ("-1", "inf", "nan", "soon"):
        with pytest.raises(argparse.ArgumentError, match="expected a number of seconds"):
            parser.parse_args([f"--wait={wrong}"])
