from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from modelgenerator.models.__main__ import parameters, read_options
from modelgenerator.models.catalogue import Catalogue, Row
from modelgenerator.models.table import COLUMNS, silence, table
from modelgenerator.whole_file import whole_file
from stream.keys import SigningKey
from stream.model_topic import ModelIndex
from stream.models import SIGNATURE, Message, pack, unpack
from stream.records import OutcomeKind, Prediction, Status
from stream.service import Fatal
from tests.services import ROOT
from tests.topics import regression
from tests.unit.classifiers import LARGE, STRANGER, envelope, new_key

KEY = new_key()


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def packed(
    version: int, pickle: bytes = b"pickle", key: SigningKey | None = KEY, **changes: Any
) -> list[Message]:
    return list(pack(envelope(version, **changes), pickle, key))


def add(catalogue: Catalogue, *messages: Message, max_bytes: int = 10**8) -> None:
    """Add a whole model topic."""
    index = ModelIndex()
    for offset, message in enumerate(messages):
        if message.headers == [(SIGNATURE, KEY.sign(message.value))]:
            index.add(offset, unpack(message.value), KEY.fingerprint)
        else:
            catalogue.add_untrusted(message, "for a reason")
    catalogue.add_models(index, max_bytes)


def publish(catalogue: Catalogue, versions: Iterable[int]) -> None:
    add(catalogue, *(message for version in versions for message in packed(version)))


def say(
    catalogue: Catalogue, version: int, status: str, reason: str | None = None, **since: int
) -> None:
    offsets = {name.removeprefix("p"): offset for name, offset in since.items()}
    catalogue.add_status(Status(version, status, offsets, reason, "replica-1"))


def meet(
    catalogue: Catalogue, outcome: OutcomeKind, model: int, label: int, n: int, correct: int
) -> None:
    """Let a prediction of 1 by a model, at offset 0 of partition 0, meet its label."""
    catalogue.add_prediction(
        Prediction("a", 1, 0.9, label, n, correct, model, (0, 0), outcome=outcome)
    )


def test_a_prediction_counts_for_its_model_when_its_label_comes_and_once(
    catalogue: Catalogue,
) -> None:
    publish(catalogue, (1, 2))
    for offset, model in enumerate((1, 1, 2, 2)):
        catalogue.add_prediction(Prediction("a", 1, 0.9, None, 0, 0, model, (0, offset)))
    meet(catalogue, "labelled", 1, label=1, n=1, correct=1)
    meet(catalogue, "labelled", 2, label=0, n=2, correct=1)
    meet(catalogue, "assumed", 2, label=0, n=2, correct=1)
    meet(catalogue, "revised", 2, label=1, n=2, correct=2)
    meet(catalogue, "revised", 2, label=1, n=2, correct=2)
    meet(catalogue, "revised", 1, label=0, n=2, correct=1)
    rows = catalogue.rows()
    assert [(row.records, row.counted, row.correct) for row in rows] == [(2, 1, 0), (2, 1, 1)]
    assert [row.since for row in rows] == [{"0": 0}, {"0": 2}]


def predict(
    catalogue: Catalogue,
    model: int,
    offset: int,
    label: int | None = 1,
    seen: bool = False,
    n: int = 0,
) -> None:
    catalogue.add_prediction(Prediction(offset, 1, 0.9, label, n, 0, model, (0, offset), seen))


def statuses(catalogue: Catalogue) -> dict[int, str]:
    return {row.version: row.status for row in catalogue.rows()}


def test_what_became_of_each_version_is_said_in_one_word(catalogue: Catalogue) -> None:
    publish(catalogue, range(1, 8))
    say(catalogue, 1, "serving", p0=0)
    say(catalogue, 3, "serving", p0=100)
    say(catalogue, 4, "refused", "features")
    say(catalogue, 5, "serving", p0=200)
    say(catalogue, 6, "serving", p0=300)
    say(catalogue, 6, "barred", "it raises")
    assert statuses(catalogue) == {
        1: "replaced",
        2: "never served",
        3: "replaced",
        4: "refused",
        5: "serving",
        6: "barred",
        7: "waiting",
    }
    notes = {row.version: row.why for row in catalogue.rows() if row.why}
    assert notes == {4: "features (replica-1)", 6: "it raises (replica-1)"}


def test_a_version_serves_since_the_first_offset_that_it_predicted(catalogue: Catalogue) -> None:
    publish(catalogue, [1])
    say(catalogue, 1, "serving", p0=5)
    say(catalogue, 1, "serving", p0=70, p1=9)  # after a restart
    predict(catalogue, 1, 6)
    (row,) = catalogue.rows()
    assert row.since == {"0": 5, "1": 9}
    say(catalogue, 1, "serving", p0=0, p1=12)  # after a reset
    assert row.since == {"0": 0, "1": 9}


def test_a_version_that_only_its_predictions_name_is_served_and_gone(catalogue: Catalogue) -> None:
    predict(catalogue, 3, 17)
    (row,) = catalogue.rows()
    assert (row.status, row.since, row.envelope) == ("serving", {"0": 17}, None)
    assert row.as_json()["on_topic"] is False
    assert "not on the topic" in table([row])


def test_live_accuracy_is_that_of_the_counted_predictions(catalogue: Catalogue) -> None:
    publish(catalogue, [1])
    for offset, label in enumerate([1, 1, 0, None]):
        predict(catalogue, 1, offset, label)
    predict(catalogue, 1, 4, 0, seen=True)
    (row,) = catalogue.rows()
    assert (row.records, row.counted, row.correct) == (5, 3, 2)
    assert row.accuracy == 2 / 3


def test_what_was_counted_before_the_tally_started_over_is_not_counted(
    catalogue: Catalogue,
) -> None:
    for model, offset, n in ((1, 10, 1), (2, 11, 2), (2, 12, 3), (2, 10, 1), (2, 11, 2)):
        predict(catalogue, model, offset, n=n)
    found = {row.version: (row.records, row.counted, row.correct) for row in catalogue.rows()}
    assert found == {1: (1, 0, 0), 2: (4, 2, 2)}
    assert [row.accuracy for row in catalogue.rows()] == [None, 1.0]


def test_a_version_without_counted_predictions_has_no_accuracy(catalogue: Catalogue) -> None:
    publish(catalogue, [1])
    assert catalogue.rows()[0].accuracy is None


def test_the_size_is_that_of_the_whole_pickle_and_the_key_the_one_that_signed(
    catalogue: Catalogue,
) -> None:
    add(catalogue, *packed(1, LARGE), *packed(2), *packed(2))
    first, second = catalogue.rows()
    assert (first.size, first.key, first.whole) == (len(LARGE), KEY.fingerprint, True)
    assert (second.size, second.problem) == (6, "")


def test_unsigned_and_strangers_models_are_named_so_and_refused(catalogue: Catalogue) -> None:
    add(catalogue, *packed(1, key=None), *packed(2, LARGE, key=STRANGER))
    unsigned, strange = catalogue.rows()
    assert (unsigned.key, unsigned.status) == ("unsigned", "refused")
    assert unsigned.why == "for a reason"
    assert (strange.key, strange.size) == ("not trusted", len(LARGE))


@pytest.mark.parametrize("first", ["stranger", "own"])
def test_a_stranger_changes_nothing_about_a_version_that_a_trusted_key_signed(
    catalogue: Catalogue, first: str
) -> None:
    own, strange = packed(1, LARGE), packed(1, b"other", STRANGER, recipe="evil", pinned=True)
    add(catalogue, *(strange + own if first == "stranger" else [own[0], *strange, *own[1:]]))
    (row,) = catalogue.rows()
    assert (row.key, row.status, row.pinned) == (KEY.fingerprint, "waiting", False)
    assert row.envelope is not None
    assert (row.envelope.recipe, row.size) == ("test", len(LARGE))


def test_a_version_that_is_replayed_stays_as_it_first_was(catalogue: Catalogue) -> None:
    add(catalogue, *packed(1, recipe="first"), *packed(1, recipe="second"))
    (row,) = catalogue.rows()
    assert row.as_json()["recipe"] == "first"


def test_models_that_are_not_whole_say_so(catalogue: Catalogue) -> None:
    parts = packed(1, LARGE)
    add(catalogue, parts[0], parts[1], *packed(2))
    assert {row.version: row.why for row in catalogue.rows()} == {
        1: "part 3 of 3 is missing",
        2: "",
    }
    add(catalogue, *parts, max_bytes=1_000_000)
    assert [(row.status, row.why) for row in catalogue.rows()[:1]] == [
        ("refused", "larger than 1000000 bytes (at least 1536000)")
    ]


def test_records_that_are_no_model_and_statuses_of_absurd_versions_are_left_out(
    catalogue: Catalogue,
) -> None:
    for value in (b"", b"garbage", b"{}"):
        catalogue.add_untrusted(Message(value, []), "for a reason")
    for version in (0, -1, 2**53, 10**300):
        say(catalogue, version, "serving", p0=1)
    assert catalogue.rows() == []
    assert table(catalogue.rows()) == "no models"


def test_only_the_newest_model_can_be_pinned(catalogue: Catalogue) -> None:
    add(catalogue, *packed(1, pinned=True), *packed(2, pinned=True, restores=1))
    assert [row.pinned for row in catalogue.rows()] == [False, True]
    assert "waiting, pinned" in table(catalogue.rows())
    assert "restores 1" in table(catalogue.rows())
    publish(catalogue, [3])
    assert [row.pinned for row in catalogue.rows()] == [False, False, False]


def test_the_types_of_features_are_said_where_not_all_are_numbers(catalogue: Catalogue) -> None:
    types = ["number", "category", "category", "number", "time"]
    add(catalogue, *packed(1, types=types), *packed(2))
    first, second = table(catalogue.rows()).splitlines()[1:]
    assert first.endswith("2 number, 2 category, 1 time")
    assert "number" not in second


def test_a_model_that_is_out_of_service_holds_no_pin_and_the_one_before_it_does(
    catalogue: Catalogue,
) -> None:
    def pinned() -> list[int]:
        return [row.version for row in catalogue.rows() if row.pinned]

    add(catalogue, *packed(1, pinned=True), *packed(2), *packed(3, pinned=True), *packed(4))
    add(catalogue, *packed(5, pinned=True), *packed(6, pinned=True), *packed(7, pinned=True))
    assert pinned() == [7]
    say(catalogue, 7, "refused", "no such module")
    assert pinned() == [6]
    say(catalogue, 7, "serving", p0=100)  # another replica has the module
    assert pinned() == [7]
    say(catalogue, 7, "barred", "it raises")
    say(catalogue, 6, "barred", "it raises")
    assert pinned() == [5]
    say(catalogue, 5, "barred", "it raises")
    assert pinned() == [], "4, which is not pinned, decides"
    assert "pinned" not in table(catalogue.rows())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, ""),
        (59, ""),
        (60, "no predictor heard for 1 min, neither a prediction nor a status"),
        (7_199, "for 120 min"),
        (7_200, "for 2 h"),
        (3 * 86_400, "for 3 days"),
    ],
)
def test_it_is_said_since_when_no_predictor_has_been_heard(seconds: int, said: str) -> None:
    found = silence(1_764_000_000_000, 1_764_000_000 + seconds)
    assert said in found
    assert bool(said) == bool(found)
    assert silence(0, seconds + 1_764_000_000).startswith("no predictor heard so far")


def rows(catalogue: Catalogue) -> list[Row]:
    publish(catalogue, [1, 2])
    say(catalogue, 1, "serving", p0=0, p1=0, p2=3, p10=7)
    say(catalogue, 2, "refused", "a long reason " * 10)
    predict(catalogue, 1, 1)
    return catalogue.rows()


def test_columns_are_aligned_and_all_shown_where_there_is_room(catalogue: Catalogue) -> None:
    head, *lines = table(rows(catalogue)).splitlines()
    assert [name for name in COLUMNS if name in head] == list(COLUMNS)
    place = head.index("status")
    assert [line[place:].split()[0] for line in lines] == ["serving", "refused"]
    assert "0@0 1@0 +2" in lines[0]


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_no_line_is_wider_than_the_terminal_and_the_status_stays(
    catalogue: Catalogue, width: int
) -> None:
    lines = table(rows(catalogue), width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("version")
    assert width < 60 or "status" in lines[0]


def test_a_file_is_written_whole_and_never_over_another_unless_told_to(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"

    def write(content: bytes, overwrite: bool) -> None:
        with whole_file(path, overwrite) as written:
            written.write_bytes(content)
            assert not path.exists() or path.read_bytes() != content

    write(b"one", overwrite=False)
    with pytest.raises(Fatal, match="exists already"):
        write(b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    write(b"two", overwrite=True)
    assert path.read_bytes() == b"two"
    with pytest.raises(ZeroDivisionError), whole_file(path, True) as written:
        written.write_bytes(bytes(1 // 0))
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "none" / "model.joblib"
    with (
        pytest.raises(Fatal, match=r"model\.joblib: cannot be written: No such file or directory"),
        whole_file(path, overwrite=False),
    ):
        pass


def test_the_parameters_of_a_classifier_are_those_that_scikit_learn_names() -> None:
    assert parameters(regression())["max_iter"] == 100
    assert parameters(object()) == {}


DOCUMENT = (ROOT / "docs" / "models.md").read_text()


def test_every_command_that_the_document_shows_exists() -> None:
    commands = re.findall(r"python -m modelgenerator\.models([^\n`]*)", DOCUMENT)
    assert len(commands) > 5
    for command in [*commands, *re.findall(r"`(--[a-z]+(?: \d+)?)`", DOCUMENT)]:
        if command != "--force":
            assert read_options(command.split()).work


def test_the_document_shows_the_columns_and_statuses_that_there_are(catalogue: Catalogue) -> None:
    for column in COLUMNS:
        assert re.search(rf"\b{column}\b", DOCUMENT), column
    for status in ("serving", "replaced", "waiting", "never served", "refused", "barred"):
        assert f"\n| {status} |" in DOCUMENT
