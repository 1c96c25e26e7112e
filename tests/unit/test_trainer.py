from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import pytest

from modelgenerator.trainer import (
    Accuracy,
    Publication,
    Recipe,
    Trainer,
    clearly_better,
    recipes,
)
from modelgenerator.window import Labelled

Rule = Callable[[list[float]], bool]


def linear(features: list[float]) -> bool:
    return features[0] + features[1] > 1


def exclusive(features: list[float]) -> bool:
    """No line separates these."""
    return (features[0] > 0.5) != (features[1] > 0.5)


def stream(rule: Rule, partitions: int = 1, start: int = 0, width: int = 3) -> Iterator[Labelled]:
    rng = random.Random(start)
    for id in range(start, 10**9):
        features = [rng.random() for _ in range(width)]
        yield Labelled(id % partitions, id // partitions, [*features], int(rule(features)))


def trainer(window: int = 2000, retrain_every: int = 1000) -> Trainer:
    return Trainer(recipes(window), window, retrain_every)


def observe(trainer: Trainer, records: Iterable[Labelled], count: int) -> list[Publication]:
    return list(trainer.observe(islice(records, count)))


def told(publications: list[Publication]) -> list[tuple[str, str, int, dict[str, int]]]:
    return [(p.recipe, p.reason, p.trained_on, p.trained_to) for p in publications]


def test_the_first_model_comes_with_the_200th_record_and_not_before() -> None:
    records, one = stream(linear), trainer()
    assert observe(one, records, 199) == []
    assert told(observe(one, records, 1)) == [("linear_2000", "first", 200, {"0": 199})]


def test_a_stream_of_569_records_gets_three_models() -> None:
    found = observe(trainer(), stream(linear), 569)
    assert [p.trained_on for p in found] == [200, 300, 450]
    assert [p.reason for p in found] == ["first", "cadence", "cadence"]


def test_steps_grow_up_to_the_setting() -> None:
    found = observe(trainer(window=10_000, retrain_every=400), stream(linear), 3_000)
    seen = [p.trained_on for p in found]
    assert seen == [200, 300, 450, 675, 1012, 1412, 1812, 2212, 2612]


def test_a_model_is_trained_on_the_window_alone() -> None:
    found = observe(trainer(window=300, retrain_every=100), stream(linear), 800)
    assert {p.trained_on for p in found[1:]} == {300}
    # A rule turned around is learnt as soon as the window holds nothing else.
    one = trainer(window=300, retrain_every=100)
    observe(one, stream(linear), 800)
    last = observe(one, stream(lambda f: not linear(f), start=800), 600)[-1]
    assert last.model.predict([[0.9, 0.9, 0.5]]).tolist() == [0]


def test_what_is_published_depends_on_the_records_and_not_on_the_batches() -> None:
    whole = observe(trainer(), stream(exclusive), 2_500)
    one, records, pieces = trainer(), stream(exclusive), []
    for size in [1, 7, 500, 192, 300, 999, 501]:
        pieces += observe(one, records, size)
    assert told(pieces) == told(whole)
    assert [p.accuracies for p in pieces] == [p.accuracies for p in whole]
    matrix = np.random.default_rng(0).random((50, 3))
    for a, b in zip(pieces, whole, strict=True):
        assert (a.model.predict_proba(matrix) == b.model.predict_proba(matrix)).all()


def test_trained_to_is_the_highest_offset_trained_on_in_each_partition() -> None:
    rng, given = random.Random(5), []
    for record in islice(stream(linear), 1_100):
        given.append(record._replace(partition=rng.choice([0, 0, 0, 1])))
    # Offsets with gaps, as transactions and rejected records leave them; 3 ends early.
    given = [r._replace(offset=3 * r.offset) for r in given]
    given[0] = given[0]._replace(partition=3)
    one = trainer(window=250, retrain_every=100)
    seen: list[Labelled] = []
    published = []
    for record in given:
        seen.append(record)
        published += [(p, seen[-250:]) for p in one.observe([record])]
    assert len(published) > 5
    for publication, window in published:
        highest: dict[str, int] = {}
        for record in window:
            highest[str(record.partition)] = record.offset
        assert publication.trained_to == highest
        assert publication.trained_on == len(window)
    assert published[0][0].trained_to["3"] == 0
    assert "3" not in published[-1][0].trained_to


def test_a_record_that_scored_a_model_is_above_what_that_model_was_trained_to() -> None:
    scored: list[float] = []

    class Spy:
        """Knows the id that each record carries as its first feature."""

        def fit(self, features: np.ndarray, labels: np.ndarray) -> Spy:
            self.trained_to = features[:, 0].max()
            return self

        def predict(self, features: np.ndarray) -> np.ndarray:
            scored.extend(features[:, 0])
            assert features[:, 0].min() > self.trained_to
            return np.ones(len(features))

    one = Trainer([Recipe("spy", lambda _: Spy())], 400, 300)
    records = [Labelled(0, i, [float(i)], i % 2) for i in range(1_500)]
    assert len(list(one.observe(records))) > 3
    # Each once, none left out, but for those that wait for the next look.
    assert scored == list(range(200, 200 + len(scored)))
    assert len(scored) > 1_200


def test_accuracy_is_test_then_train() -> None:
    rng = random.Random(1)
    noise = [r._replace(label=rng.randint(0, 1)) for r in islice(stream(linear), 3_000)]
    last = list(trainer().observe(noise))[-1]
    for accuracy in last.accuracies.values():  # on its own training records it would be far higher
        assert accuracy is not None
        assert accuracy == pytest.approx(0.5, abs=0.07)


def test_a_clearly_better_challenger_is_published_at_once_as_champion() -> None:
    found = observe(trainer(), stream(exclusive), 3_000)
    assert [p.recipe for p in found[:4]] == ["linear_2000"] * 4
    change = next(p for p in found if p.reason == "champion")
    # 200 records before there was a model, then the first look that has 500 scored ones.
    assert (change.recipe, change.trained_on) == ("hgb_2000", 775)
    assert {p.recipe for p in found[found.index(change) :]} == {"hgb_2000"}


def test_the_champion_stays_when_the_challenger_is_as_good() -> None:
    found = observe(trainer(), stream(linear), 4_000)
    assert {p.recipe for p in found} == {"linear_2000"}


def scored(right: int, of: int) -> Accuracy:
    accuracy = Accuracy()
    accuracy.add([True] * right + [False] * (of - right))
    return accuracy


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [
        (scored(800, 1000), scored(809, 1000), "champion"),
        (scored(800, 1000), scored(811, 1000), "challenger"),
        (scored(100, 499), scored(499, 499), "champion"),
        (scored(100, 500), scored(500, 500), "challenger"),
        (scored(900, 1000), scored(100, 1000), "champion"),
        (scored(0, 0), scored(0, 0), "champion"),
    ],
)
def test_a_challenger_needs_a_margin_and_enough_scored_records(
    champion: Accuracy, challenger: Accuracy, expected: str
) -> None:
    assert clearly_better("champion", {"champion": champion, "challenger": challenger}) == expected


def test_accuracy_is_that_of_the_latest_records() -> None:
    accuracy = Accuracy()
    accuracy.add([False] * 5_000)
    accuracy.add([True] * 250)
    assert (accuracy.value, accuracy.scored) == (0.25, 1000)


def test_there_is_no_accuracy_before_the_first_scored_record() -> None:
    assert Accuracy().value is None


def test_a_single_label_waits_for_the_other_one() -> None:
    one, records = trainer(), stream(lambda _: True)
    assert observe(one, records, 1_000) == []
    other = Labelled(0, 5_000, [0.0, 0.0, 0.0], 0)
    assert told(list(one.observe([other]))) == [("linear_2000", "first", 1001, {"0": 5_000})]


def test_a_window_that_comes_to_hold_a_single_label_keeps_the_model() -> None:
    one = trainer(window=200, retrain_every=100)
    observe(one, stream(linear), 400)
    assert [p.trained_to["0"] for p in observe(one, stream(lambda _: True, start=400), 2_000)] == [
        499  # the last window that held both
    ]


def test_columns_without_any_value_are_trained_on_and_predicted() -> None:
    records = [r._replace(features=[None, *r.features]) for r in islice(stream(linear), 250)]
    one = trainer()
    (found,) = one.observe(records)
    assert found.model.predict([[np.nan, 0.9, 0.9, 0.5], [7.0, 0.1, 0.1, 0.5]]).tolist() == [1, 0]


def test_missing_values_are_trained_on_by_both_recipes() -> None:
    rng, records = random.Random(2), []
    for record in islice(stream(exclusive), 1_500):
        hidden = [None if rng.random() < 0.2 else f for f in record.features]
        records.append(record._replace(features=hidden))
    last = list(trainer().observe(records))[-1]
    assert last.recipe == "hgb_2000"
    accuracy = last.accuracies[last.recipe]
    assert accuracy is not None
    assert accuracy > 0.7


@pytest.mark.parametrize("value", [0.0, 1.0, 3.4e38, -3.4e38, 1e-300])
def test_constant_and_extreme_columns_are_trained_on_without_a_warning(value: float) -> None:
    records = [r._replace(features=[value, *r.features]) for r in islice(stream(linear), 400)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(trainer().observe(records))) == 2


def test_wildly_scaled_columns_do_not_warn() -> None:
    rng = random.Random(3)
    records = [
        r._replace(features=[rng.uniform(-3.4e38, 3.4e38), *r.features])
        for r in islice(stream(exclusive), 400)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(trainer().observe(records))) == 2


def test_a_stray_first_record_does_not_decide_the_width(caplog: pytest.LogCaptureFixture) -> None:
    records = stream(linear)
    one = trainer()
    assert list(one.observe([Labelled(1, 0, [1.0] * 9, 1)])) == []
    assert observe(one, records, 199) == []  # 200 records, but only 199 that can be trained on
    (found,) = observe(one, records, 1)
    assert (found.trained_on, found.trained_to) == (200, {"0": 199})
    assert found.model.n_features_in_ == 3
    assert one.layout.width == 3
    assert caplog.messages == [
        "1 of the first 200 labelled records have another number of features than 3; they are not"
        " trained on"
    ]


def test_a_suspended_recipe_is_replaced_at_the_next_comparison_and_comes_back_as_challenger() -> (
    None
):
    records, one = stream(linear), trainer(window=500, retrain_every=200)
    assert {p.recipe for p in observe(one, records, 1_000)} == {"linear_500"}
    one.suspend("linear_500")
    found = observe(one, records, 100)
    assert [(p.recipe, p.reason) for p in found] == [("hgb_500", "champion")]
    later = observe(one, records, 1_800)
    assert {(p.recipe, p.reason) for p in later} == {("hgb_500", "cadence")}
    # Better here by far, it is chosen again as soon as it may be.
    back = observe(one, records, 400)
    assert [(p.recipe, p.reason) for p in back if p.reason == "champion"] == [
        ("linear_500", "champion")
    ]


def test_if_every_recipe_is_suspended_the_first_is_published_at_the_usual_pace() -> None:
    records, one = stream(linear), trainer(window=500, retrain_every=200)
    observe(one, records, 1_000)
    one.suspend("linear_500")
    one.suspend("hgb_500")
    found = observe(one, records, 1_000)
    assert {(p.recipe, p.reason) for p in found} == {("linear_500", "cadence")}
    assert len(found) == 5


def test_the_first_model_needs_200_labelled_records_of_both_labels() -> None:
    records, one = stream(linear), trainer()
    start = "the first model needs 200 labelled records of both labels"
    assert one.needs == f"{start}: 200 more, one labelled 0, one labelled 1"
    observe(one, records, 143)
    assert one.needs == f"{start}: 57 more"
    observe(one, records, 57)
    assert one.needs == f"{start}, which are there"


def test_records_of_one_label_alone_need_one_of_the_other() -> None:
    one = trainer()
    observe(one, stream(lambda _: True), 1_500)
    assert one.needs.endswith("of both labels: one labelled 0")


def test_a_second_label_of_a_record_in_the_window_changes_nothing() -> None:
    records, one = list(islice(stream(linear), 200)), trainer()
    doubles = [r._replace(label=1 - r.label) for r in records[:50]]
    assert observe(one, [*records[:199], *doubles], 249) == []
    (found,) = observe(one, [records[199]], 1)
    assert found.trained_on == 200
    (other,) = observe(trainer(), records, 200)
    assert found.model[-1].coef_.tolist() == other.model[-1].coef_.tolist()


def test_a_revised_label_is_trained_on_while_its_record_is_in_the_window() -> None:
    records, one = list(islice(stream(linear), 200)), trainer()
    wrong = [r._replace(label=1 - r.label) if r.offset < 50 else r for r in records]
    right = [r._replace(revises=True) for r in records[:50]]
    gone = Labelled(0, 10_000, [0.5] * 3, 1, revises=True)
    assert observe(one, [*wrong[:150], *right, gone], 201) == []
    (found,) = observe(one, wrong[150:], 50)
    assert (found.trained_on, found.trained_to) == (200, {"0": 199})
    (other,) = observe(trainer(), records, 200)
    assert found.model[-1].coef_.tolist() == other.model[-1].coef_.tolist()


def test_records_labelled_in_any_order_are_trained_on_up_to_the_highest_offset() -> None:
    records = list(islice(stream(linear), 600))
    late = records[300:] + records[:300]
    assert [p.trained_to for p in observe(trainer(window=200), late, 600)] == [
        {"0": 499},
        {"0": 599},
        {"0": 599},
    ]
