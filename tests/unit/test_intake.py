from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from modelgenerator.intake import Intake
from modelgenerator.join import Join
from modelgenerator.training.recipes import recipes
from modelgenerator.training.trainer import Trainer
from modelgenerator.window import Labelled
from stream.layout import Layout
from stream.reasons import KINDS, Reasons

TYPED = Layout(3, ["age", "plan", "since"], ["number", "category", "time"], "yes", "no")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def new(
    clock: Callable[[], float] = lambda: 0.0,
    has_model: bool = False,
    layout: Layout | None = None,
) -> Intake:
    return Intake(Trainer(recipes(), 2000, 1000, layout), Join(2000), has_model, clock)


def value(**fields: Any) -> bytes:
    return json.dumps({"id": 1, "features": [1.0], **fields}).encode()


def test_a_valid_labelled_record_is_returned_with_its_place() -> None:
    assert new().sort(2, 5, value(label=1)) == Labelled(2, 5, [1.0], 1)


def test_labels_as_strings_are_one_kind_of_invalid_records_with_an_example_place() -> None:
    intake = new()
    for offset in range(1_500):
        assert intake.sort(0, offset + 7, value(label=str(offset % 2))) is None
    assert str(intake) == (
        "1,500 records read: 0 labelled 0, 0 labelled 1, invalid 1,500, most often"
        " label: expected 0 or 1, true or false; a text needs positive and negative in the schema,"
        " got '0' (1,500 of them, first at partition 0 offset 7)"
    )


def test_a_misspelt_label_is_named_before_other_unknown_fields() -> None:
    intake = new()
    for offset in range(300):
        assert intake.sort(0, offset, value(time=offset, lable=1, zone=2, city=3)) is None
    assert str(intake).startswith(
        "300 records read: 0 labelled 0, 0 labelled 1, 300 without a label; unknown fields: lable,"
    )


def test_misspelt_features_are_named() -> None:
    intake = new()
    intake.sort(0, 0, b'{"id":1,"feature":[1.0],"label":1}')
    assert str(intake).endswith(
        "most often features: missing (1 of them, first at partition 0 offset 0);"
        " unknown fields: feature"
    )


@pytest.mark.parametrize("odd", [b'"\xe9"', b"9" * 5_000], ids=["not UTF-8", "5,000 digits"])
def test_an_unknown_field_that_cannot_be_read_does_no_harm(odd: bytes) -> None:
    intake = new()
    assert intake.sort(0, 0, b'{"id":1,"features":[0.5],"odd":' + odd + b"}") is None
    assert str(intake).startswith("1 records read: 0 labelled 0, 0 labelled 1, 1 without a label")


def test_each_label_is_counted() -> None:
    intake = new()
    for offset in range(30):
        intake.sort(0, offset, value(label=int(offset < 10)))
    intake.sort(0, 30, value(label=None))
    assert str(intake) == "31 records read: 20 labelled 0, 10 labelled 1, 1 without a label"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def test_a_line_says_why_there_is_no_model_after_10_seconds_once_a_minute_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, due = Clock(), []
    with caplog.at_level(logging.INFO), new(clock) as intake:
        for second in range(200):
            clock.now = second
            before = len(caplog.records)
            intake.say_why_no_model()
            due += [second] * (len(caplog.records) - before)
    assert due == [10, 70, 130, 190]
    assert len(caplog.records) == 5
    assert said(caplog)[4] == (
        "no model yet: 0 records read: 0 labelled 0, 0 labelled 1; the first model needs 200"
        " labelled records of both labels: 200 more, one labelled 0, one labelled 1"
    )


def test_with_a_model_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), new(clock) as intake:
        intake.has_model = True
        clock.now = 100
        intake.say_why_no_model()
    assert not said(caplog)


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


def test_a_record_is_returned_when_its_label_comes_later() -> None:
    intake = new()
    assert intake.sort(2, 5, value(id=7), 1_000) is None
    joined = intake.match(2, 0, b'{"id":7,"label":1}')
    assert joined
    assert intake.labelled(joined, joined.value) == Labelled(2, 5, [1.0], 1)
    assert str(intake) == "1 records read: 0 labelled 0, 1 labelled 1"
    revised = intake.match(2, 1, b'{"id":7,"label":0,"revises":true}')
    assert revised
    assert intake.labelled(revised, None) == Labelled(2, 5, [], 0, revises=True)


def test_a_record_is_returned_at_once_when_its_label_was_there_before() -> None:
    intake = new()
    assert intake.match(0, 0, b'{"id":7,"label":0}') is None
    assert intake.sort(0, 5, value(id=7)) == Labelled(0, 5, [1.0], 0)


@pytest.mark.parametrize("read", [None, b"{", value(id=8), value(id=7, label=0)])
def test_what_was_read_again_and_is_not_the_record_is_not_trained_on(read: bytes | None) -> None:
    intake = new()
    intake.join.read(0, 9)
    joined = intake.match(0, 0, b'{"id":7,"source":[0,5],"label":1}')
    assert joined
    assert intake.labelled(joined, value(id=7)) == Labelled(0, 5, [1.0], 1)
    assert intake.labelled(joined, read) is None


def test_a_label_that_is_invalid_is_counted_with_its_reason() -> None:
    intake = new()
    assert intake.match(1, 7, b'{"id":7,"label":"yes"}') is None
    assert str(intake).endswith(
        "invalid 1, most often label topic: label: expected 0 or 1, true or false; a text needs"
        " positive and negative in the schema, got 'yes' (1 of them, first at partition 1 offset 7)"
    )


def test_the_line_names_the_records_that_wait_for_a_label(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock, trainer = Clock(), Trainer(recipes(), 2000, 1000)
    intake = Intake(trainer, Join(2000), False, clock, now=lambda: 1_040.0)
    for offset in range(1_300):
        intake.sort(0, offset, value(id=offset), 1_000_000 + offset)
    for offset in range(100):
        joined = intake.match(0, offset, b'{"id":%d,"label":0}' % (1_299 - offset))
        assert joined
        intake.labelled(joined, joined.value)
    clock.now = 10.0
    intake.say_why_no_model()
    assert caplog.messages == [
        "no model yet: 1,300 records read: 100 labelled 0, 0 labelled 1, 1,200 without a label;"
        " 1,200 records wait for a label, the oldest for 40 s; the first model needs 200 labelled"
        " records of both labels: 200 more, one labelled 0, one labelled 1"
    ]


def typed(**fields: Any) -> bytes:
    features = {"age": 39, "plan": "pro", "since": "1970-01-02"}
    return json.dumps({"id": 7, "features": features, **fields}).encode()


@pytest.mark.parametrize("label", ["yes", True, 1])
def test_a_record_is_laid_out_by_the_schema(label: Any) -> None:
    expected = Labelled(0, 5, [39.0, "pro", 86_400.0], 1)
    assert new(layout=TYPED).sort(0, 5, typed(label=label)) == expected


def test_a_text_on_the_label_topic_is_read_by_the_schema() -> None:
    intake = new(layout=TYPED)
    intake.sort(0, 5, typed())
    joined = intake.match(0, 0, b'{"id":7,"label":"yes"}')
    assert joined
    assert intake.labelled(joined, joined.value) == Labelled(0, 5, [39.0, "pro", 86_400.0], 1)
    assert intake.match(0, 1, b'{"id":7,"label":"maybe"}') is None
    assert str(intake) == (
        "1 records read: 0 labelled 0, 1 labelled 1, invalid 1, most often label topic: label:"
        " expected 0 or 1, true or false, 'no' or 'yes', got 'maybe'"
        " (1 of them, first at partition 0 offset 1)"
    )


def test_texts_without_a_schema_are_invalid_records_with_an_example_place() -> None:
    intake = new()
    for offset in range(1_500):
        assert intake.sort(0, offset + 7, value(features=["pro"], label=1)) is None
    assert str(intake).endswith(
        "invalid 1,500, most often features[0]: expected a number, got 'pro'"
        " (1,500 of them, first at partition 0 offset 7)"
    )


def test_records_that_do_not_fit_the_layout_get_one_warning_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = new(has_model=True, layout=Layout(3))
    for offset in range(50):
        assert intake.sort(0, offset, value(label=1)) is None
    assert caplog.messages == [
        "partition=0 offset=0: features: expected 3 numbers, got 1; such records are not trained"
        " on, 1 so far"
    ]


def test_a_record_that_waited_for_its_label_is_read_by_the_layout_of_the_day() -> None:
    trainer = Trainer(recipes(), 2000, 1000, TYPED)
    intake = Intake(trainer, Join(2000), has_model=True)
    intake.sort(0, 5, typed())
    joined = intake.match(0, 0, b'{"id":7,"label":"no"}')
    assert joined
    trainer.follow(Layout(3, ["age", "tariff", "since"], TYPED.types, "yes", "no"))
    assert intake.labelled(joined, joined.value) is None
