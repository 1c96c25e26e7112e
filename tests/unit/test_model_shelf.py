from __future__ import annotations

import gc
import weakref
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
from kafka.structs import ConsumerGroupMetadata

from predictor import app
from predictor.model_feed import set_aside
from predictor.model_shelf import ModelShelf
from predictor.units import Unit
from stream.service import Stop, Stopped
from tests.unit.classifiers import model


def shelf_of(*versions: int) -> ModelShelf:
    shelf = ModelShelf()
    for version in versions:
        assert shelf.put(model(version))
    return shelf


def served(shelf: ModelShelf) -> tuple[int | None, ...]:
    return tuple(found.version if found else None for found in shelf.serve())


def test_before_the_first_model_nothing_serves() -> None:
    assert served(ModelShelf()) == (None, None)


def test_the_newest_model_serves_and_the_one_before_it_is_kept() -> None:
    shelf = shelf_of(1, 2, 5)
    assert served(shelf) == (5, 2)
    assert shelf.swaps == 2


def test_an_older_model_or_the_same_again_is_not_wanted() -> None:
    shelf = shelf_of(3)
    assert [shelf.wanted(version) for version in (2, 3, 4)] == [False, False, True]
    assert not shelf.put(model(2))
    assert not shelf.put(model(3))
    assert served(shelf) == (3, None)


def test_a_model_that_comes_while_a_unit_is_collected_predicts_it_and_an_older_one_does_not() -> (
    None
):
    shelf = shelf_of(1, 2)
    two, one = shelf.serve()
    assert shelf.newer(two, one) == (two, one)
    assert shelf.newer(None, None) == (None, None), "no record of the unit is for a model"
    shelf.put(model(3))
    assert shelf.newer(two, one) == shelf.serve()
    shelf.bar(3)
    three = model(3)
    assert shelf.newer(three, two) == (three, two), "the partitions were read for it"


def test_the_loop_looks_for_a_newer_model_once_a_unit_is_collected() -> None:
    predicted = []
    parts = "use_threads", "History", "AccuracyLog", "Units", "Statuses", "ModelFeed", "Summary"
    with patch.multiple(app, **{name: MagicMock() for name in parts}):

        def poll(version: int, *_: object) -> Unit:
            shelf: ModelShelf = app.ModelFeed.call_args.args[1]  # type: ignore[attr-defined] # mock
            shelf.put(model(version + 1))
            return Unit([], set(), 1, ConsumerGroupMetadata("g"))

        def predict(*given: Any) -> None:
            predicted.append(given[3].version if given[3] else None)
            if len(predicted) == 3:
                raise Stopped

        units = app.Units.return_value.__enter__.return_value  # type: ignore[attr-defined] # mock
        units.poll.side_effect = poll
        units.commit.return_value = False
        with patch.object(app, "predict_within", predict), pytest.raises(Stopped):
            app.main(MagicMock(), Stop())
    assert predicted == [None, 2, 3]


def test_it_says_why_no_model_serves() -> None:
    shelf = ModelShelf()
    assert shelf.why_none == "there is no model"
    shelf.count_refused("model 2: too slow")
    shelf.count_refused("model 5: not signed by a trusted key", 3)
    assert (shelf.refused, shelf.why_none) == (
        4,
        "no model serves; refused: 4, the last one: model 5: not signed by a trusted key",
    )
    shelf.bar(7)
    assert shelf.why_none.startswith("no model serves; barred: 1; refused: 4")


def test_a_refused_version_never_serves() -> None:
    shelf = shelf_of(1)
    shelf.refuse(2, 3)
    assert not shelf.wanted(2)
    assert not shelf.put(model(3))
    assert served(shelf) == (1, None)


def test_when_the_model_that_serves_is_barred_the_one_before_it_serves() -> None:
    shelf = shelf_of(1, 2)
    shelf.bar(2)
    assert served(shelf) == (1, None)
    assert shelf.barred == {2}
    assert not shelf.wanted(2)
    assert not shelf.search_needed


def test_when_the_model_before_is_barred_the_one_that_serves_stays() -> None:
    shelf = shelf_of(1, 2)
    shelf.bar(1)
    assert served(shelf) == (2, None)
    assert not shelf.search_needed


def test_when_the_last_model_at_hand_is_barred_an_older_one_has_to_be_found() -> None:
    shelf = shelf_of(2)
    shelf.bar(2)
    assert served(shelf) == (None, None)
    assert shelf.search_needed
    assert shelf.put(model(1))
    assert served(shelf) == (1, None)


def test_a_barred_version_that_comes_later_is_not_served_and_no_search_begins() -> None:
    shelf = shelf_of(1)
    shelf.bar(2)
    assert not shelf.put(model(2))
    assert served(shelf) == (1, None)
    assert not shelf.search_needed


def test_barred_before_the_first_model_it_leaves_the_search_alone() -> None:
    shelf = ModelShelf()
    shelf.bar(1)
    assert not shelf.search_needed


def test_what_is_set_aside_costs_the_garbage_collector_nothing_and_is_freed_by_the_next_time() -> (
    None
):
    class Cycle:
        """Something that only the garbage collector can free."""

        def __init__(self) -> None:
            self.itself = self

    cycle = Cycle()
    freed = weakref.ref(cycle)
    try:
        set_aside()
        assert not any(each is cycle for each in gc.get_objects())
        del cycle
        gc.collect()
        assert freed() is not None
        set_aside()
        assert freed() is None
    finally:
        gc.unfreeze()
