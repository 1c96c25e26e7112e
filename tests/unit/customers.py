"""Customers with features of every type, as a notebook has them, and models of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from stream.records import Record, Schema

NAMES = ["age", "plan", "city", "active", "since"]
SCHEMA = Schema(
    NAMES,
    "churn",
    "yes",
    types=["number", "category", "category", "number", "time"],
    negative="no",
)
NUMBERS, TEXTS = ["age", "active", "since"], ["plan", "city"]
CITIES = ["Zürich", "Łódź", "São Paulo", "Ålesund", "München", "Kraków", "007", "NA"]


def customers(count: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Return customers with values missing here and there, and whether each one left."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 10, count).round(1),
            "plan": rng.choice(["free", "pro", "team"], count),
            "city": rng.choice(CITIES, count),
            "active": rng.integers(0, 2, count).astype(float),
            "since": rng.integers(1_600_000_000, 1_790_000_000, count).astype(float),
        }
    )
    left = (frame["plan"] == "free") & (frame["age"] < 45) | (frame["city"] == "Łódź")
    for name in NUMBERS[:2] + TEXTS:
        frame.loc[rng.random(count) < 0.1, name] = np.nan
    return frame, left.astype(int)


def records(frame: pd.DataFrame, labels: pd.Series, by_name: bool = False) -> list[Record]:
    """Return them as a producer sends them."""
    found = []
    for id, (row, label) in enumerate(zip(frame.to_dict("records"), labels, strict=True)):
        values = {str(name): _sent(str(name), value) for name, value in row.items()}
        text = "yes" if label else "no"
        found.append(Record(id, values if by_name else [*values.values()], text))
    return found


def _sent(name: str, value: Any) -> Any:
    if pd.isna(value):
        return None
    if name == "active":
        return bool(value)
    return pd.Timestamp(value, unit="s", tz="UTC").isoformat() if name == "since" else value


def encoded(encoder: Any, texts: Any = TEXTS, numbers: Any = NUMBERS) -> Any:
    """Return a pipeline that encodes the texts and scales the numbers."""
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            ("texts", encoder, texts),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500))


def boosting(**options: Any) -> Any:
    """Return a gradient boosting."""
    return HistGradientBoostingClassifier(max_iter=20, **options)


MODELS: dict[str, Any] = {
    "one-hot": encoded(OneHotEncoder(handle_unknown="ignore")),
    "one-hot that raises": encoded(OneHotEncoder()),
    "one-hot of all texts": encoded(
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20),
        make_column_selector(dtype_exclude="number"),
        make_column_selector(dtype_include="number"),
    ),
    "ordinal": encoded(
        OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        )
    ),
    "target": encoded(TargetEncoder()),
    "imputed": encoded(
        make_pipeline(
            SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
        )
    ),
    "by names": boosting(categorical_features=TEXTS),
    "by dtype": boosting(categorical_features="from_dtype"),
    "by position": encoded(OneHotEncoder(handle_unknown="ignore"), [1, 2], [0, 3, 4]),
}


def fitted(name: str, frame: pd.DataFrame, labels: pd.Series) -> tuple[Any, Any]:
    """Return a model and the frame, or the array, that it is fitted on."""
    given: Any = frame
    if name == "by dtype":
        given = frame.astype(dict.fromkeys(TEXTS, "category"))
    elif name == "by position":
        given = frame.astype(object).to_numpy()
    return MODELS[name].fit(given, labels), given
