from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest

from modelgenerator import categories
from modelgenerator.categories import Encoder, Vocabulary
from modelgenerator.feed import StartOver
from modelgenerator.schema_feed import check_layout
from modelgenerator.settings import Settings
from modelgenerator.training.recipes import Columns, recipes
from modelgenerator.training.trainer import Publication, Trainer
from modelgenerator.window import Labelled, Window
from stream import layout
from stream.layout import Layout
from stream.records import Cell, Schema

LAYOUT = Layout(3, ["age", "plan", "since"], ["number", "category", "time"], "yes", "no")
PLANS = ["free", "pro", "team", "trial", "gold", "old"]
RECIPES = ["vote", "sgd", "rff", "knn", "linear", "hgb_since"]
Row = list[Cell]


def paying(row: Row) -> bool:
    return row[1] in ("pro", "team", "gold")


def stream(
    rule: Callable[[Row], bool] = paying,
    change: Callable[[int, Row], Row] = lambda _, row: row,
    start: int = 0,
) -> Iterator[Labelled]:
    """Records whose label a rule tells; `change` comes before it."""
    chance = random.Random(start)
    for offset in range(start, 10**9):
        row = change(offset, [chance.gauss(40, 9), chance.choice(PLANS), 1e9 + chance.random()])
        yield Labelled(0, offset, row, int(rule(row)))


def trainer(window: int = 2000, retrain_every: int = 1000, layout: Layout = LAYOUT) -> Trainer:
    return Trainer(recipes(), window, retrain_every, layout)


def last(records: Iterator[Labelled], count: int, one: Trainer | None = None) -> Publication:
    return list((one or trainer()).observe(islice(records, count)))[-1]


def predicted(found: Publication, *rows: Row) -> list[int]:
    labels: list[int] = found.model.predict(found.layout.matrix(rows)).tolist()
    return labels


def accuracies(found: Publication) -> dict[str, float]:
    return {name: value or 0.0 for name, value in found.accuracies.items()}


def test_a_category_that_decides_the_label_is_learnt_by_every_recipe() -> None:
    found = accuracies(last(stream(), 1_500))
    assert [*found] == RECIPES
    assert min(found.values()) > 0.6
    assert found["vote"] > 0.9


def test_a_model_predicts_the_same_after_its_pickle_is_loaded() -> None:
    found = last(stream(), 400)
    rows: list[Row] = [[30.0, "pro", 1e9], [30.0, "old", None], [None, None, 1e9]]
    loaded = pickle.loads(pickle.dumps(found.model))
    matrix = found.layout.matrix(rows)
    assert loaded.predict_proba(matrix).tolist() == found.model.predict_proba(matrix).tolist()


def test_a_category_never_seen_in_training_is_predicted_as_a_missing_one_by_boosting() -> None:
    one = Trainer([recipes()[-1]], 2000, 1000, LAYOUT)
    found = last(stream(), 1_000, one)
    matrix = found.layout.matrix([[30.0, "new", 1e9], [30.0, None, 1e9]])
    unseen, missing = found.model.predict_proba(matrix).tolist()
    assert unseen == missing


def test_a_category_that_appears_late_is_learnt() -> None:
    def late(offset: int, row: Row) -> Row:
        return [row[0], "late" if offset >= 1_500 and offset % 3 else row[1], row[2]]

    found = last(stream(lambda row: row[1] == "late" or paying(row), late), 4_000)
    assert predicted(found, [30.0, "late", 1e9], [30.0, "old", 1e9]) == [1, 0]
    assert accuracies(found)["vote"] > 0.9


@pytest.mark.parametrize("empty", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_columns_without_any_value_are_trained_on_by_both_recipes(empty: list[int]) -> None:
    def without(_: int, row: Row) -> Row:
        return [None if index in empty else cell for index, cell in enumerate(row)]

    chance = random.Random(1)
    found = last(
        stream(lambda row: chance.random() < 0.5 if 1 in empty else paying(row), without), 800
    )
    assert {*predicted(found, [30.0, "pro", 1e9], [None, None, None])} <= {0, 1}
    if 1 not in empty:
        assert accuracies(found)["vote"] > 0.9


def test_a_column_that_is_constant_for_a_while_is_learnt_when_it_varies() -> None:
    def constant(offset: int, row: Row) -> Row:
        return row if offset >= 1_000 else [40.0, "free", 1e9]

    records = [
        r._replace(label=r.offset % 2) if r.offset < 1_000 else r
        for r in islice(stream(paying, constant), 4_000)
    ]
    found = list(trainer().observe(records))[-1]
    assert predicted(found, [40.0, "pro", 1e9], [40.0, "free", 1e9]) == [1, 0]


def test_missing_texts_are_trained_on_and_say_what_they_say() -> None:
    def hidden(offset: int, row: Row) -> Row:
        return [row[0], None if row[1] == "gold" else row[1], row[2]]

    found = last(stream(lambda row: row[1] in (None, "pro"), hidden), 2_000)
    assert predicted(found, [40.0, None, 1e9], [40.0, "free", 1e9]) == [1, 0]
    assert [row for row in found.newest if row[1] is None]


def test_texts_of_odd_unicode_are_categories_like_others() -> None:
    odd = ["", " ", "\0", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "nan"]
    odd += ["Zürich", "\u202eabc", "a\nb", "x" * 256, "None", "1.0"]

    def other(offset: int, row: Row) -> Row:
        return [row[0], odd[offset % len(odd)], row[2]]

    found = last(stream(lambda row: str(row[1]) in odd[::2], other), 2_500)
    assert min(accuracies(found).values()) > 0.97
    rows: list[Row] = [[40.0, text, 1e9] for text in odd]
    assert predicted(found, *rows) == [1, 0] * 5 + [1]
    assert {row[1] for row in found.newest} == {*odd}


def test_of_more_than_62_texts_the_commonest_are_learnt() -> None:
    def many(offset: int, row: Row) -> Row:
        return [row[0], row[1] if offset % 2 else f"once {offset}", row[2]]

    found = last(stream(change=many), 4_000)
    assert predicted(found, [40.0, "pro", 1e9], [40.0, "old", 1e9]) == [1, 0]
    columns = Columns(3, {1: [f"{n}" for n in range(900)]})
    assert len(columns.codes().texts[1]) == 62


def test_20000_distinct_texts_in_one_feature_are_trained_on_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelgenerator.training.trainer.FIRST_MODEL", 25_000)

    def high(offset: int, row: Row) -> Row:
        return [row[0], f"customer {offset}" if offset % 5 else row[1], row[2]]

    records = [
        r._replace(label=int(r.offset % 5 == 0)) for r in islice(stream(change=high), 25_000)
    ]
    one = trainer(window=100_000, retrain_every=100_000)
    found = list(one.observe(records))[-1]
    vocabulary = one._window.encoder.vocabularies[1]
    assert len(vocabulary._texts) == len(vocabulary._codes) == categories.TEXTS
    assert predicted(found, [40.0, "pro", 1e9], [40.0, "customer 7", 1e9]) == [1, 0]


def test_a_vocabulary_is_bounded_and_ever_new_texts_do_not_freeze_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(categories, "TEXTS", 50)
    window = Window(300, LAYOUT)
    for offset in range(5_000):
        text = "late" if offset > 2_000 and offset % 4 == 0 else f"once {offset}"
        window.add(Labelled(0, offset, [1.0, text, 1e9], 0))
        vocabulary = window.encoder.vocabularies[1]
        assert len(vocabulary._texts) <= 50
        assert len(vocabulary._codes) + len(vocabulary._free) == len(vocabulary._texts)
    assert vocabulary.commonest(1) == ["late"]
    assert vocabulary._counts[vocabulary._codes["late"]] == 75
    assert sum(row[1] == "late" for row in window.newest(300)) == 75


def test_the_texts_of_many_features_are_bounded_together() -> None:
    wide = Layout(1_000, [f"c{n}" for n in range(1_000)], ["category"] * 1_000)
    limits = {each._limit for each in Encoder(wide).vocabularies.values()}
    assert limits == {categories.TEXTS_TOGETHER // 1_000}


def test_what_the_window_holds_is_what_a_layout_makes_of_the_same_rows() -> None:
    def hidden(offset: int, row: Row) -> Row:
        return [None if (offset + index) % 7 == 0 else cell for index, cell in enumerate(row)]

    window = Window(300, LAYOUT)
    for record in islice(stream(change=hidden), 500):
        window.add(record._replace(label=record.offset % 2))
    kept = window.newest(300)[::-1]
    matrix, labels = window.matrix(LAYOUT)
    expected = LAYOUT.matrix(kept)
    assert matrix.equals(expected)
    assert [*matrix.dtypes] == [*expected.dtypes]
    assert labels.tolist() == [0, 1] * 150
    assert not any(isinstance(cell, float) and math.isnan(cell) for row in kept for cell in row)


def test_a_revised_label_is_trained_on() -> None:
    records = list(islice(stream(), 400))
    wrong = [r._replace(label=1 - r.label) for r in records[:199]]
    right = [Labelled(*r.place, [], r.label, revises=True) for r in records[:199]]
    one = trainer()
    assert list(one.observe([*wrong, *right])) == []
    found, _ = one.observe(records[199:])
    expected, _ = trainer().observe(records)
    matrix = LAYOUT.matrix([[30.0, plan, 1e9] for plan in PLANS])
    assert np.array_equal(found.model.predict_proba(matrix), expected.model.predict_proba(matrix))


def test_other_names_count_for_the_next_model_and_the_models_before_go_on_scoring() -> None:
    one, records = trainer(), stream()
    (found,) = one.observe(islice(records, 250))
    assert found.layout == LAYOUT
    one.follow(Layout(3, ["age", "tariff", "since"], LAYOUT.types, "yes", "no"))
    found = last(records, 500, one)
    assert found.layout == one.layout
    assert min(accuracies(found).values()) > 0.9


def test_before_any_record_a_schema_may_have_any_types() -> None:
    one = Trainer(recipes(), 2000, 1000)
    one.follow(LAYOUT)
    assert min(accuracies(last(stream(), 1_000, one)).values()) > 0.9


def test_a_schema_of_numbers_settles_the_width_and_leaves_others_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Trainer(recipes(), 2000, 1000)
    chance = random.Random(0)
    rows: list[Row] = [[chance.random(), chance.random()] for _ in range(400)]
    records = [Labelled(0, n, row, int((row[0] or 0) > row[1])) for n, row in enumerate(rows)]  # type: ignore[operator] # numbers
    odd = [Labelled(1, n, [1.0], 1) for n in range(3)]
    assert list(one.observe([*odd, *records[:50]])) == []
    one.follow(Layout(2, ["a", "b"]))
    (found, _) = one.observe(records[50:])
    assert (found.trained_on, found.trained_to) == (200, {"0": 199})
    assert caplog.messages[0].startswith("3 of the first 53 labelled records have another number")


def test_a_text_that_no_record_has_any_more_makes_room() -> None:
    found = Vocabulary(limit=1)
    assert [found.add("a"), found.add("b"), found.add("a")] == [0, None, 0]
    found.remove(0)
    assert found.add("b") is None
    found.remove(0)
    assert found.add("b") == 0
    assert found.commonest(9) == ["b"]


def test_features_in_another_order_start_training_over_and_other_names_do_not() -> None:
    before, settings = layout.of(Schema(["age", "plan"])), Settings.model_validate({})
    check_layout(settings, Schema(["years", "plan"]), before)
    with pytest.raises(StartOver, match=r"data\.schema names the features in another order"):
        check_layout(settings, Schema(["plan", "age"]), before)
