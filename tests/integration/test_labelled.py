"""From the stream to a file, to a model trained on it, and back to the stream."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import pandas as pd
import pytest

from modelgenerator.labelled.__main__ import main
from modelgenerator.publish import publish
from modelgenerator.publish.__main__ import main as publish_main
from stream.records import Label, Schema, encode_label
from tests.services import Services, eventually
from tests.topics import Topics, regression

TRAIN = """
import sys
import duckdb, joblib, pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

source, part, target = sys.argv[1:]
if source.endswith(".csv"):
    found = pd.read_csv(source)
else:
    found = pd.DataFrame(duckdb.read_parquet(source).fetchnumpy())
half = found[: len(found) // 2]
half.to_csv(part)
model = make_pipeline(SimpleImputer(), LogisticRegression())
joblib.dump(model.fit(half[["age", "id_2"]], half["label"]), target)
print(half["offset"].max())
"""


@pytest.fixture
def topics(topics: Topics, settings_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Topics:
    """Topics that the environment names, too."""
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    return topics


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_model_trained_on_a_part_of_the_file_is_not_counted_on_what_it_has_seen(
    ending: str,
    topics: Topics,
    start: Services,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topics.describe(Schema(["age", "id_2"], "income", ">50K"))
    topics.write(300)
    topics.write_values(
        [
            b'{"id":"null","features":[null,-0.5],"label":1}',
            b'{"id":"wide","features":[1,2,3],"label":1}',
            b"garbage",
        ]
    )
    topics.write(20, label=False)
    path, part, model = tmp_path / f"all.{ending}", tmp_path / "part.csv", tmp_path / "m.joblib"
    assert main([str(path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines() == [
        f"wrote 301 labelled records of {topics.settings.data_topic} to {path}, 2 features each",
        "left out: 1 that do not fit the stream, 1 invalid, 20 unlabelled",
        f"publish what was trained on it with --trained-to {path}",
    ]
    trained = start.python("-c", TRAIN, str(path), str(part), str(model))
    assert (trained.returncode, trained.stdout) == (0, "149\n"), trained.stderr

    for given, highest in ((path, 300), (part, 149)):
        trained_to = ("--trained-to", str(given), "--backtest")
        assert publish_main([str(model), "--no-wait", "--no-pin", *trained_to]) == 0
        assert "its figures are too high" not in capsys.readouterr().out
        assert topics.models()[-1]["trained_to"] == {"0": highest}
    assert publish(joblib.load(model), trained_to=str(part), wait=0) == 3
    assert topics.models()[-1]["trained_to"] == {"0": 149}
    start("predictor")
    eventually(lambda: topics.answered() == 323)
    seen = {p["source"][1] for p in topics.predictions() if p.get("seen")}
    assert seen == set(range(150))
    verified = start.verify()
    assert verified.returncode == 0, verified.stdout + verified.stderr
    topics.check()


def test_names_that_are_taken_are_changed_and_the_newest_are_enough(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.describe(Schema(["id", "ID"], "label", "1"))
    topics.write(50)
    path = tmp_path / "newest.csv"
    assert main([str(path), "--last", "10"]) == 0
    head, *lines = path.read_text().splitlines()
    assert head == "partition,offset,timestamp,id,id_2,ID_3,label"
    assert [line.split(",")[1] for line in lines] == [str(offset) for offset in range(40, 50)]
    assert "renamed, as their names were taken: id_2, ID_3" in capsys.readouterr().out

    assert main([str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: exists already; --force overwrites it\n"
    assert main([str(path), "--force"]) == 0
    assert len(path.read_text().splitlines()) == 51
    assert [each.name for each in tmp_path.glob("*newest*")] == ["newest.csv"]


def test_what_cannot_be_written_is_said_in_one_line_and_leaves_no_file(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())

    def refused(path: Path) -> str:
        assert main([str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    data = topics.settings.data_topic
    assert refused(tmp_path / "a.csv") == f"{data}: no record that can be read, nothing was written"
    topics.write(5, label=False)
    assert refused(tmp_path / "a.parquet") == (
        f"{data}: no labelled record, nothing was written; left out: 5 unlabelled"
    )
    path = tmp_path / "none" / "a.csv"
    assert refused(path) == f"{path}: cannot be written: No such file or directory"
    os.environ["DATA_TOPIC"] = "no-such-topic"
    assert "no topic no-such-topic" in refused(tmp_path / "a.csv")
    assert sorted(tmp_path.iterdir()) == before


def test_what_a_model_was_trained_on_can_be_several_files_and_places(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from modelgenerator.publish.__main__ import main as command

    topics.write(10)
    joblib.dump(regression(), tmp_path / "model.joblib")
    (tmp_path / "a.csv").write_text("partition,offset\n0,7\n2,1\n")
    run = [str(tmp_path / "model.joblib"), "--no-wait", "--trained-to"]
    assert command([*run, str(tmp_path / "a.csv"), "0:5", "1:3", "2:4"]) == 0
    assert topics.models()[-1]["trained_to"] == {"0": 7, "1": 3, "2": 4}
    capsys.readouterr()
    for wrong in ("5", "0:x", "0:-1", str(tmp_path / "none.csv"), str(tmp_path)):
        with pytest.raises(SystemExit) as ended:
            command([*run, wrong])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "neither PARTITION:OFFSET nor a table of records: [Errno" in line
        assert wrong in line


def test_labels_that_came_later_are_in_the_file_and_in_the_backtest(
    topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics.write(300, label=False)
    wrong = [Label(0, id=n) for n in range(100)]
    late = [*wrong[:50], *(Label(1, source=(0, n)) for n in range(100, 200)), *wrong[50:]]
    again = [Label(1, id=0), Label(1, id=1, revises=True), Label(1, id="nobody")]
    for label in late + again:
        topics.producer.send(topics.settings.label_topic, encode_label(label), partition=0)
    topics.producer.flush(30)
    topics.write(10)
    path = tmp_path / "late.csv"
    assert main([str(path)]) == 0
    assert "left out: 100 unlabelled\n" in capsys.readouterr().out
    found = pd.read_csv(path)
    assert found["offset"].tolist() == [*range(200), *range(300, 310)]
    assert found["label"].tolist()[:200] == [0, 1] + [0] * 98 + [1] * 100
    assert main([str(path), "--force", "--last", "160"]) == 0
    assert pd.read_csv(path)["offset"].tolist() == [*range(150, 200), *range(300, 310)]
    model = tmp_path / "m.joblib"
    joblib.dump(regression(), model)
    assert publish_main([str(model), "--no-wait", "--backtest"]) == 0
    assert "backtest on 210 of the newest 210 labelled records" in capsys.readouterr().out
