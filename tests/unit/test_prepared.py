"""Models with categories, as a notebook fits them, made ready for the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.preprocessing import OneHotEncoder

from modelgenerator.publish.checks import prepared
from modelgenerator.publish.newest import Found, Stream
from modelgenerator.trial import PROBE_BYTES, PROBE_ROWS
from stream.classifier import Model, load
from stream.models import Envelope, ModelError
from stream.records import Record, Schema
from tests.unit.classifiers import Sign
from tests.unit.customers import (
    MODELS,
    NAMES,
    SCHEMA,
    TEXTS,
    customers,
    encoded,
    fitted,
    records,
)

FRAME, LABELS = customers()


def made_ready(
    model: Any, newest: Sequence[Record] | None = None, schema: Schema | None = SCHEMA
) -> tuple[Envelope, bytes]:
    newest = records(FRAME, LABELS) if newest is None else newest
    found = [Found(0, offset, 0, record) for offset, record in enumerate(newest)]
    stream = Stream(schema, found, len(NAMES))
    said = {"recipe": "a", "reason": "b", "trained_on": 0, "trained_to": {}}
    envelope, pickle, _ = prepared(model, sklearn.__version__, stream, **said)
    return envelope, pickle


def served(model: Model, sent: Sequence[Record]) -> Any:
    _, probabilities = model.predict([model.layout.read(each).features for each in sent])
    return probabilities


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("by_name", [False, True], ids=["lists", "objects"])
def test_what_is_served_is_what_the_notebook_predicts(name: str, by_name: bool) -> None:
    model, given = fitted(name, FRAME, LABELS)
    sent = records(FRAME, LABELS, by_name)
    loaded = load(*made_ready(model, sent))
    assert served(loaded, sent) == model.predict_proba(given)[:, 1].tolist()
    assert loaded.envelope.feature_names == NAMES
    assert loaded.envelope.types == SCHEMA.types
    assert (loaded.envelope.positive, loaded.envelope.negative) == ("yes", "no")
    assert loaded.envelope.accepts_missing


@pytest.mark.parametrize("name", MODELS)
def test_a_category_that_was_not_seen_is_predicted_where_the_encoder_takes_it(name: str) -> None:
    model, _ = fitted(name, FRAME, LABELS)
    loaded = load(*made_ready(model))
    new = Record(1, {"age": 30, "plan": "gold", "city": "Oslo"})
    (answer,) = loaded.answers([loaded.layout.read(new).features])
    if name == "one-hot that raises":
        assert (
            answer
            == "model error: ValueError: Found unknown categories ['gold'] in column 0"
            + (" during transform")
        )
    else:
        assert not isinstance(answer, str)


def test_the_probes_are_a_few_records_of_the_stream_whole_ones_first() -> None:
    model, _ = fitted("one-hot", FRAME, LABELS)
    sent = records(FRAME, LABELS)
    envelope, _ = made_ready(model, sent)
    probes = envelope.probes or []
    rows = [envelope.layout.read(each).features for each in sent]
    assert len(probes) == PROBE_ROWS
    assert all(row in rows and None not in row for row in probes)
    assert envelope.probe is None


def test_the_probes_are_bounded_in_size_but_for_the_first() -> None:
    width = 400
    names = [f"f{i}" for i in range(width)]
    schema = Schema(names, types=["category"] * width)
    sent = [Record(i, [f"{i}" * 100] * width) for i in range(10)]
    envelope, _ = made_ready(Sure(names), sent, schema)
    assert len(envelope.probes or []) == 1
    short = [Record(i, [f"{i}" * 40] * width) for i in range(10)]
    envelope, _ = made_ready(Sure(names), short, schema)
    assert len(envelope.probes or []) == 3
    assert len(msgspec.json.encode(envelope.probes)) < PROBE_BYTES


class Sure(Sign):
    """Predicts 0, and takes only so many nulls at once."""

    def __init__(self, names: list[str], nulls: int = 2**30) -> None:
        super().__init__()
        self.feature_names_in_ = names
        self.n_features_in_ = len(names)
        self.nulls = nulls

    def predict(self, frame: pd.DataFrame) -> Any:
        """Predict, or raise where a record has too many nulls."""
        if (frame.isna().sum(axis=1) > self.nulls).any():
            raise ArithmeticError("too many nulls")
        return np.zeros(len(frame), dtype=int)


def test_a_model_that_takes_nulls_only_one_at_a_time_loads_all_the_same() -> None:
    sent = records(FRAME.assign(plan=np.nan), LABELS)
    envelope, pickle = made_ready(Sure(NAMES, nulls=1), sent)
    assert envelope.accepts_missing_in == [1]
    load(envelope, pickle)
    envelope, pickle = made_ready(Sure(NAMES, nulls=1))
    assert envelope.accepts_missing_in == [0, 1, 2, 3, 4]
    assert len(envelope.probes or []) == PROBE_ROWS
    load(envelope, pickle)


def test_a_model_that_takes_no_null_is_tried_on_whole_records_alone() -> None:
    model = encoded(OneHotEncoder()).fit(FRAME.dropna(), LABELS[FRAME.notna().all(axis=1)])
    envelope, pickle = made_ready(model)
    assert (envelope.accepts_missing, envelope.accepts_missing_in) == (False, [0, 3, 4])
    loaded = load(envelope, pickle)
    assert loaded.envelope.wrongly_null(loaded.layout.read(Record(1, {"city": "NA"})).features) == 1


def test_without_a_record_that_fits_a_model_with_categories_is_not_tried() -> None:
    model, _ = fitted("one-hot", FRAME, LABELS)
    for sent in ([], [Record(1, [1, 2, 3, 4, 5]), Record(2, ["x"])]):
        with pytest.raises(
            ModelError, match=r"no record on the data topic fits.*send records first"
        ):
            made_ready(model, sent)


def test_a_model_that_predicts_no_record_of_the_stream_is_refused_with_its_reason() -> None:
    model, _ = fitted("one-hot that raises", FRAME, LABELS)
    with pytest.raises(ModelError, match=r"Found unknown categories \['gold'\] in column 0"):
        made_ready(model, records(FRAME.assign(plan="gold"), LABELS))


def test_a_column_in_the_wrong_place_is_named() -> None:
    turned = ["age", "city", "plan", "active", "since"]
    model, _ = fitted("one-hot", FRAME[turned], LABELS)
    message = "feature 1 of the stream is 'plan', of the model 'city'"
    with pytest.raises(ModelError, match=message):
        made_ready(model)
    of_arrays = encoded(OneHotEncoder(), [1, 2], [0, 3, 4])
    of_arrays.fit(FRAME[turned].astype(object).to_numpy(), LABELS)
    with pytest.raises(ModelError, match=r"it raises on \d+ of \d+ .*unknown categories \["):
        made_ready(of_arrays)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            FRAME.rename(columns={"city": "town"}),
            "the model lacks 'city', the stream has no 'town'",
        ),
        (FRAME.assign(id=1.0), "the stream has no 'id'"),
    ],
)
def test_names_that_differ_from_those_of_the_stream_are_named(
    frame: pd.DataFrame, message: str
) -> None:
    texts = [name for name in frame if name in (*TEXTS, "town")]
    model = encoded(OneHotEncoder(), texts).fit(frame, LABELS)
    with pytest.raises(ModelError, match=f"^feature_names: {message}$"):
        made_ready(model)


def test_none_is_no_missing_category_as_the_stream_has_it() -> None:
    frame = FRAME.astype(object).where(FRAME.notna(), None)
    model = encoded(OneHotEncoder()).fit(frame, LABELS)
    envelope, _ = made_ready(model)
    assert not envelope.accepts_missing
    assert envelope.accepts_missing_in == [0, 3, 4]


def test_the_same_texts_in_another_unicode_form_are_the_same_category() -> None:
    model, given = fitted("one-hot", FRAME, LABELS)
    turned = FRAME["city"].str.normalize("NFD")
    assert (turned != FRAME["city"]).any()
    sent = records(FRAME.assign(city=turned), LABELS)
    loaded = load(*made_ready(model, sent))
    assert served(loaded, sent) == model.predict_proba(given)[:, 1].tolist()
