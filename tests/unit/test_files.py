"""Files as people have them: what of each is read, and what is said of what is not."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from datagenerator.dialect import SourceError
from datagenerator.file import File, open_file
from datagenerator.look import main as look
from datagenerator.resume import mismatch
from datagenerator.rows import Row, Rows
from datagenerator.settings import Settings
from examples.make_customers import FORMATS, SCHEMA
from stream.layout import Layout, of
from stream.records import (
    FEATURE_LIMIT,
    Cell,
    Record,
    Schema,
    Type,
    decode_record,
    decode_schema,
    encode_record,
    encode_schema,
)
from stream.settings import SettingsError
from tests.services import ROOT

CASES = ROOT / "tests" / "cases"

MakeFile = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> MakeFile:
    def make(content: str | bytes, name: str = "some.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def opened(path: object, label: str | None = "y", **settings: Any) -> File:
    given = Settings.model_validate({"stream": str(path), "label": label, **settings})
    return open_file(given, lambda line: None)


def rows(path: object, label: str = "y", **settings: Any) -> list[Row]:
    return list(opened(path, label, **settings).rows(0))


def features(path: object, label: str = "y", **settings: Any) -> list[list[Cell]]:
    return [row.features for row in rows(path, label, **settings)]


def refused(path: object, label: str | None = "y", **settings: Any) -> str:
    with pytest.raises((SourceError, SettingsError)) as error:
        opened(path, label, **settings)
    return str(error.value)


def shown(path: object, label: str = "y", **settings: Any) -> dict[str, str]:
    """Return the table of what was understood: column to its line."""
    lines: list[str] = []
    given = Settings.model_validate({"stream": str(path), "label": label, **settings})
    open_file(given, lines.append)
    return {line.split("'")[1]: " ".join(line.split()) for line in lines[2:]}


def numbers(count: int = 30) -> str:
    """Return rows whose columns a model could learn from, without their line of names."""
    return "".join(f"{n % 7}.5,{n * n % 11},{'yes' if n % 3 else 'no'}\n" for n in range(count))


@pytest.mark.parametrize(
    ("case", "names", "count", "first"),
    [
        ("quotes_after_space.csv", ["width", "height"], 300, [40.9, 26.3]),
        ("quoted_comma_after_space.csv", ["width", "height, cm"], 300, [40.9, 26.3]),
        ("comma_lines.csv", ["width", "height"], 300, [40.9, 26.3]),
        ("semicolon_decimal_comma.csv", ["width", "height"], 300, [40.9, 26.3]),
        ("thousands.csv", ["width", "height"], 300, [1000, 26.3]),
        ("NA.csv", ["width", "height"], 301, [40.9, 26.3]),
        ("question_marks.csv", ["width", "height"], 301, [None, 20]),
        ("trailing_comma_header.csv", ["width", "height"], 300, [40.9, 26.3]),
        ("index_column.csv", ["width", "height"], 300, [40.9, 26.3]),
        ("huge_int.csv", ["height"], 300, [26.3]),
        ("bool_column.csv", ["width", "fast"], 300, [40.9, 1]),
        ("plain.csv.gz", ["width", "height"], 300, [40.9, 26.3]),
        ("date.csv", ["width", "height"], 300, [40.9, 26.3]),
    ],
)
def test_a_file_from_the_wild_is_read_as_its_owner_means_it(
    case: str, names: list[str], count: int, first: list[Cell]
) -> None:
    found = opened(CASES / case, "sold")
    sent = list(found.rows(0))
    assert found.schema == Schema(names, "sold", "yes", negative="no")
    assert len(sent) == found.size == count
    assert (sent[0].features, sent[0].label) == (first, 1)


def test_a_missing_value_of_the_wild_is_null() -> None:
    assert [row.features for row in rows(CASES / "NA.csv", "sold")][-1] == [None, 20]


def test_a_date_is_sent_as_a_text_and_this_constant_one_is_left_out_unless_asked_for() -> None:
    assert shown(CASES / "date.csv", "sold")["day"].endswith("'2026-01-02' left out: constant")
    asked = opened(CASES / "date.csv", "sold", types="day:time")
    assert asked.schema.types == ["time", "number", "number"]
    assert next(asked.rows(0)).features == ["2026-01-02", 40.9, 26.3]


def test_a_third_label_is_said_with_how_often_each_occurs() -> None:
    line = refused(CASES / "label_dot.csv", "sold")
    assert line.endswith(
        "3 values in 301 rows: 'no' 157 times, 'yes' 143 times, 'yes.' 1 times; a label has two"
    )


def test_a_text_is_sent_as_a_category_beside_the_numbers() -> None:
    found = opened(CASES / "category.csv", "sold")
    assert found.schema == Schema(
        ["width", "zone"], "sold", "yes", types=["number", "category"], negative="no"
    )
    assert next(found.rows(0)).features == [40.9, "north"]
    assert opened(CASES / "category.csv", "sold", drop="zone").schema.types is None


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("semicolons", "a;b;y\n1.5;2;0\n-3;;1\n", {}),
        ("decimal commas", "a;b;y\n1,5;2;0\n-3,0;;1\n", {}),
        ("quoted decimal commas", 'a,b,y\n"1,5",2,0\n"-3,0",,1\n', {}),
        ("tabs", "a\tb\ty\n1.5\t2\t0\n-3\t\t1\n", {}),
        ("pipes", "a|b|y\n1.5|2|0\n-3||1\n", {}),
        ("spaces", "a b y\n1.5 2 0\n-3 NA 1\n", {"separator": "space"}),
        ("a caret", "a^b^y\n1.5^2^0\n-3^^1\n", {"separator": "^"}),
        ("quotes everywhere", '"a","b","y"\n"1.5","2","0"\n"-3","","1"\n', {}),
        ("single quotes", "'a','b','y'\n'1.5','2','0'\n'-3','','1'\n", {}),
        ("quotes after some blanks", '"a", "b","y"\n1.5, "2",0\n-3,"",  "1"\n', {}),
        (
            "quotes in quotes",
            'a,b,c,y\n1.5,2,"he said, ""no, ""yes""""",0\n-3,,"no, no",1\n',
            {"drop": "c"},
        ),
        ("names of rows, as R writes them", "a,b,y\nx,1.5,2,0\nx,-3,,1\n", {}),
        ("blanks around", " a , b , y \n 1.5 , 2 , 0 \n -3 , ? , 1 \n", {}),
        ("lines of Windows", "a,b,y\r\n1.5,2,0\r\n-3,,1\r\n", {}),
        ("lines of old Macs", "a,b,y\r1.5,2,0\r-3,,1\r", {}),
        ("no last newline", "a,b,y\n1.5,2,0\n-3,,1", {}),
        ("a byte order mark", "\ufeffa,b,y\n1.5,2,0\n-3,,1\n", {}),
        ("blank lines", "\na,b,y\n\n1.5,2,0\n   \n-3,,1\n\n", {}),
        ("lines of separators", "a,b,y\n1.5,2,0\n,,\n-3,,1\n, ,\n", {}),
        ("trailing separators", "a,b,y,\n1.5,2,0,\n-3,,1,\n", {}),
        ("a title", "Sales of 2026\n\na,b,y\n1.5,2,0\n-3,,1\n", {}),
        ("Excel's separator line", "sep=;\na;b;y\n1.5;2;0\n-3;;1\n", {}),
        ("percent", "a,b,y\n1.5 %,2%,0\n-3%,,1\n", {}),
        ("missing values by name", "a,b,y\n1.5,2,0\n-3,N/A,1\n", {}),
        ("missing values of one's own", "a,b,y\n1.5,2,0\n-3,-999,1\n", {"nulls": "none,-999"}),
        ("UTF-16", "a,b,y\n1.5,2,0\n-3,,1\n".encode("utf-16"), {}),
        ("gzip", gzip.compress(b"a,b,y\n1.5,2,0\n-3,,1\n", mtime=0), {}),
        ("zstd", zstandard.compress(b"a,b,y\n1.5,2,0\n-3,,1\n"), {}),
    ],
)
def test_a_dialect_is_found_or_set(
    file: MakeFile, name: str, content: str | bytes, settings: dict[str, str]
) -> None:
    path = file(content)
    found = opened(path, **settings)
    assert found.schema == Schema(["a", "b"], "y", "1", negative="0"), name
    assert [(row.features, row.label) for row in found.rows(0)] == [([1.5, 2], 0), ([-3, None], 1)]


@pytest.mark.parametrize(
    ("cells", "settings", "read"),
    [
        (["1,000", "2,500,000.5"], {}, [1000, 2500000.5]),
        (["1 000", "2 500,5"], {}, [1000, 2500.5]),
        (["1.000", "2.500,5"], {}, [1000, 2500.5]),
        (["0,125", "2"], {}, [0.125, 2]),
        (["1'000", "2.5"], {}, [1000, 2.5]),
        (["1,000", "2"], {"decimal": ","}, [1, 2]),
        (["1,000", "2"], {"decimal": "."}, [1000, 2]),
        (["1e5", "-.5"], {}, [1e5, -0.5]),
        (["3.4e38", "-3.4e38"], {}, [FEATURE_LIMIT, -FEATURE_LIMIT]),
        (["nan", "2"], {}, [None, 2]),
        (["TRUE", "no"], {}, [1, 0]),
        (["2026-01-02", "1969-12-31T23:59:59Z"], {}, ["2026-01-02", "1969-12-31T23:59:59Z"]),
        (
            ["2026-01-02T02:00:00+02:00", "2026-01-02 00:00:00.5"],
            {},
            ["2026-01-02", "2026-01-02T00:00:00.5Z"],
        ),
        (["2.1.2026", "31.12.2025 12:00"], {}, ["2026-01-02", "2025-12-31T12:00:00Z"]),
        (["1/2/2026", "1/13/2026"], {}, ["2026-01-02", "2026-01-13"]),
        (["2/1/2026", "13/1/2026"], {}, ["2026-01-02", "2026-01-13"]),
        (["0001-01-01", "9999-12-31 23:59"], {}, ["0001-01-01", "9999-12-31T23:59:00Z"]),
        (["yes", "No", "maybe"], {}, ["yes", "No", "maybe"]),
        (["1", "a", "02", "1e3", "b", "c"], {}, ["1", "a", "02", "1e3", "b", "c"]),
        (["01234", "1,5"], {"types": "a:category", "decimal": ","}, ["01234", "1,5"]),
        (["yes", "no"], {"types": "a:category"}, ["yes", "no"]),
        (["2026-01-02", "2026-01-03"], {"types": "a:category"}, ["2026-01-02", "2026-01-03"]),
        (["x", '""', "NA", '" "', "-"], {}, ["x", None, None, None, None]),
        (["x", "NA", "none"], {"nulls": "none"}, ["x", "NA", None]),
    ],
)
def test_a_cell_is_a_number_a_boolean_a_time_or_a_category_as_its_column_tells(
    file: MakeFile, cells: list[str], settings: dict[str, str], read: list[Cell]
) -> None:
    path = file("a;y\n" + "".join(f"{cell};{n % 2}\n" for n, cell in enumerate(cells)))
    assert features(path, **settings) == [[value] for value in read]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)),
    st.sampled_from(["", "Z", "+05:30", "-11:00"]),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_a_time_is_sent_as_the_text_of_the_very_time_that_the_file_says(
    time: datetime, offset: str
) -> None:
    said = f"{time.isoformat()}{offset}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.csv"
        path.write_text(f"t,y\n{said},0\n{said},1\n2026-12-31,0\n")
        found = opened(path)
        sent = next(found.rows(0)).features[0]
        found.as_recorded(Schema(["t"], "y", "1"))
        before = next(found.rows(0)).features[0]
    wanted = datetime.fromisoformat(said)
    wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)
    read = Layout(1, ["t"], ["time"]).read(Record(0, [sent])).features[0]
    assert read == wanted.timestamp()
    assert before == pytest.approx(read, rel=0, abs=1e-6)


def test_whole_numbers_and_points_are_read_as_the_decimal_commas_beside_them_say(
    file: MakeFile,
) -> None:
    path = file("a;b;y\n1.000;1,5;0\n2;2,5;1\n")
    assert features(path) == [[1000, 1.5], [2, 2.5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{}, line 1: the file is empty; expected a line of column names"),
        ("\n\n", "{}, line 1: the file is empty; expected a line of column names"),
        ("a,y\n1,0\n2,1\nabc,1\n", "{}, line 4, column 'a': 'abc' is not a number within ±3.4e+38"),
        ("a,y\n1,0\n2,1\n-inf,1\n", "{}, line 4, column 'a': '-inf' is not a number within"),
        ("a,y\n1e39,0\n1,1\n2,1\n", "{}, line 2, column 'a': '1e39' is not a number within"),
        ("a,y\n1_0,0\n1,1\n2,1\n", "{}, line 2, column 'a': '1_0' is not a number within"),
        ('a,b,y\n1,"u\nv",0\n\n2,,1\nx,,1\n', "line 6, column 'a': 'x' is not a number"),
        ("a,b,y\n1,2,0\n1\n\n,,\n2,2,1\nx,2,1\n", "{}, line 7, column 'a': 'x' is not a number"),
        ("a,y\n1,0\n1\n2,1\n", "{}, line 3: 1 cells, expected 2: '1'; if it is a title, a total"),
        ("a,y\n1,0\n1,1,1\n2,1\n", "{}, line 3: 3 cells, expected 2: '1,1,1'"),
        ("a,y\n1,0\n2,1\nTotal: 2 rows\n", "{}, line 4: 1 cells, expected 2: 'Total: 2 rows'"),
        ("a,y\n1,0\n" + '"1,1\n2,0\n', "{}, line 3: a quote that is not closed"),
        ("a,y\n1,0\n2,1\nb,1\n", "; else TYPES=a:category or DROP=a"),
        ("a,y\n2026-01-02,0\n2026-01-02,1\n0000-01-02,0\n", "'0000-01-02' is not a time, as"),
        ("a,a,y\n1,2,0\n1,2,1\n", "{}, column 2: 'a' is there twice; each column needs a name"),
        ("y\n1\n0\n", "{}: no column is left"),
        ("a,y\n1,0\n1,1\n1,2\n", "3 values in 3 rows: '0' 1 times, '1' 1 times, '2' 1 times; a"),
        ("a,y\n1,0\n1,0\n", "{}, column 'y': 1 value in 2 rows: '0' 2 times; a label has two"),
        ("a,y\n1,\n2,\n", "{}, column 'y': 0 values in 2 rows: none; a label has two"),
        ("a;y\n1,000;0\n2,000;1\n", "'1,000' may be read in two ways; say which mark is the dec"),
        ("a,y\n1/2/2026,0\n3/4/2026,1\n", "'1/2/2026' may begin with the day or with the month"),
        (
            f"a,b,y\n1,u,0\n2,v,1\n3,{'é' * 129},1\n4,v,0\n",
            "{}, line 4, column 'b': '" + "é" * 40 + "…' has 258 bytes, and a category has at most"
            " 256; leave the column out with DROP=b",
        ),
        (b"a,y\n1,0\n2,K\xe4se\n", "{}, line 3: not UTF-8; ENCODING=latin-1 reads Western"),
        (gzip.compress(b"a,y\n" * 9_000, mtime=0)[:60], "{}: packed with gzip, and damaged: "),
        (b"PK\x03\x04abc", "{} is a zip archive or an Excel workbook; unpack it, or save it as"),
        ("a,y\n1,0\n".encode("utf-16-be"), "binary data, or UTF-16 without a byte order mark"),
        (b"\xfe\xff" + "a,y\n".encode("utf-16-be"), "{} is UTF-16 with the high byte first; save"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_with_the_place_and_what_to_do(
    file: MakeFile, content: str | bytes, message: str
) -> None:
    path = file(content)
    assert message.format(path) in refused(path)


def test_bytes_that_are_not_utf8_far_into_a_file_are_named_by_line(file: MakeFile) -> None:
    rows = "".join(f"{n % 7},{n % 2}\n" for n in range(100_000))
    path = file(f"a,y\n{rows}".encode() + b"K\xe4se,1\n")
    assert f"{path}, line 100002: not UTF-8; ENCODING=latin-1" in refused(path)
    assert f"{path}, line 100002, column 'a': 'Käse' is not a number" in refused(
        path, encoding="ISO-8859-1"
    )


def test_the_marks_that_windows_has_besides_latin1_are_named(file: MakeFile) -> None:
    path = file("a,y\n1,0\n2,1\n5€,1\n".encode("cp1252"))
    assert refused(path, encoding="latin-1").startswith(f"{path}: not LATIN-1; save it as UTF-8")


def test_all_that_is_wrong_is_said_at_once(file: MakeFile) -> None:
    path = file(f"a,b,c,y\n1,{'u' * 257},5,no\n2,v,5,maybe\n3,v,x,yes\n4,w,5,yes\nend\n")
    line = refused(path, drop="z", types="a:text")
    assert line.startswith("6 problems: (1) DROP=z: ")
    for part in ("TYPES=a:text", "line 6: 1 cells", "'x' is not a number", "3 values", "257 bytes"):
        assert part in line


def test_text_in_a_message_is_quoted_and_cut(file: MakeFile) -> None:
    path = file(f"a,y\n1,0\n2,1\n\x1b[31m{'x' * 100},1\n")
    assert rf"column 'a': '\x1b[31m{'x' * 35}…' is not" in refused(path)


def test_a_name_in_a_message_is_quoted_and_cut_too(file: MakeFile) -> None:
    path = file(f"{'n' * 100},\x1b[2J,b,y\n{'u' * 300},{'v' * 300},1.5,0\nx,w,2.5,1\n")
    line = refused(path)
    assert "\x1b" not in line
    assert "n" * 41 not in line
    assert "u" * 41 not in line
    assert f"DROP='{'n' * 40}…'" in line
    assert r"DROP='\x1b[2J'" in line


def test_a_category_has_at_most_256_bytes_in_the_form_in_which_it_is_sent(file: MakeFile) -> None:
    longest = "é" * 128
    assert len(unicodedata.normalize("NFD", longest).encode()) > 256
    path = file(f"a,y\n{unicodedata.normalize('NFD', longest)},0\n{'🧀' * 64},1\n")
    assert features(path) == [[longest], ["🧀" * 64]]
    assert "has 257 bytes" in refused(file(f"a,y\n{longest}x,0\n{'🧀' * 64},1\n"))


def test_two_forms_of_unicode_are_one_category_one_label_and_one_name(file: MakeFile) -> None:
    nfd = unicodedata.normalize("NFD", "Zürich")
    path = file(f"{nfd},Größe,y\nZürich,1,é\n{nfd},2,e\u0301\nBern,3,b\nBern,4,b\n")
    given = {"label": "y", "positive": "e\u0301", "drop": unicodedata.normalize("NFD", "Größe")}
    found = opened(path, **given)
    assert found.schema == Schema(["Zürich"], "y", "é", types=["category"], negative="b")
    sent = [(row.features, row.label) for row in found.rows(0)]
    assert sent == [(["Zürich"], 1), (["Zürich"], 1), (["Bern"], 0), (["Bern"], 0)]
    found.as_recorded(
        decode_schema(encode_schema(Schema([nfd], "y", "é", {nfd: "category"}, ["category"])))
    )
    assert found.schema.feature_names == ["Zürich"]
    assert "'Zürich' is there twice" in refused(file(f"{nfd},Zürich,y\n1,2,0\n2,3,1\n"))


def test_whatever_scripts_quotes_and_control_characters_a_category_has_it_is_sent_whole(
    file: MakeFile, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["\x1b[31mred\x07", "a\u202eb", "مرحبا", "it's", "🧀", "北京", "\u0085", "x\ty", '"']
    cells = ['"' + text.replace('"', '""') + '"' for text in texts]
    path = file("a,y\n" + "".join(f"{cell},{n % 2}\n" for n, cell in enumerate(cells)))
    assert features(path) == [[text] for text in texts]
    assert all(line.isprintable() for line in shown(path).values())


def test_a_column_of_many_categories_is_sent_and_said_to_have_many(file: MakeFile) -> None:
    path = file("a,b,y\n" + "".join(f"u{n % 400},v{n % 9},{n % 2}\n" for n in range(1_000)))
    found = shown(path)
    assert found["a"].endswith("' many categories; models tell the commonest apart")
    assert found["b"] == "'b' category 0.0 % 9 'v0'"
    assert opened(path).schema.feature_names == ["a", "b"]


def test_a_table_says_of_which_type_the_features_are_that_are_sent(file: MakeFile) -> None:
    path = file("a;b;c;d;y\nyes;1,5;1.2.2026;u;0\nno;2,5;13.2.2026;v;1\nno;1;1.2.2026;u;1\n")
    kinds = [" ".join(line.split("'")[2].split()[:2]) for line in shown(path).values()]
    assert kinds == [
        *("number true/false", "number 1.000,5", "time 31.12.2026", "category 0.0", "category 0.0")
    ]


@pytest.mark.parametrize(
    ("texts", "positive"),
    [("01", "1"), (("no", "Yes"), "Yes"), (("TRUE", "FALSE"), "TRUE"), (("N", "Y"), "Y")],
)
def test_the_positive_text_is_known_where_it_is_plain(
    file: MakeFile, texts: tuple[str, str], positive: str
) -> None:
    path = file(f"a,y\n1,{texts[0]}\n2,{texts[1]}\n")
    assert opened(path).schema.positive == positive
    assert [row.label for row in rows(path)] == [int(text == positive) for text in texts]


@pytest.mark.parametrize("positive", ["sick", "well"])
def test_it_is_asked_for_elsewhere_and_an_empty_label_is_none(
    file: MakeFile, positive: str
) -> None:
    path = file("a,y\n1,sick\n2,well\n3,\n")
    assert "POSITIVE: say which value of column 'y'" in refused(path)
    assert refused(path).endswith("means 1: 'sick' or 'well'")
    assert refused(path, positive="Sick").endswith("allowed are 'sick' and 'well'")
    labels = [row.label for row in rows(path, positive=positive)]
    assert labels == [int(positive == "sick"), int(positive == "well"), None]


def test_a_column_that_is_not_there_is_refused_with_those_that_are(file: MakeFile) -> None:
    path = file("a,y\n1,0\n2,1\n")
    assert refused(path, None) == (
        f"LABEL: name the column of {path} that holds the label; it has 'a', 'y'"
    )
    assert refused(path, "z").startswith(f"LABEL=z: {path} has no such column; it has 'a', 'y'")
    for setting in ("id", "time", "drop"):
        line = refused(path, **{setting: "q"})
        assert line == f"{setting.upper()}=q: {path} has no such column; it has 'a', 'y'"


def test_what_no_model_can_learn_from_is_left_out_with_the_reason(file: MakeFile) -> None:
    head = "card,name,a,b,same,empty,copy,sold\n"
    lines = [
        f"{90 - n},n{n},{n % 7}.5,{n * n % 11},5,,{n % 3 > 0},{'yes' if n % 3 else 'no'}\n"
        for n in range(30)
    ]
    path = file(head + "".join(lines))
    found = shown(path, "sold")
    assert opened(path, "sold").schema.feature_names == ["a", "b"]
    for column, why in [
        ("card", "identifier"),
        ("name", "identifier"),
        ("same", "constant"),
        ("empty", "no value"),
        ("copy", "repeats the label"),
    ]:
        assert found[column].endswith(f"left out: {why}")
    assert found["a"] == "'a' number 0.0 % 7 '0.5'"
    assert found["sold"].endswith("'no' LABEL, 1 is 'yes'")
    kept = opened(path, "sold", types="card:number,copy:number").schema.feature_names
    assert kept == ["card", "a", "b", "copy"]


def test_numbers_that_differ_in_all_rows_but_are_not_whole_are_features(file: MakeFile) -> None:
    path = file("a,y\n" + "".join(f"{n}.25,{n % 2}\n" for n in range(30)))
    assert opened(path).schema.feature_names == ["a"]


def test_an_identifier_of_a_million_rows_is_told_from_a_number_that_repeats_once(
    file: MakeFile,
) -> None:
    ids = [f"{n * 7919 % 1_000_003},{n % 5},{n % 2}\n" for n in range(600_000)]
    assert opened(file("id,a,y\n" + "".join(ids))).schema.feature_names == ["a"]
    ids[0], ids[1:20_001] = ids[1], ids[20_001:40_001]
    assert opened(file("id,a,y\n" + "".join(ids))).schema.feature_names == ["id", "a"]


def test_columns_are_dropped_and_named_also_where_their_names_have_commas(file: MakeFile) -> None:
    path = file(f'"a, b",c,sold\n{numbers()}')
    assert opened(path, "sold", drop="a, b").schema.feature_names == ["c"]
    assert opened(path, "sold", drop='"a, b"').schema.feature_names == ["c"]
    assert opened(path, "sold", drop="c").schema.feature_names == ["a, b"]


def test_a_restart_reads_the_columns_as_the_schema_says_though_the_file_has_grown(
    file: MakeFile,
) -> None:
    head = "same,a,b,sold\n"
    before = opened(
        file(head + "".join(f"5,{line}" for line in numbers().splitlines(True))), "sold"
    )
    recorded = decode_schema(encode_schema(before.schema))
    assert recorded.feature_names == ["a", "b"]
    assert recorded.file_columns == {
        "same": "left out: constant",
        "a": "number",
        "b": "number",
        "sold": "left out: LABEL",
    }
    grown = [f"{n},{line}" for n, line in enumerate(numbers(60).splitlines(True))]
    after = opened(
        file("later," + head + "".join(f"{n % 3},{x}" for n, x in enumerate(grown))), "sold"
    )
    assert after.schema.feature_names == ["later", "a", "b"]
    after.as_recorded(recorded)
    assert after.schema == recorded
    assert next(after.rows(0)).features == [0.5, 0]


def test_the_features_that_the_version_before_sent_are_sent_though_one_is_constant(
    file: MakeFile,
) -> None:
    found = opened(
        file("same,a,b,sold\n" + "".join(f"5,{x}" for x in numbers().splitlines(True))), "sold"
    )
    before = Schema(["same", "a", "b"], "sold", "yes")
    assert found.schema != before
    found.as_recorded(before)
    assert mismatch("d", "d.schema", found.schema, before, []) is None
    assert next(found.rows(0)).features == [5, 0.5, 0]


def test_a_schema_of_somebody_else_changes_nothing(file: MakeFile) -> None:
    found = opened(file(f"a,b,sold\n{numbers()}"), "sold")
    found.as_recorded(Schema(["x"], "y", "1"))
    assert found.schema == Schema(["a", "b"], "sold", "yes", negative="no")


MIXED = "a,plan,since,zip,sold\n" + "".join(
    f"{n % 7}.5,{'pro' if n % 3 else 'free'},2026-01-{n % 28 + 1:02d},0{n % 5},"
    f"{'no' if n % 4 else 'yes'}\n"
    for n in range(60)
)


def test_the_version_before_sent_times_as_seconds_and_its_stream_goes_on_so(file: MakeFile) -> None:
    found = opened(file(MIXED), "sold")
    assert found.schema.types == ["number", "category", "time", "number"]
    columns = {"a": "number", "plan": "left out: DROP", "since": "time", "zip": "number"}
    before = Schema(["a", "since", "zip"], "sold", "yes", columns)
    source = Rows(found, 1, repeat=False, in_order=True)
    source.as_recorded(before)
    assert mismatch("d", "d.schema", source.schema, before, []) is None
    assert source.schema.types is None
    assert next(source.records(0)).record.features == [0.5, 1767225600, 0]


def test_a_schema_with_types_is_followed_by_type_and_what_it_left_out_stays_out(
    file: MakeFile,
) -> None:
    asked = opened(file(MIXED), "sold", drop="plan", types="zip:category")
    recorded = decode_schema(encode_schema(asked.schema))
    assert recorded.types == ["number", "time", "category"]
    found = opened(file(MIXED), "sold")
    found.as_recorded(recorded)
    assert found.schema == recorded
    assert found.schema.file_columns["plan"] == "left out: not in the schema on the topic"
    assert next(found.rows(0)).features == [0.5, "2026-01-01", "00"]


def test_a_feature_that_the_file_does_not_have_of_its_type_is_a_mismatch_that_is_named(
    file: MakeFile,
) -> None:
    found = opened(file(MIXED), "sold")
    other: list[list[Type]] = [["number"] * 4, ["number", "category", "time", "time"]]
    for types in other:
        schema = Schema(["a", "plan", "since", "zip"], "sold", "yes", types=types)
        own = found.schema
        found.as_recorded(schema)
        assert found.schema is own
        line = mismatch("d", "d.schema", own, schema, [])
        assert line is not None
        assert ("'zip' time, …" if types[3] == "time" else "('plan', 'since', …)") in line


def test_an_id_of_ones_own_names_the_record_and_is_no_feature(file: MakeFile) -> None:
    path = file("id,name,a,y\n17,x7,1.5,0\n4,x5,2.5,1\n9,x9,2.5,1\n")
    assert [row.id for row in rows(path, id="id", drop="name")] == [17, 4, 9]
    assert [row.id for row in rows(path, id="name", drop="id")] == ["x7", "x5", "x9"]
    zeros = file("id,a,y\n007,1.5,0\n008,2.5,1\n")
    assert [row.id for row in rows(zeros, id="id")] == ["007", "008"]
    assert refused(file("id,a,y\n1,1.5,0\n,2.5,1\n"), id="id").endswith("1 rows have no id")
    long = file(f"id,a,y\n1,1.5,0\n{'é' * 129},2.5,1\n")
    assert refused(long, id="id").endswith("an id has at most 256 bytes")


def test_rows_with_times_are_sent_in_the_order_of_the_file_which_has_to_be_sorted(
    file: MakeFile,
) -> None:
    path = file("t,a,y\n2026-01-01,1,0\n2026-01-02,2,1\n2026-01-02,3,1\n")
    sent = list(Rows(opened(path, time="t"), 1, repeat=False, in_order=True).records(0))
    assert [(timed.record.features, timed.time - 1767225600) for timed in sent] == [
        ([1], 0),
        ([2], 86400),
        ([3], 86400),
    ]
    mixed = file("t,a,y\n2026-01-02,1,0\n2026-01-01,2,1\n2026-01-02,3,1\n")
    assert refused(mixed, time="t").endswith(
        "1 rows are earlier than the row before; sort the file"
    )
    assert "'a' is not a time" in refused(file("t,a,y\na,1,0\nb,2,1\n"), time="t")


def test_a_label_comes_as_far_after_its_record_as_its_time_is_and_never_where_it_has_none(
    file: MakeFile,
) -> None:
    path = file(
        "t,a,known,y\n2026-01-01,1,2026-01-02,0\n2026-01-02,2,,1\n"
        "2026-01-02,3,2026-01-01 23:00,1\n2026-01-02,4,2026-01-05,\n"
    )
    found = opened(path, time="t", label_time="known")
    assert found.schema.feature_names == ["a"]
    assert found.longest_delay == 3 * 86_400
    expected = [(0, 86_400), (None, None), (1, -3_600), (None, 3 * 86_400)]
    assert [(row.label, row.label_delay) for row in found.rows(0)] == expected
    sent = Rows(found, 1, repeat=False, in_order=True).records(2)
    assert [(timed.record.id, timed.label_delay) for timed in sent] == [(2, -3_600), (3, 259_200)]
    assert shown(path, time="t", label_time="known")["known"].endswith("' LABEL_TIME")
    found.as_recorded(Schema(["a", "known"], "y", "1"))
    assert found.schema.feature_names == ["a"]  # what was sent as a feature before is refused
    assert [row.label_delay for row in found.rows(0)] == [delay for _, delay in expected]
    assert rows(path, time="t", drop="known")[1].label == 1


def test_times_of_labels_that_have_none_to_compare_with_are_refused(file: MakeFile) -> None:
    path = file("t,a,n,y\n2026-01-01,1,5,0\n2026-01-02,2,6,1\n")
    assert refused(path, time="t", label_time="n").endswith(
        ", column 'n': of kind number, and TIME is of kind time; both have to be the same"
    )
    assert refused(path, time="t", label_time="k").startswith(f"LABEL_TIME=k: {path} has no such")
    assert "'x' is not a time" in refused(
        file("t,a,n,y\n1,1,5,0\n2,2,6,1\n3,2,x,1\n"), time="t", label_time="n"
    )
    gap = file("t,a,n,y\n1,1,5,0\n,2,6,1\n3,3,6,1\n")
    assert refused(gap, time="t").endswith(", column 't': 1 rows have no time")


def test_times_may_be_whole_numbers_that_no_float_tells_apart(file: MakeFile) -> None:
    start = 1_767_225_600_000_000_000
    lines = "".join(f"{start + n * 10**9},{n},{start + n * 3 * 10**9},{n % 2}\n" for n in range(3))
    found = rows(file(f"t,a,n,y\n{lines}"), time="t", label_time="n")
    assert [row.label_delay for row in found] == [0, 2e9, 4e9]


def test_parquet_and_json_lines_are_read_like_text(tmp_path: Path) -> None:
    table = "SELECT 1.5 AS a, true AS b, DATE '2026-01-02' AS c, 'yes' AS y UNION ALL"
    table += " SELECT NULL, false, DATE '2026-01-03', 'no'"
    duckdb.execute(f"COPY ({table}) TO '{tmp_path / 't.parquet'}' (FORMAT parquet)")
    (tmp_path / "t.jsonl").write_text(
        '{"a": 1.5, "b": true, "c": "2026-01-02", "y": "yes"}\n'
        '{"y": "no", "c": "2026-01-03", "b": false}\n'
    )
    for name in ("t.parquet", "t.jsonl"):
        assert features(tmp_path / name) == [[1.5, 1, "2026-01-02"], [None, 0, "2026-01-03"]]
    (tmp_path / "bad.jsonl").write_text('{"a": 1, "y": 0}\n{"a": \n{"a": 3, "y": 1}\n')
    assert re.search(r"bad\.jsonl: Malformed JSON .* in line 3", refused(tmp_path / "bad.jsonl"))


def test_customers_as_text_and_as_parquet_are_the_records_that_their_producer_sends(
    tmp_path: Path,
) -> None:
    sent = [decode_record(line) for line in FORMATS["jsonl"]().splitlines()]
    assert len(sent) == 5_000
    layout = of(schema := decode_schema(json.dumps(SCHEMA).encode()))
    for kind in ("csv", "parquet"):
        path = tmp_path / f"customers.{kind}"
        path.write_bytes(FORMATS[kind]())
        given = {"id": "customer", "time": "billed", "types": "zip:category"}
        found = Rows(opened(path, "churned", **given), 1, repeat=False, in_order=True)
        assert found.schema == schema
        assert found.schema.file_columns["country"] == "left out: constant"
        records = [timed.record for timed in found.records(0)]
        assert [r.label for r in records] == [int(r.label == "yes") for r in sent]
        assert [layout.read(Record(r.id, r.features)) for r in records] == [
            layout.read(Record(r.id, r.features)) for r in sent
        ]


def test_a_folder_or_a_pattern_is_read_in_the_order_of_its_names(file: MakeFile) -> None:
    for name, number in (("b.csv", 2), ("a.csv", 1), ("c.csv", 3), ("read.me", 9), ("d.tsv", 9)):
        path = file(f"a,y\n{number},0\n{number},1\n", f"many/{name}")
    path.unlink()
    assert features(path.parent) == [[1], [1], [2], [2], [3], [3]]
    assert features(path.parent / "[ac].csv") == [[1], [1], [3], [3]]
    file("a;y\n1;0\n", "many/e.csv")
    assert "e.csv is laid out otherwise than" in refused(path.parent)
    (path.parent / "none").mkdir()
    assert "no file there that ends in .csv" in refused(path.parent / "none")


def test_what_was_understood_is_shown_without_kafka_and_all_that_is_wrong_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["look", str(CASES / "category.csv")])
    assert look() == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"{CASES / 'category.csv'}: 300 rows, 3 features"
    assert " ".join(shown.splitlines()[3].split()) == "'zone' category 0.0 % 2 'north'"
    monkeypatch.setattr(sys, "argv", ["look", str(CASES / "label_dot.csv")])
    monkeypatch.setenv("DROP", "none")
    monkeypatch.setenv("LABEL", "sold")
    assert look() == 1
    shown, wrong = capsys.readouterr()
    assert len(shown.splitlines()) == 5
    assert wrong.count("\n") == 1
    assert "2 problems: (1) DROP=none: " in wrong
    assert "'yes.' 1 times" in wrong
    monkeypatch.delenv("DROP")
    monkeypatch.setattr(sys, "argv", ["look", str(CASES / "index_column.csv")])
    assert look() == 0
    assert "left out: identifier" in capsys.readouterr().out


def test_a_zip_archive_is_called_by_its_name(file: MakeFile) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("a.csv", "a,y\n1,0\n")
    assert "is a zip archive" in refused(file(held.getvalue(), "a.csv"))


def test_a_thousand_columns_are_read(file: MakeFile) -> None:
    names = ",".join(f"x{n}" for n in range(1_000))
    lines = "".join(f"{','.join([f'{n % 7}.5'] * 1_000)},{n % 2}\n" for n in range(30))
    assert len(features(file(f"{names},y\n{lines}"))[0]) == 1_000


def test_more_columns_than_are_read_are_refused(file: MakeFile) -> None:
    names = ",".join(f"x{n}" for n in range(1_001))
    assert refused(file(f"{names},y\n")).endswith(": 1002 columns; at most 1001 are read")


def test_rows_are_shuffled_in_blocks_and_a_run_that_resumes_goes_on_exactly(file: MakeFile) -> None:
    path = file("a,y\n" + "".join(f"{n}.5,{n % 2}\n" for n in range(100)))
    source = Rows(opened(path), 1, repeat=True, cells=30)
    sent = [timed.record for timed in islice(source.records(0), 250)]
    assert [record.id for record in sent] == list(range(250))
    first, second = ([float(r.features[0] or 0) for r in sent[at : at + 100]] for at in (0, 100))
    assert sorted(map(str, first)) == sorted(map(str, second))
    assert first != second
    assert all(n * 30 <= value < n * 30 + 30 for n in range(4) for value in first[n * 30 :][:30])
    assert first[:30] != sorted(first[:30])
    for start in (1, 30, 77, 100, 199):
        again = zip(source.records(start), sent[start:], strict=False)
        assert all(a.record == b for a, b in again)


def test_the_order_is_that_of_the_features_which_are_sent_though_the_file_has_grown_a_column(
    file: MakeFile,
) -> None:
    lines = [f"{n}.5,{n % 9},{n % 2}\n" for n in range(100)]
    before = Rows(opened(file("a,b,y\n" + "".join(lines))), 1, repeat=False, cells=30)
    sent, recorded = [*before.records(0)], before.schema
    grown = opened(file("c,a,b,y\n" + "".join(f"{n % 7},{x}" for n, x in enumerate(lines))))
    after = Rows(grown, 1, repeat=False, cells=30)
    after.as_recorded(recorded)
    assert [*after.records(40)] == sent[40:]


CELLS = st.sampled_from(
    ["1", "2.5", "-3", '"4"', " 5", "NA", "", "1,5", "a", '"', "'", "\x1b", "é"]
)


@given(
    st.lists(st.tuples(CELLS, CELLS, st.sampled_from("01")), max_size=12), st.sampled_from(",;\t|")
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_whatever_its_cells_hold_a_file_is_read_whole_or_refused(
    cells: list[tuple[str, str, str]], separator: str
) -> None:
    lines = [["a", "b", "y"], *map(list, cells)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.csv"
        path.write_text("".join(f"{separator.join(line)}\n" for line in lines))
        try:
            found = opened(path)
        except (SourceError, SettingsError):
            return
        sent = [timed.record for timed in Rows(found, 1, repeat=False).records(0)]
    # Between two quotes, a cell may have several lines.
    quoted = any(cell in ('"', "'") for line in cells for cell in line)
    assert len(sent) == len(cells) or (quoted and len(sent) < len(cells))
    layout = of(found.schema)
    for record in sent:
        again = decode_record(encode_record(record))
        assert (again.id, again.features, again.label) == (
            *(record.id, record.features, record.label),
        )
        layout.read(again)


MEASURE = """
import re
import sys
from itertools import islice
from pathlib import Path
from datagenerator.file import open_file
from datagenerator.rows import Rows
from datagenerator.settings import Settings
settings = Settings.model_validate({"stream": sys.argv[1], "label": "y"})
source = Rows(open_file(settings, print), 1, repeat=False)
print(sum(1 for _ in islice(source.records(150_000), 100_000)))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_a_large_file_takes_no_more_memory_than_a_small_one(file: MakeFile) -> None:
    names = ",".join(f"x{n}" for n in range(40))
    some = [",".join(f"0.{n * k % 9973:09d}" for k in range(1, 41)) for n in range(1, 500)]
    path = file(f"{names},y\n")
    with path.open("a") as out:
        for n in range(250_000):
            out.write(f"{some[n % 499]},{n % 2}\n")
    assert path.stat().st_size > 100 * 2**20
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    *_, sent, kilobytes = done.stdout.split()
    assert sent == "100000"
    assert int(kilobytes) < 320_000  # of 512 MB
