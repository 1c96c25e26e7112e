"""Tables of labelled records: what is written is read again, by us and by others."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from modelgenerator.envelope import highest_offsets
from modelgenerator.labelled.__main__ import main
from modelgenerator.labelled.tables import TableError, as_parquet, columns, trained_to, write_csv
from modelgenerator.publish.newest import Found, not_yet_written
from stream.records import Record

IDS: list[int | str] = [
    "x",
    'a "quoted"\nline\r',
    "semi;colon,comma",
    "'",
    "#",
    "NaN",
    "ü🎈",
    2**64 - 1,
    -(2**63),
]
FEATURES = [0.1 + 0.2, None, 3.4e38, 5e-324, -0.0]


def found(count: int, partition: int = 0) -> list[Found]:
    return [
        Found(
            partition,
            7 + i,
            1_764_000_000_123 + i,
            Record(IDS[i % len(IDS)], [*FEATURES[: 1 + i % 5], *[1.0] * (4 - i % 5)], i % 2),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_holds_each_record_exactly(ending: str, tmp_path: Path) -> None:
    records = [*found(40), *found(9, partition=12)]
    names = columns(["age", 'a "b"', "it's", "x y", "größe"], 5)
    path = tmp_path / f"it's [1] *.{ending}"
    source = tmp_path / "records.csv" if ending == "parquet" else path
    assert write_csv(source, names, records) == 49
    if ending == "parquet":
        as_parquet(source, path, names)
        frame = pd.DataFrame(
            duckdb.read_parquet(str(tmp_path / "*.parquet")).fetchall(), columns=names
        )
        assert frame["timestamp"][0].isoformat() == "2025-11-24T16:00:00.123000"
    else:
        exactly = dict.fromkeys(names[4:-1], lambda text: float(text) if text else None)
        frame = pd.read_csv(path, dtype={"id": str}, keep_default_na=False, converters=exactly)
        assert frame["timestamp"][0] == "2025-11-24T16:00:00.123Z"
    assert list(frame.columns) == names
    assert frame["id"].tolist() == [str(each.record.id) for each in records]
    assert frame[["partition", "offset"]].to_numpy().tolist() == [
        [each.partition, each.offset] for each in records
    ]
    assert frame["label"].tolist() == [each.record.label for each in records]
    read = frame[names[4:-1]].astype(object).where(frame[names[4:-1]].notna(), None)
    assert read.to_numpy().tolist() == [each.record.features for each in records]
    assert trained_to(path) == {"0": 46, "12": 15}


TEXTS = ["pro", "", None, "007", "NA", "null", "1", ' "x", ', "'\n\r", "ü🎈", "#", "\\N"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_categories_are_read_as_the_texts_that_they_were(ending: str, tmp_path: Path) -> None:
    records = [Found(0, i, 0, Record(i, [text, None], 1)) for i, text in enumerate(TEXTS)]
    names = columns(["plan", "age"], 2)
    path, source = tmp_path / f"all.{ending}", tmp_path / "records.csv"
    write_csv(source if ending == "parquet" else path, names, records)
    if ending == "parquet":
        as_parquet(source, path, names, ["category", "number"])
        plans = [plan for (plan,) in duckdb.read_parquet(str(path)).select("plan").fetchall()]
        assert plans == TEXTS
        assert [kind.id for kind in duckdb.read_parquet(str(path)).types[4:6]] == [
            "varchar",
            "double",
        ]
    else:
        frame = pd.read_csv(path, keep_default_na=False, na_values="", dtype={"plan": str})
        expected = [text or None for text in TEXTS]  # pandas takes an empty text for a missing one
        assert frame["plan"].astype(object).where(frame["plan"].notna(), None).tolist() == expected
        assert frame["age"].isna().all()


def test_columns_are_called_as_in_the_schema_or_by_their_number() -> None:
    assert columns(None, 2) == ["partition", "offset", "timestamp", "id", "x0", "x1", "label"]
    assert columns(["a", "b"], 2)[4:-1] == ["a", "b"]


def test_no_two_columns_have_one_name_also_without_regard_to_capitals() -> None:
    names = ["a", "A", "a", "a_2", "ID", "label", "Offset", ""]
    found = columns(names, 8)
    assert found[4:-1] == ["a", "A_2", "a_3", "a_2_2", "ID_2", "label_2", "Offset_2", ""]
    assert len({name.casefold() for name in found}) == len(found)


@pytest.mark.parametrize(
    "text",
    [
        "partition,offset\n0,5\n1,9\n0,3\n",
        "offset;partition;label\n5;0;1\n9;1;0\n",
        "\tpartition\toffset\n0\t0\t5\n1\t1\t9\n",
        '"","partition","offset"\n"1","0","5"\n"2","1","9"\n',
        "Unnamed: 0,partition,offset,x\n3,0,5,\n1,1,9,a\n",
        "partition,offset\r\n0,5\r\n1,9\r\n",
        "\ufeffpartition,offset\n0,5\n1,9\n",
    ],
)
def test_what_a_notebook_saved_of_a_table_is_read_in_every_dialect(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "part.csv"
    path.write_bytes(text.encode())
    assert trained_to(path) == {"0": 5, "1": 9}


def test_what_pandas_saves_of_a_table_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"partition": [0, 0, 1], "offset": [3, 11, 2], "x": [None, 1.5, 2.0]})
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "all.csv")
    frame.to_csv(tmp_path / "all.csv.gz", index=False)
    for name in ("all.csv", "all.csv.gz"):
        assert trained_to(tmp_path / name) == {"0": 11, "1": 2}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no records with partition and offset, as python -m"),
        ("a,b\n1,2\n", "no records with partition and offset"),
        ("partition,offset\n", "no records with partition and offset"),
        ("partition,offset\n0\n", "a record without its partition and offset"),
        ("partition,offset\n0,\n", "a record without its partition and offset"),
        ("partition,offset\n,7\n", "a record without its partition and offset"),
        ("partition,offset\n0,-1\n", "a record without its partition and offset"),
        ("partition,offset\n0,later\n", "a record without its partition and offset"),
        ("\x80\x04\x95garbage\xff", "no records with"),
    ],
)
def test_a_table_that_says_no_offsets_is_refused_in_one_line(
    text: str, reason: str, tmp_path: Path
) -> None:
    for name in ("part.csv", "part.parquet"):
        path = tmp_path / name
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(TableError) as refused:
            trained_to(path)
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{path}: {reason if name.endswith('csv') else ''}")


def test_records_that_are_said_to_be_trained_on_before_they_exist_are_named() -> None:
    newest = [*found(40), *found(9, partition=12)]
    assert list(not_yet_written({"0": 46, "12": 15, "99": 1_000}, newest)) == []
    (line,) = not_yet_written({"0": 46, "12": 16}, newest)
    assert line == (
        "the newest record of partition 12 has offset 15: those up to 16 will not be counted; was"
        " the model trained on another topic?"
    )


def test_of_several_files_and_places_the_highest_offsets_count() -> None:
    places: list[tuple[int | str, int]] = [(0, 7), (1, 2), ("0", 3), (1, 4), ("20", 0)]
    assert highest_offsets(places) == {"0": 7, "1": 4, "20": 0}
    assert highest_offsets([]) == {}


@pytest.mark.parametrize("name", ["model.joblib", "records", "records.CSVX", "records.xlsx"])
def test_a_file_of_another_kind_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}: expected a name that ends in .csv or .parquet" in line
