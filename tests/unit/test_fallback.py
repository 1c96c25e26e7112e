from __future__ import annotations

import pytest

from predictor.fallback import on_the_topic
from predictor.tally import Tally

COUNTED = Tally(tp=60, fn=40, model=3, incarnation="this")


@pytest.mark.parametrize(
    ("bounds", "offset", "goes_on_at", "never_seen"),
    [
        ((0, 100), 100, 100, 0),
        ((0, 150), 100, 100, 0),
        ((100, 150), 100, 100, 0),
        ((130, 150), 100, 130, 30),
        ((150, 150), 100, 150, 50),
        ((0, 90), 100, 90, 0),
    ],
)
def test_on_the_same_topic_no_record_comes_twice_and_those_gone_are_counted(
    bounds: tuple[int, int], offset: int, goes_on_at: int, never_seen: int
) -> None:
    position = on_the_topic(bounds, offset, COUNTED, "this")
    assert (position.offset, position.never_seen) == (goes_on_at, never_seen)
    assert position.tally == COUNTED


def test_a_topic_that_lost_its_end_is_said_to_have() -> None:
    assert "its broker lost records" in str(on_the_topic((0, 90), 100, COUNTED, "this"))


@pytest.mark.parametrize("bounds", [(0, 50), (0, 500), (20, 500), (130, 500)])
def test_a_topic_made_again_is_read_from_its_beginning_and_counts_go_on(
    bounds: tuple[int, int],
) -> None:
    position = on_the_topic(bounds, 100, COUNTED, "another")
    assert (position.offset, position.never_seen) == (bounds[0], bounds[0])
    assert position.tally.n == COUNTED.n
    assert position.tally.incarnation == "another"
    assert str(position).startswith("the topic was made again; going on at")


@pytest.mark.parametrize(("before", "now"), [(None, "this"), ("this", None), (None, None)])
def test_without_an_id_only_an_end_before_what_was_predicted_tells_a_topic_made_again(
    before: str | None, now: str | None
) -> None:
    tally = Tally(incarnation=before)
    assert on_the_topic((0, 500), 100, tally, now).offset == 100
    assert on_the_topic((0, 50), 100, tally, now).offset == 0
