from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from modelgenerator.publish.by_position import by_position

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 4)), columns=list("abcd"))
LABELS = (FRAME["a"] > FRAME["c"]).astype(int)

SELECTIONS: dict[str, tuple[Any, ...]] = {
    "names": (["c", "a"], ["b"]),
    "slices": (slice("b", "c"), slice("a", "a")),
    "open slices": (slice("c", None), slice(None, "b")),
    "positions": ([2, 0], slice(0, 2)),
    "mask": ([True, False, True, False], [False, True, False, False]),
    "selector": (make_column_selector(pattern="[ac]"), make_column_selector(pattern="b")),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("remainder", ["drop", "passthrough"])
def test_columns_chosen_on_a_data_frame_are_the_same_in_an_array(name: str, remainder: str) -> None:
    first, second = SELECTIONS[name]
    columns = ColumnTransformer(
        [("one", StandardScaler(), first), ("other", MinMaxScaler(), second)], remainder=remainder
    )
    model = make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)
    expected = model.predict_proba(FRAME)
    found = by_position(model)
    assert found.predict_proba(FRAME.to_numpy()).tolist() == expected.tolist()
    assert model.predict_proba(FRAME).tolist() == expected.tolist()


def inner() -> Any:
    return make_pipeline(
        make_column_transformer((StandardScaler(), ["d", "a"])), LogisticRegression()
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: VotingClassifier([("x", inner()), ("y", inner())], voting="soft"),
        lambda: GridSearchCV(inner(), {"logisticregression__C": [0.1, 1]}),
    ],
)
def test_pipelines_within_other_estimators_are_found(make: Callable[[], Any]) -> None:
    model = make().fit(FRAME, LABELS)
    expected = model.predict_proba(FRAME).tolist()
    assert by_position(model).predict_proba(FRAME.to_numpy()).tolist() == expected


def test_a_model_without_names_is_not_copied() -> None:
    model = inner().set_params(columntransformer__transformers=[("a", StandardScaler(), [0])])
    model.fit(FRAME.to_numpy(), LABELS)
    assert by_position(model) is model
