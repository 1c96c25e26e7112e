from __future__ import annotations

from typing import Any

import pytest

from datagenerator import late_labels
from datagenerator.late_labels import LateLabels
from datagenerator.settings import LONGEST_RANDOM, Settings
from stream.records import Label
from stream.settings import SettingsError, read


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def labels(clock: Clock | None = None, **settings: Any) -> LateLabels:
    return LateLabels(Settings.model_validate(settings), clock or Clock())


def filled(found: LateLabels, count: int, sent: float | None = None) -> LateLabels:
    for number in range(count):
        found.add(number, Label(number % 2, id=number), number % 3, sent)
    return found


def due(found: LateLabels, newest: int) -> list[Any]:
    return [label.id for _, label, _ in found.due(newest)]


def test_a_label_is_due_when_so_many_records_followed() -> None:
    found = filled(labels(label_delay="records:10"), 5)
    assert due(found, 9) == []
    assert list(found.due(11)) == [(0, Label(0, id=0), 0), (1, Label(1, id=1), 1)]
    assert [label.id for _, label, _ in found.rest()] == [2, 3, 4]
    assert len(found) == 0


def test_a_label_is_due_so_many_seconds_after_its_record() -> None:
    clock = Clock()
    found = filled(labels(clock, label_delay="2.5"), 3)
    clock.now += 1
    found.add(3, Label(1, id=3), 0)
    clock.now += 1.5
    assert due(found, 3) == [0, 1, 2]
    assert [label.id for _, label, _ in found.rest()] == []
    clock.now += 1
    assert [label.id for _, label, _ in found.rest()] == [3]


def test_a_random_delay_is_the_same_after_a_restart_and_has_its_mean_and_its_end() -> None:
    clock = Clock()
    found = filled(labels(clock, label_delay="exponential:600"), 2_000)
    again = filled(labels(clock, label_delay="exponential:600"), 2_000)
    clock.now += 600
    early = due(found, 0)
    assert early == due(again, 0) != sorted(early)
    assert 0.60 < len(early) / 2_000 < 0.66  # 1 - 1/e
    clock.now += (LONGEST_RANDOM - 1) * 600
    assert len(due(found, 0)) + len(early) == 2_000
    other = filled(labels(clock, label_delay="exponential:600", seed=2), 2_000, sent=1_000.0)
    assert due(other, 0)[: len(early)] != early


def test_a_label_is_due_as_far_after_its_record_as_the_file_says_at_its_speed() -> None:
    clock = Clock()
    found = labels(clock, time="t", label_time="known", speed=60)
    for number, delay in enumerate([120.0, 60.0, -3600.0, 0.0]):
        found.add(number, Label(1, id=number), 0, delay=delay)
    found.add(4, Label(1, id=4), 0, sent=clock.now - 1, delay=120.0)  # known again after a restart
    assert due(found, 4) == [2, 3]
    clock.now += 1
    assert due(found, 4) == [1, 4]
    clock.now += 1
    assert due(found, 4) == [0]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "LABEL_TIME=known: it needs TIME, the column of the times of records"),
        (
            {"TIME": "t", "LABEL_DELAY": "5"},
            "LABEL_TIME and LABEL_DELAY both say when labels come; leave one of them out",
        ),
    ],
)
def test_the_time_of_labels_needs_that_of_records_and_allows_no_other_delay(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], error: str
) -> None:
    for name, value in {"LABEL_TIME": "known", **given}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        read(Settings)
    assert str(raised.value) == error


def test_the_share_of_records_with_a_label_is_told_by_the_seed_and_the_number() -> None:
    found = [labels(label_share=0.3, seed=seed) for seed in (1, 1, 2)]
    chosen = [[n for n in range(5_000) if each.has_label(n)] for each in found]
    assert chosen[0] == chosen[1] != chosen[2]
    assert 0.28 < len(chosen[0]) / 5_000 < 0.32
    assert all(labels().has_label(number) for number in range(100))


def test_beyond_the_most_labels_the_one_that_is_due_first_is_sent_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_labels, "MOST_WAITING", 3)
    found = filled(labels(label_delay="3600"), 5)
    assert due(found, 4) == [0, 1]
    assert len(found) == 3


@pytest.mark.parametrize("wrong", ["soon", "-1", "records:1.5", "records:1000001", "exponential:"])
def test_a_wrong_delay_ends_the_start_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("LABEL_DELAY", wrong)
    with pytest.raises(SettingsError) as error:
        read(Settings)
    assert str(error.value) == (
        f"LABEL_DELAY={wrong}: allowed are seconds (5), exponential:600 with the mean in seconds,"
        " or records:1000, at most 1000000 records"
    )
