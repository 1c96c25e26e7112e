from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelgenerator.training.archive import Archive, Frozen, VotePlace
from modelgenerator.training.comeback import Comeback
from stream.models import Former

RNG = np.random.default_rng(0)
MATRIX = RNG.random((100, 20))


class Column:
    """Says 1 where a column is above one half."""

    def __init__(self, column: int) -> None:
        self.column = column

    def predict(self, features: Any) -> Any:
        return features[:, self.column] > 0.5


def frozen(column: int, value: float = 1.0) -> Frozen:
    return Frozen(f"column {column}", Column(column), value)


def labels(column: int) -> Any:
    """Labels that this column's model predicts right."""
    return (MATRIX[:, column] > 0.5).astype(np.int64)


def archive_of(*columns: int, lasted: int = 3_000) -> Archive:
    found, at = Archive(), 0
    for column in columns:
        for passed in range(100, lasted + 1, 100):
            found.remember(at + passed, frozen(column))
        at += lasted
        found.keep(at, at - lasted, MATRIX)
    return found


WRONG = np.zeros(100, dtype=np.bool_)


def best(archive: Archive, column: int, right: Any = WRONG) -> str | None:
    found = archive.better(right, MATRIX, labels(column), 0.5)
    return found.recipe if found else None


def test_the_model_of_a_concept_that_lasted_is_found_when_it_comes_again() -> None:
    archive = archive_of(0, 1)
    assert (best(archive, 0), best(archive, 1)) == ("column 0", "column 1")
    assert best(archive, 2) is None


def test_a_concept_that_lasted_less_than_3000_records_is_not_kept() -> None:
    assert len(archive_of(0, lasted=2_900)) == 0


def test_the_model_is_taken_as_it_was_600_records_before_the_alarm() -> None:
    archive = Archive()
    for at in range(100, 5_001, 100):
        archive.remember(at, frozen(0 if at <= 4_400 else 1))
    archive.keep(5_000, 0, MATRIX)
    assert (best(archive, 0), best(archive, 1)) == ("column 0", None)


def test_ten_models_are_kept_and_the_oldest_gives_way() -> None:
    archive = archive_of(*range(12))
    assert len(archive) == 10
    assert [best(archive, column) for column in (0, 1, 2)] == [None, None, "column 2"]


def test_a_model_that_agrees_with_an_older_one_replaces_it() -> None:
    assert len(archive_of(0, 1, 0)) == 2


def test_what_was_published_of_an_archive_is_named_where_it_stands() -> None:
    archive = Archive()
    archive.restore([frozen(0)._replace(place=VotePlace(7, 40)), frozen(1)])
    assert archive.formers == [Former(version=7, after=40, recipe="column 0", accuracy=1.0)]


def test_a_model_that_replaces_one_that_agrees_keeps_its_place_if_it_has_none_itself() -> None:
    archive = Archive()
    archive.restore([frozen(0)._replace(place=VotePlace(7, 40))])
    archive.remember(100, frozen(0))
    archive.keep(3_000, 0, MATRIX)
    assert [former.version for former in archive.formers] == [7]
    archive.remember(3_100, frozen(0)._replace(place=VotePlace(9, 60)))
    archive.keep(6_100, 3_000, MATRIX)
    assert [former.version for former in archive.formers] == [9]


@pytest.mark.parametrize(("wrong", "expected"), [(3, None), (15, "column 0")])
def test_a_model_must_be_better_than_the_vote_by_three_standard_errors(
    wrong: int, expected: str | None
) -> None:
    right = np.arange(100) >= wrong
    assert best(archive_of(0), 0, right) == expected


@pytest.mark.parametrize(("turned", "expected"), [(4, "column 0"), (12, None)])
def test_a_model_must_be_nearly_as_good_as_it_was(turned: int, expected: str | None) -> None:
    given = labels(0)
    given[:turned] ^= 1
    found = archive_of(0).better(WRONG, MATRIX, given, 0.5)
    assert (found.recipe if found else None) == expected


def block(comeback: Comeback, concept: int, vote_right: bool) -> str:
    """Hand 100 records of a concept over; return what is said of them."""
    given = labels(concept)
    votes = (given if vote_right else 1 - given).astype(np.float64)
    comeback.take(votes, MATRIX, given, 0.5)
    return comeback.look(frozen(concept), MATRIX, given, 0.5)


def after_two_concepts() -> Comeback:
    """Return what has seen the concepts 0 and 1, and an alarm that ended the second."""
    comeback = Comeback()
    for concept in (0, 1):
        for _ in range(40):
            assert block(comeback, concept, vote_right=True) == ""
        comeback.end_concept(MATRIX)
    return comeback


def test_a_model_comes_back_after_an_alarm_and_hands_back_when_the_vote_is_better() -> None:
    comeback = after_two_concepts()
    assert block(comeback, 0, vote_right=False) == (
        "archive (a former column 0 is right on 1.00 of the last 100 records, the vote on 0.00)"
    )
    assert comeback.model
    assert comeback.model.recipe == "column 0"
    assert block(comeback, 0, vote_right=False) == ""
    said = [block(comeback, 2, vote_right=True) for _ in range(5)]
    assert "".join(said).startswith("archive (the vote is right on 0.")
    assert comeback.model is None


def test_a_model_hands_back_at_the_next_alarm() -> None:
    comeback = after_two_concepts()
    block(comeback, 0, vote_right=False)
    comeback.end_concept(MATRIX)
    assert comeback.model is None


def test_no_model_comes_back_later_than_500_records_after_an_alarm() -> None:
    comeback = after_two_concepts()
    for _ in range(5):
        block(comeback, 2, vote_right=False)
    assert block(comeback, 0, vote_right=False) == ""
    assert comeback.model is None
