from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from math import inf
from typing import Any

import numpy as np
import pytest

from estimators.vote import Vote
from modelgenerator.training import learner
from modelgenerator.training.archive import Frozen, VotePlace
from modelgenerator.training.gate import Gate
from modelgenerator.training.learning import EachOnce, Latest
from modelgenerator.training.recipes import RECIPES, Recipe
from modelgenerator.training.trainer import Publication, Trainer
from modelgenerator.window import Labelled
from stream.layout import Layout
from stream.models import Former
from stream.service import Warnings
from tests.unit.streams import BY_NAME, TWO, exclusive, linear, noisy, observe, stream, turned

MATRIX = np.random.default_rng(0).random((50, 3))


def trainer(window: int = 20_000, retrain_every: int = 100, **more: Any) -> Trainer:
    return Trainer(more.pop("table", TWO), window, retrain_every, **more)


def told(publications: list[Publication]) -> list[tuple[str, str, int, dict[str, int]]]:
    return [(p.recipe, p.reason, p.trained_on, p.trained_to) for p in publications]


def answers(found: Publication) -> list[list[float]]:
    answers: list[list[float]] = found.model.predict_proba(MATRIX).tolist()
    return answers


def share_right(found: Publication, records: Iterator[Labelled], count: int = 1_000) -> float:
    chosen = [*islice(records, count)]
    predicted = found.model.predict([record.features for record in chosen])
    return float(np.mean(predicted == [record.label for record in chosen]))


def test_the_first_model_comes_with_the_200th_record_and_not_before() -> None:
    records, one = stream(linear), Trainer()
    assert observe(one, records, 199) == []
    assert told(observe(one, records, 1)) == [("vote", "first", 200, {"0": 199})]


@pytest.mark.parametrize("layout", [Layout(), Layout(3)])
def test_the_first_model_is_the_same_whether_the_width_was_known_or_not(layout: Layout) -> None:
    (found,) = observe(trainer(layout=layout), stream(linear), 200)
    (other,) = observe(trainer(), stream(linear), 200)
    assert answers(found) == answers(other)


def test_a_model_comes_with_every_100_records() -> None:
    found = observe(trainer(), stream(linear), 650)
    assert [p.trained_on for p in found] == [200, 300, 400, 500, 600]


def test_steps_grow_up_to_the_setting_in_whole_blocks() -> None:
    found = observe(trainer(retrain_every=400), stream(linear), 2_300)
    assert [p.trained_on for p in found] == [200, 300, 450, 675, 1025, 1425, 1825, 2225]


def test_what_is_published_depends_on_the_records_and_not_on_the_batches() -> None:
    whole = observe(Trainer(), stream(exclusive), 1_000)
    one, records, pieces = Trainer(), stream(exclusive), []
    for size in [1, 7, 192, 300, 13, 487]:
        pieces += observe(one, records, size)
    assert told(pieces) == told(whole)
    assert [p.accuracies for p in pieces] == [p.accuracies for p in whole]
    assert [answers(p) for p in pieces] == [answers(p) for p in whole]


def test_trained_to_is_the_highest_offset_learnt_from_in_each_partition() -> None:
    rng, given = random.Random(5), []
    for record in islice(stream(linear), 1_100):
        given.append(record._replace(partition=rng.choice([0, 0, 0, 1])))
    # Offsets with gaps, as transactions and rejected records leave them; 3 ends early.
    given = [r._replace(offset=3 * r.offset) for r in given]
    given[0] = given[0]._replace(partition=3)
    one = trainer(window=250)
    highest: dict[str, int] = {}
    count = 0
    for record in given:
        highest[str(record.partition)] = record.offset
        for publication in one.observe([record]):
            assert publication.trained_to == highest
            count += 1
    assert count > 5


def test_records_labelled_in_any_order_are_trained_on_up_to_the_highest_offset() -> None:
    records = list(islice(stream(linear), 600))
    found = observe(trainer(), records[300:] + records[:300], 600)
    assert [p.trained_to["0"] for p in found] == [499, 599, 599, 599, 599]


class Spy:
    """Knows the id that each record carries as its first feature, and must not score it then."""

    scored: list[float]
    learnt: list[float]
    classes_ = (0, 1)

    def __init__(self) -> None:
        self.known: set[float] = set()

    def fit(self, features: Any, labels: Any) -> Spy:
        self.known = {*features[:, 0]}
        return self

    def partial_fit(self, features: Any, labels: Any, classes: Any) -> Spy:
        self.known |= {*features[:, 0]}
        Spy.learnt.extend(features[:, 0])
        return self

    def predict(self, features: Any) -> Any:
        assert not self.known & {*features[:, 0]}
        assert features[:, 0].min() > max(self.known)
        Spy.scored.extend(features[:, 0])
        return np.ones(len(features))


SPIES = [
    Recipe("once", lambda _: Spy(), partial(EachOnce, every=50)),
    Recipe("latest", lambda _: Spy(), partial(Latest, 400, every=75)),
]


@pytest.mark.parametrize("recipe", SPIES, ids=lambda recipe: str(recipe.name))
@pytest.mark.parametrize("layout", [Layout(), Layout(1)], ids=["unknown", "known"])
def test_a_record_that_scores_a_model_was_not_learnt_before_whatever_the_pace(
    recipe: Recipe, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    Spy.scored, Spy.learnt = [], []
    one = Trainer([recipe], 1_000, layout=layout, archive=False)
    records = (Labelled(0, i, [float(i)], i % 2) for i in range(3_000))
    found = []
    for stretch, count in [(1, 777), (8, 910), (2, 400), (32, 500), (1, 413)]:
        one.pace.stretch = stretch
        found += observe(one, records, count)
    assert caplog.messages == []  # a failed assertion of the spy would be one
    assert len(found) > 5
    # Each once, none left out, but for those of the last block, which is not full yet.
    assert len(Spy.scored) > 2_700
    assert Spy.scored == [*range(200, 200 + len(Spy.scored))]
    if recipe.name == "once":
        assert len(Spy.learnt) > 2_700
        assert Spy.learnt == [*range(len(Spy.learnt))]


def test_a_published_model_does_not_change_when_training_goes_on() -> None:
    one, records = Trainer(), stream(exclusive)
    found = observe(one, records, 400)
    before = [answers(p) for p in found]
    observe(one, stream(linear, start=400), 300)
    assert [answers(p) for p in found] == before


def test_accuracy_is_test_then_train() -> None:
    last = observe(Trainer(), noisy(stream(linear), 0.5), 1_500)[-1]
    assert len(last.accuracies) == 6
    for accuracy in last.accuracies.values():  # on its own training records it would be far higher
        assert accuracy == pytest.approx(0.5, abs=0.09)


def test_the_vote_goes_to_the_recipe_that_was_right_lately() -> None:
    found = observe(trainer(), stream(exclusive), 1_500)
    assert found[0].model.weights == {"sgd": 0.5, "hgb_since": 0.5}
    assert found[-1].model.weights["hgb_since"] > 0.99
    told_why = next(p.reason for p in found if p.reason.startswith("weights"))
    assert told_why.startswith("weights (hgb_since leads with 0.")


def test_after_a_drift_there_is_an_alarm_with_its_numbers_and_models_come_faster() -> None:
    one = trainer(retrain_every=1_000)
    observe(one, stream(linear), 2_000)
    found = observe(one, stream(turned, start=2_000), 1_500)
    alarm = next(p for p in found if p.reason.startswith("alarm"))
    assert alarm.trained_on < 2_400
    assert alarm.reason.startswith("alarm (")
    after = [p.trained_on for p in found if p.trained_on >= alarm.trained_on]
    assert after[:5] == [alarm.trained_on + 50 * n for n in range(5)]
    assert share_right(found[-1], stream(turned, start=10_000)) > 0.9


def test_an_archived_model_comes_back_with_its_concept_and_hands_back_to_the_vote() -> None:
    def board(features: list[float]) -> bool:
        return sum(int(4 * feature) for feature in features[:2]) % 2 == 0

    def almost(features: list[float]) -> bool:
        return board(features) != (features[2] > 0.95)

    def found(archive: bool) -> list[Publication]:
        one = trainer(table=[BY_NAME["hgb_since"]], retrain_every=300, archive=archive)
        return observe(
            one,
            chain(
                islice(stream(board), 4_000),
                islice(stream(linear, start=4_000), 4_000),
                stream(almost, start=8_000),
            ),
            12_000,
        )

    reasons = [p.reason for p in found(archive=True) if p.reason.startswith("archive")]
    assert len(reasons) == 2
    assert reasons[0].startswith("archive (a former hgb_since is right on 0.9")
    assert reasons[1].startswith("archive (the vote is right on 0.9")
    assert not [p.reason for p in found(archive=False) if p.reason.startswith("archive")]


def test_an_archived_model_serves_alone_until_it_hands_back() -> None:
    def board(features: list[float]) -> bool:
        return sum(int(4 * feature) for feature in features[:2]) % 2 == 0

    one = trainer(table=[BY_NAME["hgb_since"]], retrain_every=300)
    observe(one, chain(islice(stream(board), 4_000), islice(stream(linear), 1)), 4_000)
    observe(one, stream(linear, start=4_000), 4_000)
    found = observe(one, stream(board, start=8_000), 600)
    back = next(p for p in found if p.reason.startswith("archive"))
    assert (back.recipe, back.model.weights) == ("vote", {"archived": 1.0})
    assert share_right(back, stream(board, start=20_000)) > 0.9


def board(features: list[float]) -> bool:
    return sum(int(4 * feature) for feature in features[:2]) % 2 == 0


def archived(
    *concepts: Callable[[list[float]], bool], pinned_from: float = inf
) -> tuple[list[Former], list[Publication]]:
    """Train on 4,000 records of each concept; return the archive at the end, and all models."""
    one, made = trainer(table=[BY_NAME["hgb_since"]]), list[Publication]()
    for number, concept in enumerate(concepts):
        for publication in one.observe(islice(stream(concept, start=4_000 * number), 4_000)):
            made.append(publication)
            if publication.trained_on < pinned_from:
                one.published(publication, VotePlace(len(made), 10 * len(made)))
    return made[-1].archive or [], made


def test_another_trainer_goes_on_with_the_archive_that_a_publication_names() -> None:
    (former,), made = archived(board, linear)
    vote = made[former.version - 1]
    assert 3_000 <= vote.trained_on <= 4_000
    assert former.after == 10 * former.version

    def reasons(archive: list[Frozen]) -> list[str]:
        other = trainer(table=[BY_NAME["hgb_since"]])
        other.restore(archive)
        observe(other, stream(linear, start=7_000), 1_000)
        return [p.reason for p in observe(other, stream(board, start=8_000), 600)]

    kept = Frozen(former.recipe, vote.model.members[former.recipe], former.accuracy)
    assert [r for r in reasons([kept]) if r.startswith("archive (a former hgb_since is right on")]
    assert not [r for r in reasons([]) if r.startswith("archive")]


def test_an_archive_names_no_model_that_was_not_published_and_no_other_one_in_its_place() -> None:
    formers, made = archived(board, linear, board, pinned_from=4_500)
    assert made[-1].trained_on > 11_000
    assert [3_000 <= made[f.version - 1].trained_on <= 4_000 for f in formers] == [True]


def test_a_single_label_waits_for_the_other_one() -> None:
    one, records = trainer(), stream(lambda _: True)
    assert observe(one, records, 1_000) == []
    zeros = stream(lambda _: False, start=5_000)
    assert told(observe(one, zeros, 25)) == [("vote", "first", 1_025, {"0": 5_024})]


def test_a_window_that_comes_to_hold_a_single_label_keeps_the_model() -> None:
    one = trainer(window=200)
    observe(one, stream(linear), 400)
    found = observe(one, stream(lambda _: True, start=400), 2_000)
    assert max(p.trained_to["0"] for p in found) < 600  # the last window that held both


def test_columns_without_any_value_are_trained_on_and_predicted() -> None:
    records = [r._replace(features=[None, *r.features]) for r in islice(stream(linear), 250)]
    (found,) = Trainer().observe(records)
    assert found.model.predict([[np.nan, 0.9, 0.9, 0.5], [7.0, 0.1, 0.1, 0.5]]).tolist() == [1, 0]


def test_missing_values_are_trained_on_by_every_recipe() -> None:
    rng, records = random.Random(2), []
    for record in islice(stream(linear), 1_000):
        hidden = [None if rng.random() < 0.2 else f for f in record.features]
        records.append(record._replace(features=hidden))
    last = list(Trainer().observe(records))[-1]
    assert min(value or 0.0 for value in last.accuracies.values()) > 0.7


def without_warning(first: Iterator[float]) -> None:
    records = [r._replace(features=[next(first), *r.features]) for r in islice(stream(linear), 400)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(Trainer().observe(records))
        assert len(found) == 3
        probabilities = found[-1].model.predict_proba([r.features for r in records])
    assert np.isfinite(probabilities).all()


@pytest.mark.parametrize("value", [0.0, 3.4e38, -3.4e38, 1e-300])
def test_constant_and_extreme_columns_are_trained_on_without_a_warning(value: float) -> None:
    without_warning(iter(lambda: value, None))


def test_wildly_scaled_columns_do_not_warn() -> None:
    rng = random.Random(3)
    without_warning(iter(lambda: rng.uniform(-3.4e38, 3.4e38), None))


def test_a_stray_first_record_does_not_decide_the_width(caplog: pytest.LogCaptureFixture) -> None:
    records = stream(linear)
    one = trainer()
    assert list(one.observe([Labelled(1, 0, [1.0] * 9, 1)])) == []
    assert observe(one, records, 199) == []  # 200 records, but only 199 that can be trained on
    (found,) = observe(one, records, 1)
    assert (found.trained_on, found.trained_to) == (200, {"0": 199})
    assert found.model.n_features_in_ == 3
    assert one.layout.width == 3
    assert caplog.messages == [
        "1 of the first 200 labelled records have another number of features than 3; they are not"
        " trained on"
    ]


def test_while_the_vote_is_suspended_the_best_recipe_serves_alone() -> None:
    records, one = stream(exclusive), trainer()
    assert {p.recipe for p in observe(one, records, 1_000)} == {"vote"}
    one.suspend("vote")
    found = observe(one, records, 300)
    assert [(p.recipe, p.model.weights) for p in found] == [("hgb_since", {"hgb_since": 1.0})] * 3
    assert share_right(found[-1], stream(exclusive, start=10_000)) > 0.9


def test_a_suspended_vote_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelgenerator.training.trainer.SUSPENDED", 500)
    records, one = stream(exclusive), trainer()
    observe(one, records, 1_000)
    one.suspend("vote")
    found = observe(one, records, 700)
    assert [p.recipe for p in found] == ["hgb_since"] * 4 + ["vote"] * 3


def test_if_every_recipe_is_suspended_the_vote_is_published_at_the_usual_pace() -> None:
    records, one = stream(linear), trainer()
    observe(one, records, 1_000)
    for recipe in ("vote", "sgd", "hgb_since"):
        one.suspend(recipe)
    assert [p.recipe for p in observe(one, records, 500)] == ["vote"] * 5


def test_the_first_model_needs_200_labelled_records_of_both_labels() -> None:
    records, one = stream(linear), trainer()
    start = "the first model needs 200 labelled records of both labels"
    assert one.needs == f"{start}: 200 more, one labelled 0, one labelled 1"
    observe(one, records, 143)
    assert one.needs == f"{start}: 57 more"
    observe(one, records, 57)
    assert one.needs == f"{start}, which are there"


def test_records_of_one_label_alone_need_one_of_the_other() -> None:
    one = trainer()
    observe(one, stream(lambda _: True), 1_500)
    assert one.needs.endswith("of both labels: one labelled 0")


def test_a_second_label_of_a_record_in_the_window_changes_nothing() -> None:
    records, one = list(islice(stream(linear), 200)), trainer()
    doubles = [r._replace(label=1 - r.label) for r in records[:50]]
    assert observe(one, [*records[:199], *doubles], 249) == []
    (found,) = observe(one, [records[199]], 1)
    assert found.trained_on == 200
    (other,) = observe(trainer(), records, 200)
    assert answers(found) == answers(other)


def test_a_revised_label_is_trained_on_while_its_record_is_in_the_window() -> None:
    records, one = list(islice(stream(linear), 200)), trainer()
    wrong = [r._replace(label=1 - r.label) if r.offset < 50 else r for r in records]
    right = [r._replace(revises=True) for r in records[:50]]
    gone = Labelled(0, 10_000, [0.5] * 3, 1, revises=True)
    assert observe(one, [*wrong[:150], *right, gone], 201) == []
    (found,) = observe(one, wrong[150:], 50)
    assert (found.trained_on, found.trained_to) == (200, {"0": 199})
    (other,) = observe(trainer(), records, 200)
    assert answers(found) == answers(other)


def test_no_more_than_two_models_a_second_are_published_and_the_newest_counts() -> None:
    now = 100.0
    one = trainer(publish_seconds=0.5, clock=lambda: now)
    records = stream(linear)
    assert [p.trained_on for p in observe(one, records, 1_000)] == [200]
    now = 100.4
    assert observe(one, records, 10) == []
    now = 100.5
    assert [p.trained_on for p in observe(one, records, 1)] == [1_000]
    assert observe(one, records, 500) == []


def rare(count: int) -> Iterator[Labelled]:
    """Records of which about 1 % are labelled 1, and as many look like them."""
    rng = random.Random(0)
    for offset in range(count):
        likely = rng.random() < 0.02
        features = [rng.gauss(3.0 if likely else 0.0, 1.0), rng.gauss(0.0, 1.0)]
        yield Labelled(0, offset, [*features], int(likely and rng.random() < 0.5))


def found_ones(gate: Gate) -> tuple[float, float]:
    """Return the share of records labelled 1 that are predicted so, and of those labelled 0."""
    records = [*rare(6_000)]
    last = list(trainer(gate=gate, retrain_every=1_000).observe(records[:4_000]))[-1]
    predicted = last.model.predict([r.features for r in records[4_000:]])
    labels = np.array([r.label for r in records[4_000:]])
    return float(predicted[labels == 1].mean()), float(predicted[labels == 0].mean())


def test_the_gate_of_costs_finds_more_ones_the_more_a_wrong_0_costs() -> None:
    ones, _ = found_ones(Gate("cost", 1, 20))
    fewer, _ = found_ones(Gate("cost", 20, 1))
    assert ones > fewer + 0.3


def test_the_label_is_1_from_the_threshold_on_that_is_published() -> None:
    for gate in (Gate(), Gate("cost", 1, 9), Gate("balanced_accuracy")):
        found = observe(trainer(gate=gate), noisy(stream(linear), 0.1), 800)[-1].model
        probabilities = found.predict_proba(MATRIX)[:, 1]
        assert found.predict(MATRIX).tolist() == (probabilities >= found.threshold).tolist()


def test_the_label_is_that_of_the_raw_vote_though_the_probabilities_are_calibrated() -> None:
    found = observe(trainer(), noisy(stream(linear), 0.2), 2_000)[-1].model
    votes = found.votes(MATRIX)
    assert np.abs(votes - found.predict_proba(MATRIX)[:, 1]).max() > 0.01
    assert found.predict(MATRIX).tolist() == (votes > 0.5).tolist()


def test_a_published_model_predicts_the_same_after_its_pickle_is_loaded() -> None:
    found = observe(Trainer(), stream(linear), 400)[-1]
    assert len(found.model.members) > 1
    loaded = pickle.loads(pickle.dumps(found.model))
    assert isinstance(loaded, Vote)
    assert loaded.predict_proba(MATRIX).tolist() == answers(found)
    assert loaded.predict(MATRIX).tolist() == found.model.predict(MATRIX).tolist()


def test_a_published_model_of_ten_features_is_below_400_kb_with_every_recipe_in_it() -> None:
    one = Trainer(retrain_every=1_000)
    records = noisy(stream(linear, width=10), 0.5)  # so that all are as good as each other
    observe(one, records, 2_200)
    members = {name: each.frozen() for name, each in one._committee._learners.items()}
    last = observe(one, records, 800)[-1].model
    last.members = members
    assert [*members] == [recipe.name for recipe in RECIPES]
    assert len(pickle.dumps(last)) < 400_000


class Failing(Spy):
    """Cannot be fitted again, or cannot predict."""

    broken = ""

    def fit(self, features: Any, labels: Any) -> Spy:
        if Failing.broken == "fit":
            raise RuntimeError("out of\nideas")
        return self

    def predict(self, features: Any) -> Any:
        if Failing.broken == "predict":
            raise RuntimeError("out of\nideas")
        return np.full(len(features), np.nan if Failing.broken == "numbers" else 1.0)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("fit", "fit raised RuntimeError: out of\\nideas"),
        ("predict", "predict raised RuntimeError: out of\\nideas"),
        ("numbers", "predict raised ValueError: not all probabilities are numbers"),
    ],
)
def test_a_recipe_that_fails_is_left_out_of_the_vote_and_said_and_comes_back(
    broken: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "_warnings", Warnings(learner.log))
    chance = random.Random(0)
    own = Recipe("own", lambda _: Failing(), partial(Latest, 500, every=25))
    records, one = stream(lambda _: chance.random() < 0.9), trainer(table=[own, BY_NAME["sgd"]])
    assert "own" in observe(one, records, 500)[-1].model.members
    monkeypatch.setattr(Failing, "broken", broken)
    for found in observe(one, records, 500):
        assert [*found.model.members] == ["sgd"]
        assert len(answers(found)) == 50
    assert caplog.messages[0].startswith(f"recipe own: {said}")
    monkeypatch.setattr(Failing, "broken", "")
    assert "own" in observe(one, records, 500)[-1].model.members


def test_while_no_recipe_has_a_model_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Recipe("own", lambda _: Failing(), partial(Latest, 500, every=25))
    records, one = stream(linear), trainer(table=[own])
    monkeypatch.setattr(Failing, "broken", "fit")
    assert observe(one, records, 500) == []
    monkeypatch.setattr(Failing, "broken", "")
    assert [p.reason for p in observe(one, records, 100)] == ["first"]


def test_balanced_accuracy_finds_the_ones_of_which_there_are_one_in_a_hundred() -> None:
    rng = np.random.default_rng(1)
    features = rng.random((5_000, 5))
    score = features[:, 0] + features[:, 1] + rng.normal(scale=0.1, size=len(features))
    labels = (score > np.quantile(score, 0.99)).astype(int)

    def shares(gate: str) -> tuple[float, float]:
        one, predicted = Trainer(gate=Gate.parse(gate), archive=False), np.zeros(len(labels))
        found: list[Publication] = []
        for start in range(0, len(labels), 100):
            some = slice(start, start + 100)
            if found:
                predicted[some] = found[-1].model.predict(features[some])
            found += one.observe(
                Labelled(0, start + n, row.tolist(), int(label))
                for n, (row, label) in enumerate(zip(features[some], labels[some], strict=True))
            )
        late = np.arange(len(labels)) >= 2_000
        return predicted[late & (labels == 1)].mean(), predicted[late & (labels == 0)].mean()

    ones_found, zeros_wrong = shares("balanced_accuracy")
    assert ones_found > 0.8
    assert zeros_wrong < 0.2
    assert shares("accuracy")[0] < 0.5
