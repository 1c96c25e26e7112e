from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np
import pytest

from datagenerator.late_labels import LateLabels
from datagenerator.resume import mismatch
from datagenerator.rows import Source
from datagenerator.settings import Settings
from datagenerator.sources import HINT, STAYS, SYNTHETIC, open_source
from stream.records import Cell, ModelInput, decode_schema, encode_schema
from stream.settings import SettingsError, read

DAYS = "".join(f"{n % 7}.5,{n},{'' if n % 5 == 0 else n * n % 3 % 2}\n" for n in range(60))
LABELS = [None if n % 5 == 0 else n * n % 3 % 2 for n in range(60)]
"""Of the rows of `DAYS`, whose columns are x, t and y."""


@pytest.fixture
def days(tmp_path: Path) -> Path:
    path = tmp_path / "days.csv"
    path.write_text(f"x,t,y\n{DAYS}")
    return path


def opened(**settings: object) -> Source:
    return open_source(Settings.model_validate(settings), lambda line: None)


def take(source: Source, first_id: int, number: int | None = None) -> list[ModelInput]:
    return [timed.record for timed in islice(source.records(first_id), number)]


def lagged(source: Source, count: int = 1) -> list[list[Cell]]:
    """Return the last features of all records."""
    return [list(record.features[-count:]) for record in take(source, 0)]


@pytest.mark.parametrize("stream", [*SYNTHETIC, "breast_cancer"])
def test_a_record_has_the_labels_of_those_before_it_whichever_run_sends_it(stream: str) -> None:
    given = {"stream": stream, "drift_every": 50, "repeat": True}
    plain, source = opened(**given), opened(**given, label_lags="1,2,48")
    assert source.schema.feature_names == [
        *(*plain.schema.feature_names, "label_1", "label_2", "label_48")
    ]
    without, whole = take(plain, 0, 700), take(source, 0, 700)
    labels = [record.label for record in without]
    for number, (record, its_own) in enumerate(zip(whole, without, strict=True)):
        earlier = [labels[number - lag] if number >= lag else None for lag in (1, 2, 48)]
        assert record.features == [*its_own.features, *earlier]
        assert (record.id, record.label) == (its_own.id, its_own.label)
    for first in (1, 47, 48, 50, 130, 600):
        assert take(source, first, 700 - first) == whole[first:]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_file_is_sent_in_its_order_and_an_empty_label_is_a_missing_lag(
    days: Path, kind: str
) -> None:
    path = days.with_suffix(f".{kind}")
    if kind != "csv":
        form = "parquet" if kind == "parquet" else "json"
        duckdb.execute(f"COPY (FROM read_csv('{days}')) TO '{path}' (FORMAT {form})")
    source = opened(stream=str(path), label="y", drop="t", label_lags="3,1")
    assert source.schema.feature_names == ["x", "label_1", "label_3"]
    assert [record.features[0] for record in take(source, 0)] == [n % 7 + 0.5 for n in range(60)]
    assert lagged(source, 2) == [
        [LABELS[n - 1] if n >= 1 else None, LABELS[n - 3] if n >= 3 else None] for n in range(60)
    ]
    assert take(source, 60) == []


def test_a_label_that_never_comes_is_a_missing_lag() -> None:
    given = {"stream": "sea", "label_share": 0.5}
    records = take(opened(**given, label_lags="2"), 0, 500)
    has_label = LateLabels(Settings.model_validate(given)).has_label
    found = [record.features[-1] for record in records[2:]]
    assert found == [r.label if has_label(n) else None for n, r in enumerate(records[:-2])]
    assert 200 < found.count(None) < 300


def test_in_a_file_with_the_times_of_labels_a_lag_is_missing_until_the_label_has_come(
    days: Path,
) -> None:
    rows = [f"{n % 7}.5,{n},{n + 10 * (n % 3)},{n % 2}\n" for n in range(60)]
    days.write_text(f"x,t,known,y\n{''.join(rows)}")
    source = opened(
        stream=str(days), label="y", time="t", label_time="known", speed=1e6, label_lags="1,11"
    )
    assert lagged(source, 2) == [
        [
            (n - 1) % 2 if n >= 1 and (n - 1) % 3 == 0 else None,
            (n - 11) % 2 if n >= 11 and (n - 11) % 3 < 2 else None,
        ]
        for n in range(60)
    ]


def test_where_rows_are_as_far_apart_as_their_times_a_lag_is_missing_within_the_delay(
    days: Path,
) -> None:
    minutes = "".join(f"{n % 7}.5,{60 * (n + 9 * (n > 30))},{n % 2}\n" for n in range(60))
    days.write_text(f"x,t,y\n{minutes}")
    given = {"stream": str(days), "label": "y", "time": "t", "speed": 60, "label_lags": "5"}
    late = [n % 2 for n in range(60)]
    assert lagged(opened(**given)) == [[late[n - 5]] if n >= 5 else [None] for n in range(60)]
    at_once_after_a_gap = lagged(opened(**given, label_delay="5"))
    assert at_once_after_a_gap == [[late[n - 5]] if 31 <= n <= 35 else [None] for n in range(60)]


def test_types_are_those_of_the_file_and_a_restart_follows_the_schema_on_the_topic(
    days: Path,
) -> None:
    days.write_text(
        "city,same,x,y\n" + "".join(f"c{n % 3},5,{n % 7}.5,{n % 2}\n" for n in range(30))
    )
    given = {"stream": str(days), "label": "y", "label_lags": "1,2"}
    source = opened(**given)
    recorded = decode_schema(encode_schema(source.schema))
    assert recorded.feature_names == ["city", "x", "label_1", "label_2"]
    assert recorded.types == ["category", "number", "number", "number"]
    days.write_text(days.read_text().replace(",5,", ",6,", 1))  # no constant any more
    again = opened(**given)
    assert "same" in again.schema.feature_names
    again.as_recorded(recorded)
    assert again.schema == recorded
    assert take(again, 0) == take(source, 0)


@pytest.mark.parametrize("lags", [None, "1", "1,3"])
def test_on_the_topic_of_other_lags_nothing_is_sent(lags: str | None) -> None:
    found = opened(stream="sea", label_lags="1,2").schema
    source = opened(stream="sea", label_lags=lags)
    source.as_recorded(found)
    line = mismatch("d", "d.schema", source.schema, found, [])
    assert line is not None
    assert "'label_2'" in line.split(";")[0]


def test_a_column_of_the_name_of_a_lag_is_named_with_what_to_do(days: Path) -> None:
    days.write_text(f"label_2,t,y\n{DAYS}")
    given = {"stream": str(days), "label": "y", "label_lags": "1,2"}
    with pytest.raises(SettingsError) as error:
        opened(**given)
    assert str(error.value) == (
        "LABEL_LAGS: the file has a column 'label_2' of its own; DROP=label_2 leaves it out"
    )
    names = opened(**given, drop="label_2", types="t:number").schema.feature_names
    assert names == ["t", "label_1", "label_2"]


@pytest.mark.parametrize(
    ("given", "lags"), [("1,2,48", (1, 2, 48)), (" 48, 2 ,1", (1, 2, 48)), ("7", (7,)), ("", ())]
)
def test_lags_are_read_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, given: str, lags: tuple[int, ...]
) -> None:
    monkeypatch.setenv("LABEL_LAGS", given)
    assert read(Settings).lags == lags


@pytest.mark.parametrize(
    "wrong",
    [
        *("0", "1,0", "-1", "1,,2", "1,", "one", "1.5", "1;2", "2,1,2", "100001", "1e3"),
        ",".join(map(str, range(1, 102))),
    ],
)
def test_wrong_lags_end_the_start_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("LABEL_LAGS", wrong)
    with pytest.raises(SettingsError) as error:
        read(Settings)
    assert str(error.value).startswith(f"LABEL_LAGS={wrong[:100]}")
    assert str(error.value).endswith(
        ": allowed are whole numbers of records from 1 to 100000, each once, separated by commas"
        " (1,2,48), at most 100 of them"
    )


@pytest.mark.parametrize(
    ("delay", "lags", "rate", "line"),
    [
        ("records:48", "48,1,2", 100, "LABEL_LAGS=1: with LABEL_DELAY=records:48, a label may come"
         " 48 records after its own; each lag has to be longer"),
        ("records:48", "48", 100, "LABEL_LAGS=48: with LABEL_DELAY=records:48, a label may come"
         " 48 records after its own; each lag has to be longer"),
        ("2.5", "300", 100, "LABEL_LAGS=300: with LABEL_DELAY=2.5 and RATE=100, a label may come"
         " 300 records after its own; each lag has to be longer"),
        ("exponential:1", "999", 100, "LABEL_LAGS=999: with LABEL_DELAY=exponential:1 and RATE=100,"
         " a label may come 1050 records after its own; each lag has to be longer"),
        ("records:48", "49,100", 100, None),
        ("records:0", "1", 100, None),
        ("2.5", "301", 100, None),
        ("exponential:1", "1051", 100, None),
        ("5", "1", 0, None),
    ],
)  # fmt: skip
def test_a_lag_within_the_delay_of_labels_ends_the_start(
    delay: str, lags: str, rate: float, line: str | None
) -> None:
    given = {"label_delay": delay, "label_lags": lags, "rate": rate}
    if line is None:
        Settings.model_validate(given)
        return
    with pytest.raises(ValueError, match=line.replace(".", r"\.")):
        Settings.model_validate(given)


def features_and_labels(records: list[ModelInput]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r.features for r in records], float), np.array([r.label for r in records])


def what_tells(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how far the means of both labels are apart."""
    means = [features[labels == label].mean(axis=0) for label in (0, 1)]
    return np.asarray(means[1] - means[0])


def test_of_the_persistent_stream_the_label_before_and_the_features_each_tell_a_part() -> None:
    source = opened(stream="persistent", drift_every=0, label_lags="1")
    rows, labels = features_and_labels(take(source, 0, 40_000)[1:])
    features, stays = rows[:, :-1], 2 * rows[:, -1] - 1
    tell = what_tells(features, labels)
    assert np.hypot.reduce(tell) == pytest.approx(2 * HINT, abs=0.05)
    by_features = features @ tell
    by_both = by_features + stays * math.log(STAYS / (1 - STAYS))
    for scores, accuracy in ((by_features, 0.816), (stays, 0.85), (by_both, 0.895)):
        assert np.mean((scores > 0) == labels) == pytest.approx(accuracy, abs=0.005)


def test_a_drift_of_the_persistent_stream_changes_what_its_features_tell() -> None:
    records = take(opened(stream="persistent", drift_every=5_000), 0, 10_000)
    first, second = (
        what_tells(*features_and_labels(p)) for p in (records[:5_000], records[5_000:])
    )
    assert np.hypot.reduce(first - second) > HINT
