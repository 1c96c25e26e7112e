from __future__ import annotations

import json
from typing import Any

from modelgenerator.intake import Intake
from modelgenerator.trainer import Labelled
from stream.reasons import KINDS, Reasons


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def value(**fields: Any) -> bytes:
    return json.dumps({"id": 1, "features": [1.0], **fields}).encode()


def test_a_valid_labelled_record_is_returned_with_its_place() -> None:
    assert Intake().sort(2, 5, value(label=1)) == Labelled(2, 5, [1.0], 1)


def test_labels_as_strings_are_one_kind_of_invalid_records_with_an_example_place() -> None:
    intake = Intake()
    for offset in range(1_500):
        assert intake.sort(0, offset + 7, value(label=str(offset % 2))) is None
    assert str(intake) == (
        "1,500 records read: 0 labelled 0, 0 labelled 1, invalid 1,500, most often"
        " label: expected 0 or 1, got '0' (1,500 of them, first at partition 0 offset 7)"
    )


def test_a_misspelt_label_is_named_before_other_unknown_fields() -> None:
    intake = Intake()
    for offset in range(300):
        assert intake.sort(0, offset, value(time=offset, lable=1, zone=2, city=3)) is None
    assert str(intake).startswith(
        "300 records read: 0 labelled 0, 0 labelled 1, 300 without a label; unknown fields: lable,"
    )


def test_misspelt_features_are_named() -> None:
    intake = Intake()
    intake.sort(0, 0, b'{"id":1,"feature":[1.0],"label":1}')
    assert str(intake).endswith(
        "most often features: missing (1 of them, first at partition 0 offset 0);"
        " unknown fields: feature"
    )


def test_each_label_is_counted() -> None:
    intake = Intake()
    for offset in range(30):
        intake.sort(0, offset, value(label=int(offset < 10)))
    intake.sort(0, 30, value(label=None))
    assert str(intake) == "31 records read: 20 labelled 0, 10 labelled 1, 1 without a label"


def test_the_line_comes_after_10_seconds_and_then_once_a_minute() -> None:
    clock = Clock()
    intake, due = Intake(clock), {}
    for second in range(200):
        clock.now = second
        if line := intake.line("200 more are needed"):
            due[second] = line
    assert list(due) == [10, 70, 130, 190]
    assert due[10] == (
        "no model yet: 0 records read: 0 labelled 0, 0 labelled 1; 200 more are needed"
    )


def test_the_commonest_of_several_reasons_is_named() -> None:
    reasons = Reasons()
    for offset in range(3):
        reasons.add(f"features[{offset}]: expected a number or null, got str", f"offset {offset}")
    reasons.add("id: missing", "offset 9")
    assert str(reasons) == (
        "4, most often features[0]: expected a number or null, got str"
        " (3 of them, first at offset 0)"
    )


def test_however_many_kinds_of_reasons_there_are_few_are_kept() -> None:
    reasons = Reasons()
    for number in range(10 * KINDS):
        reasons.add("x" * number, "somewhere")
    assert reasons.total == 10 * KINDS
    assert len(reasons._counts) == KINDS
