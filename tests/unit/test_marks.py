from __future__ import annotations

from predictor.marks import MARK_EVERY, Marks


def test_all_known_predictions_stand_from_the_mark_on_and_few_others() -> None:
    marks = Marks(100)
    # Each prediction is followed by an outcome, and every third record was rejected.
    stands = {offset: 100 + 2 * at for at, offset in enumerate(o for o in range(9_000) if o % 3)}
    for offset, at in stands.items():
        marks.add(offset, at)
    for expired_to in (0, 1, 2, 999, 1_000, 4_321, 8_999):
        marks.expire(expired_to)
        known = [at for offset, at in stands.items() if offset >= expired_to]
        found = marks.known_from(expired_to)
        assert found <= min(known, default=10**9)
        assert min(known, default=found) - found <= 2 * MARK_EVERY


def test_a_unit_that_was_not_committed_forgets_no_mark() -> None:
    marks = Marks(0)
    for offset in range(5_000):
        marks.add(offset, offset)
    assert marks.known_from(4_500) == 4_000
    assert marks.known_from(10) == 0


def test_without_predictions_it_is_where_the_topic_ended() -> None:
    assert Marks(77).known_from(0) == 77
    assert Marks(77).known_from(10**9) == 77


def test_a_replay_changes_nothing() -> None:
    marks = Marks(0)
    for offset in range(2_500):
        marks.add(offset, offset)
    for offset in range(2_500):
        marks.add(offset, 10_000 + offset)
    marks.add(2_500, 20_000)
    assert marks.known_from(2_500) == 2_000
