"""A model's report: which predictions it is of, and what the page says of them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from estimators.vote import Calibration, Vote
from modelgenerator.models.catalogue import Row
from modelgenerator.models.report import charts
from modelgenerator.models.report.figures import (
    KNOWN,
    LEAST,
    PARTS,
    VALUES,
    Answered,
    Figures,
    Newest,
    Part,
    figures,
    parts,
    slices,
)
from modelgenerator.models.report.page import page
from modelgenerator.models.report.reading import of_version
from modelgenerator.settings import Settings
from quality.scores import Bin, Outcome
from stream.classifier import Model
from stream.layout import Layout
from stream.models import ModelError
from stream.records import Cell, Prediction, Record, encode_record
from tests.unit.classifiers import Sign, envelope, model

EVIL = "<script>alert('&')</script>\n\u202e\"'><img src=x onerror=alert(1)>"
PLANS = Layout(2, ["age", "plan"], ["number", "category"], "yes", "no")


NOTHING = figures(["It made 0 predictions."], [], [], PLANS)


def prediction(offset: int, **fields: Any) -> Prediction:
    return replace(
        Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (0, offset), time=1_000 + offset),
        **fields,
    )


def collected(predictions: Sequence[Prediction], **options: int) -> Newest:
    found = Newest(1, **options)
    for each in predictions:
        found.add(each, 9_999)
    return found


def answered(count: int, right_until: int) -> list[Answered]:
    return [
        Answered(n, n, 1_764_000_000_000 + 1_000 * n, Outcome(1, int(n < right_until), 0.7, n > 0))
        for n in range(count)
    ]


class Structure(HTMLParser):
    """Checks that each element is closed, in its order, and notes what is there."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(html: str) -> str:
    """Return what one reads, tags left out."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_only_counted_predictions_of_the_version_are_kept_and_labels_before_are_known() -> None:
    found = collected(
        [
            prediction(0, seen=True, n=0, correct=0),
            prediction(1, model=2, label=0),
            prediction(2),
            prediction(3, label=None),
            prediction(4, outcome="assumed"),
            prediction(5, label=0, outcome="labelled", labelled=(0, 0), delay=1.0, time=None),
        ]
    )
    assert [(each.offset, each.time_ms) for each in found.all()] == [(2, 1_002), (5, 9_999)]
    scores = figures([], found.all(), [], PLANS).scores
    assert (scores.n, scores.correct, scores.no_change) == (2, 1, 0.0)


def test_the_newest_predictions_of_each_partition_are_kept_and_no_more() -> None:
    made = [prediction(n, source=(n % 3, n), n=n + 1) for n in range(300)]
    found = collected(made, partitions=3, most=30)
    assert sorted(each.offset for each in found.all()) == [*range(270, 300)]


def test_where_counting_has_started_over_what_was_counted_before_is_left_out() -> None:
    made = [*map(prediction, range(5)), prediction(0, n=1, correct=1), prediction(1, n=2)]
    assert [each.offset for each in collected(made).all()] == [0, 1]


def test_parts_are_of_as_many_predictions_in_the_order_of_time() -> None:
    given = answered(1_030, 515)
    random.Random(0).shuffle(given)
    found = parts(given)
    assert len(found) == PARTS
    assert {part.n for part in found} <= {51, 52}
    assert (sum(part.n for part in found), sum(part.correct for part in found)) == (1_030, 515)
    assert all(a.last_ms < b.first_ms for a, b in pairwise(found))
    assert [part.correct for part in found[:2] + found[-2:]] == [51, 52, 0, 0]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (LEAST, 1), (2 * LEAST, 2)])
def test_few_predictions_make_few_parts(count: int, expected: int) -> None:
    assert len(parts(answered(count, 0))) == expected


def plans(*given: tuple[Cell, int, int]) -> list[tuple[Sequence[Cell], bool]]:
    """Return rows of a plan, of which the first are right."""
    return [([1.0, plan], n < correct) for plan, correct, count in given for n in range(count)]


def test_the_slice_that_differs_from_all_others_comes_first_then_the_commonest() -> None:
    rows = plans(("pro", 900, 1_000), ("free", 91, 100), ("odd", 120, 200), (None, 4, 5))
    found, total = slices(rows, PLANS)
    assert total == 1_305
    assert [(each.value, each.n, each.correct) for each in found] == [
        ("odd", 200, 120),
        ("pro", 1_000, 900),
        ("free", 100, 91),
        (None, 5, 4),
    ]
    assert [each.differs for each in found] == [True, True, False, False]
    assert found[-1].p is None, "five records are too few to compare"


@pytest.mark.parametrize("seed", range(5))
def test_slices_of_chance_do_not_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [(str(rng.integers(10)), int(rng.random() < 0.8), 1) for _ in range(3_000)]
    rows = plans(*drawn)
    assert not any(each.differs for each in slices(rows, PLANS)[0])


def test_of_many_values_the_commonest_are_shown_and_memory_is_bounded() -> None:
    rows = plans(*((f"p{n}", 1, 1 + (n < VALUES)) for n in range(KNOWN)), ("new", 9, 9))
    found, total = slices(rows, PLANS)
    assert {each.value for each in found} == {f"p{n}" for n in range(VALUES)}
    assert total == KNOWN + VALUES + 9


@pytest.mark.parametrize(
    ("rows", "layout", "said"),
    [
        (plans(("pro", 9, 20)), PLANS, "Of 20 of these 20 records."),
        (plans(("pro", 5, 8)), PLANS, "Of 8 of these 20 records, those that the data topic still"),
        ([], PLANS, "The data topic no longer has these records"),
        ([], Layout(2), "No feature is a category."),
    ],
)
def test_it_is_said_which_records_the_slices_are_of(
    rows: list[tuple[Sequence[Cell], bool]], layout: Layout, said: str
) -> None:
    assert figures([], answered(20, 9), rows, layout).of_slices.startswith(said)


def voting() -> Model:
    vote = Vote(
        {"sgd": Sign(), "knn": Sign()},
        {"sgd": 0.75, "knn": 0.25},
        2,
        Calibration((0.0, 1.0), (0.1, 0.9)),
        0.4375,
    )
    return model(
        7,
        vote,
        recipe="vote",
        algorithm="Vote",
        reason="alarm (errors rose)",
        threshold=0.4375,
        standings={"vote": 0.91, "sgd": 0.9, "knn": None},
        feature_names=["age", "plan"],
        types=["number", "category"],
        positive="yes",
        negative="no",
        trained_to={"0": 2_300},
    )


def row_of(found: Model, **fields: Any) -> Row:
    return Row(found.version, found.envelope, size=30_000, key="0011", whole=True, **fields)


def served(*versions: int, **fields: Any) -> list[Row]:
    return [
        Row(
            version,
            envelope(version, reason=f"cadence {version}"),
            since={"0": 1},
            records=100,
            counts={0: [80, 60]},
            status="replaced",
            **fields,
        )
        for version in versions
    ]


def some() -> Figures:
    rows = plans(("pro", 180, 200), ("odd", 60, 100))
    return figures(["Of the newest."], answered(300, 240), rows, PLANS)


def test_the_page_says_what_the_model_is_and_how_good() -> None:
    found = voting()
    row = row_of(found, status="serving", since={"0": 5}, records=350, counts={0: [300, 240]})
    html = page("Model 7", row, found, some(), [*served(4, 6), row])
    said = text_of(html)
    for expected in (
        "Model 7 Vote, serving",
        "Accuracy 0.8000 (95 %: 0.7511 to 0.8413) on 300 records; the better baseline has 0.9967",
        "errors rose, perhaps a drift: alarm (errors rose)",
        "200 records, up to offset 2,300 of partition 0",
        "1 from a probability of 0.4375 on",
        "a line through 2 points: of the vote, 0.1 becomes 0.180, 0.5 becomes 0.500",
        "1 number, 1 category",
        "0 is no, 1 is yes",
        "sgd Sign 0.7500 0.9000 knn Sign 0.2500 – vote – 0.9100",
        "0 0 60 1 0 240",
        "plan odd different 100 0.6000",
        "4 Sign model 6: enough labelled records had come since the model before: cadence 6 100 80",
        "7, this one Vote serving 350 300 0.8000",
    ):
        assert expected in said
    structure = Structure(html)
    assert structure.seen.count("svg") == 2
    assert structure.seen.count("title") == 3
    assert {"scope", "aria-labelledby", "lang"} <= structure.attributes


def test_nothing_from_the_stream_becomes_html_or_another_line() -> None:
    found = voting()
    texts = ("recipe", "algorithm", "reason", "created", "positive", "negative", "sklearn")
    evil = model(
        7,
        found.classifier,
        **dict.fromkeys(texts, EVIL),
        types=["number", "category"],
        feature_names=[EVIL, f"{EVIL}2"],
        standings={EVIL: 0.5},
        trained_to={EVIL: 5},
    )
    layout = Layout(2, [EVIL, f"{EVIL}2"], ["number", "category"])
    of_evil = figures([EVIL], answered(100, 60), plans((EVIL, 60, 100)), layout)
    row = row_of(evil, status="barred", barred=EVIL, since={"0": 1})
    html = page(EVIL, row, evil, of_evil, [*served(3, barred=EVIL), row])
    for each in (html, page(EVIL, row, EVIL, NOTHING)):
        structure = Structure(each)
        assert not {"script", "img", "link", "iframe"} & {*structure.seen}
        assert not {"src", "href", "onerror", "style"} & structure.attributes
        assert "\u202e" not in each
        assert "&lt;script&gt;" in each
        assert not re.search(r"https?:|url\(|@import", each)


def test_of_a_model_that_was_not_served_the_page_says_what_is_known() -> None:
    found = voting()
    html = page("Model 7", row_of(found, status="waiting"), "sklearn differs", NOTHING)
    said = text_of(html)
    assert "No prediction of it was counted yet, so nothing is known of its quality." in said
    assert "It was not loaded, so what it holds is not known: sklearn differs" in said
    assert "None that served is known." in said
    Structure(html)


def test_the_models_before_it_are_the_last_few_and_later_ones_are_left_out() -> None:
    found = voting()
    row = row_of(found, status="replaced", since={"0": 5})
    html = page("Model 7", row, found, NOTHING, [*served(*range(1, 7)), row, *served(9)])
    heads = re.findall(r'<th scope="row">(\d+[^<]*)</th><td>(?:Sign|Vote)', html)
    assert heads == ["2", "3", "4", "5", "6", "7, this one"]
    assert "model 9: enough labelled" in text_of(html)


def topics_of(row: Row, model: Model | ModelError, made: list[Prediction], ids: list[str]) -> Any:
    """Return topics with one model, its predictions, and the records with these ids."""

    def load(_: int) -> Model:
        if isinstance(model, ModelError):
            raise model
        return model

    def count(_: int, also: Callable[[Prediction, int], None]) -> None:
        for each in made:
            also(each, 0)

    def records_at(partition: int, offsets: Collection[int]) -> Iterator[Any]:
        for offset in offsets:
            value = encode_record(Record(ids[offset], {"age": 1, "plan": "pro"}, "yes"))
            yield SimpleNamespace(offset=offset, value=value)

    return SimpleNamespace(
        row=lambda _: row,
        models=SimpleNamespace(get=lambda _: None),
        partitions=lambda _: 1,
        settings=Settings.model_validate({}),
        catalogue=SimpleNamespace(rows=lambda: [row]),
        load=load,
        count_predictions=count,
        records_at=records_at,
    )


def test_records_of_a_recreated_data_topic_are_in_no_slice() -> None:
    found = voting()
    row = row_of(found, since={"0": 0}, records=100, counts={0: [100, 100]}, status="serving")
    made = [prediction(n, id=f"id {n}", model=7) for n in range(100)]
    ids = [f"id {n}" if n < 40 else f"other {n}" for n in range(100)]
    said = text_of(of_version(topics_of(row, found, made, ids), 7, 1_000, None))
    assert "Accuracy 1.0000" in said
    assert "Of 40 of these 100 records, those that the data topic still has." in said
    assert "plan pro 40 1.0000" in said


def test_a_model_that_cannot_be_loaded_is_reported_unless_it_has_to_predict() -> None:
    row = row_of(voting(), records=0, status="waiting")
    topics = topics_of(row, ModelError("made with scikit-learn 0.9"), [], [])
    said = text_of(of_version(topics, 7, 1_000, None))
    assert "not loaded, so what it holds is not known: made with scikit-learn 0.9" in said
    assert "vote – 0.9100" in said
    with pytest.raises(ModelError, match="made with"):
        of_version(topics, 7, 1_000, 50)


def test_figures_of_a_part_of_the_counted_predictions_say_so() -> None:
    found = voting()
    row = row_of(found, since={"0": 0}, records=200, counts={0: [150, 90]}, status="serving")
    made = [prediction(n, id=f"id {n}", model=7) for n in range(100)]
    topics = topics_of(row, found, made, [f"id {n}" for n in range(100)])
    said = text_of(of_version(topics, 7, 1_000, None))
    assert "All figures below are of the newest 100 of these." in said


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.97, 1.0])
def test_a_chart_stays_within_its_frame(accuracy: float) -> None:
    given = [Part(0, 1, 100, round(100 * accuracy))] * 20
    bins = [Bin(3, 0.0, accuracy), Bin(1_000, 0.5, accuracy), Bin(1, 1.0, accuracy)]
    for svg in (charts.over_time(given, accuracy), charts.calibration(bins)):
        for name, largest in (("x", charts.WIDTH), ("y", charts.HEIGHT)):
            places = re.findall(rf' c?{name}[12]?="([-\d.]+)"', svg)
            assert places
            assert all(0 <= float(place) <= largest for place in places)
        for x, y in re.findall(r"([-\d.]+),([-\d.]+)", "".join(re.findall(r'points="[^"]*"', svg))):
            assert charts.LEFT <= float(x) <= charts.WIDTH
            assert charts.TOP <= float(y) <= charts.HEIGHT
