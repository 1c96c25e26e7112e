from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelgenerator.training.recipes import RECIPES, Columns, recipes
from modelgenerator.training.trainer import Trainer
from stream.layout import Layout
from stream.service import Fatal
from tests.unit.streams import linear, observe, stream

OWN = """
from functools import partial
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier
from modelgenerator.training.learning import EachOnce, Latest
from modelgenerator.training.recipes import Recipe

bayes = Recipe("bayes", lambda columns: GaussianNB(), partial(EachOnce, every=50))
tree = Recipe("tree", lambda columns: DecisionTreeClassifier(), partial(Latest, 500, every=100))
table = [bayes, tree]
double = [bayes, bayes]
none = []
number = 7
names = ["bayes"]
votes = [bayes, Recipe("vote", bayes.make, bayes.learning)]
former = [Recipe("archived", bayes.make, bayes.learning)]

def function():
    return table

def broken():
    raise RuntimeError("out of\\nideas")
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_recipes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_recipes", raising=False)


def test_without_a_table_of_ones_own_there_are_five_recipes() -> None:
    assert recipes() is RECIPES
    assert [recipe.name for recipe in RECIPES] == ["sgd", "rff", "knn", "linear", "hgb_since"]


@pytest.mark.parametrize("name", ["own_recipes:table", "own_recipes:function"])
def test_a_table_of_ones_own_is_trained_and_votes(name: str) -> None:
    one = Trainer(recipes(name))
    found = observe(one, stream(linear), 400)[-1]
    assert [*found.accuracies] == ["vote", "bayes", "tree"]
    assert {*found.model.members} <= {"bayes", "tree"}
    assert found.model.predict([[0.9, 0.9, 0.5], [0.1, 0.1, 0.5]]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:table", "ModuleNotFoundError: No module named 'nowhere'"),
        ("own_recipes:nothing", "AttributeError: module 'own_recipes' has no attribute 'nothing'"),
        ("own_recipes", "AttributeError: module 'own_recipes' has no attribute ''"),
        ("own_recipes:none", "no table of recipes: []"),
        ("own_recipes:names", "no table of recipes: ['bayes']"),
        ("own_recipes:number", "TypeError: 'int' object is not iterable"),
        ("own_recipes:double", "two recipes have one name: ['bayes', 'bayes']"),
        (
            "own_recipes:votes",
            "a recipe is called 'vote', which names what the recipes serve together; any name but"
            " 'vote' and 'archived' is allowed",
        ),
        (
            "own_recipes:former",
            "a recipe is called 'archived', which names a model of a former concept; any name but"
            " 'vote' and 'archived' is allowed",
        ),
        ("own_recipes:broken", r"RuntimeError: out of\nideas"),
    ],
)
def test_a_wrong_table_ends_the_start_with_the_reason_in_one_line(name: str, said: str) -> None:
    with pytest.raises(Fatal) as caught:
        recipes(name)
    assert str(caught.value) == f"RECIPES={name}: {said}"


def test_categories_become_few_columns_however_many_there_are() -> None:
    few = Columns(10, {0: ["a"], 5: ["b"]})
    many = Columns(2_000, {index: ["a"] for index in range(2_000)})
    assert few.encoder().buckets == 8
    assert few.encoder().texts == {0: ["a"], 5: ["b"]}
    assert many.encoder().buckets == 1
    assert {*map(len, (many.encoder().texts or {}).values())} == {0}
    assert Columns(2, {0: [*"abcdefgh"] * 5}).encoder().texts == {0: [*"abcdefgh"] * 4}


def test_records_that_are_too_wide_leave_the_costly_recipes_out() -> None:
    one = Trainer(layout=Layout(1_001), archive=False)
    (found,) = observe(one, stream(linear, width=1_001), 200)
    assert {*found.model.members} == {"sgd", "linear", "hgb_since"}
