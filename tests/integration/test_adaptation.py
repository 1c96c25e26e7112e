"""The modelgenerator on a stream that drifts, killed, and with recipes of one's own."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from kafka import TopicPartition

from stream.models import Envelope, Former
from tests.services import Services, await_line, eventually, last_error
from tests.topics import Rule, Topics, await_answered, first_is_positive

OURS = {"vote", "sgd", "rff", "knn", "linear", "hgb_since"}

TABLE = """
from functools import partial

from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from modelgenerator.training.learning import EachOnce, Latest
from modelgenerator.training.recipes import Recipe

RECIPES = [
    Recipe("bayes", lambda columns: GaussianNB(), partial(EachOnce, every=50)),
    Recipe("tree", lambda columns: DecisionTreeClassifier(max_depth=3), partial(Latest, 500, 100)),
]
BOOSTING = [
    Recipe(
        "boosting",
        lambda columns: HistGradientBoostingClassifier(max_iter=30),
        partial(Latest, 2_000, 200),
    )
]
NONE = [GaussianNB()]
"""


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Write a module with recipes; return the environment that has it."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "own_recipes.py").write_text(TABLE)
    return {"PYTHONPATH": str(folder)}


def envelopes(topics: Topics) -> list[Envelope]:
    return [envelope for envelope, _ in topics.assembled()]


def has_trained_on(topics: Topics, count: int) -> bool:
    return any(envelope.trained_on >= count for envelope in envelopes(topics))


def standings(envelope: Envelope) -> dict[str, float]:
    """Return how good the recipes are, 0 where nothing is known."""
    assert envelope.standings is not None
    return {name: value or 0.0 for name, value in envelope.standings.items()}


def board(features: Sequence[float]) -> bool:
    return sum(math.floor(1.5 * feature) for feature in features) % 2 == 0


def by_chance(features: Sequence[float]) -> bool:
    """Tell what nobody can learn."""
    return math.floor(1e6 * features[1]) % 2 == 0


def first_is_not_positive(features: Sequence[float]) -> bool:
    return not first_is_positive(features)


def published(
    topics: Topics, reason: str, rule: Rule = first_is_positive, after: int = 0
) -> Envelope:
    """Write records until a model behind a version is published for such a reason."""

    def found() -> list[Envelope]:
        topics.write(50, rule=rule)
        return [e for e in envelopes(topics)[after:] if re.fullmatch(reason, e.reason)]

    return eventually(found, 90, lambda: str([e.reason for e in envelopes(topics)]))[0]


def test_envelopes_say_why_models_were_published_and_how_good_each_recipe_is(
    topics: Topics, start: Services
) -> None:
    start("modelgenerator")
    assert published(topics, "first").version == 1
    published(topics, "cadence")
    topics.write(1_000)
    eventually(lambda: envelopes(topics)[-1].trained_on > 1_000)
    calm = envelopes(topics)[-1]
    share = r"\d\.\d{3}"
    alarm = published(
        topics,
        rf"alarm \((\w+: )?wrong on {share} of the records, before on {share}\)",
        first_is_not_positive,
        after=calm.version,
    )
    now, before = (float(number) for number in re.findall(share, alarm.reason))
    assert now > before
    for envelope in (calm, alarm):
        assert set(standings(envelope)) == OURS
        assert all(0 <= value <= 1 for value in standings(envelope).values())
        assert envelope.recipe_accuracy == standings(envelope)["vote"]
    assert standings(alarm)["vote"] < standings(calm)["vote"]


def test_a_modelgenerator_that_was_killed_publishes_on_with_the_standings_that_it_had(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    topics.write(2_000)
    # What nobody can learn is as bad for standings however often the busy machine lets it train.
    topics.write(300, rule=by_chance)
    eventually(lambda: envelopes(topics)[-1:] and envelopes(topics)[-1].trained_on > 2_200)
    process.kill()
    before = envelopes(topics)[-1]
    topics.write(100, rule=by_chance)
    start("modelgenerator")
    found = eventually(lambda: envelopes(topics)[before.version :])[0]
    assert found.version == before.version + 1
    assert found.reason != "first"
    assert found.trained_on > before.trained_on
    assert min(standings(before).values()) < 0.9
    assert standings(found)["vote"] == pytest.approx(standings(before)["vote"], abs=0.15)


def test_with_a_full_window_a_restart_publishes_within_10_seconds(
    topics: Topics, start: Services
) -> None:
    topics.write(20_000)
    process = start("modelgenerator")
    eventually(lambda: envelopes(topics)[-1:] and envelopes(topics)[-1].trained_on > 19_000)
    process.kill()
    before = envelopes(topics)[-1]
    topics.write(200)
    start("modelgenerator")
    (found, *_) = eventually(lambda: envelopes(topics)[before.version :], 2 * 10)
    assert found.trained_to["0"] > before.trained_to["0"]
    assert found.trained_on > 15_000
    assert found.reason != "first"
    assert standings(found)["vote"] > 0.95


def test_recipes_of_ones_own_vote_and_their_models_are_served_without_that_module(
    topics: Topics, start: Services, own: dict[str, str]
) -> None:
    topics.write(600)
    start("modelgenerator", RECIPES="own_recipes:RECIPES", **own)
    start("predictor")
    await_answered(topics)
    for envelope in envelopes(topics):
        assert set(standings(envelope)) == {"vote", "bayes", "tree"}
    topics.write(200)
    await_answered(topics)
    newest = topics.predictions()[-200:]
    assert sum(p["prediction"] == p["label"] for p in newest) > 180


@pytest.fixture
def boosting(own: dict[str, str]) -> dict[str, str]:
    """Return settings with which a restart reads back no further than the newest concept."""
    return {"RECIPES": "own_recipes:BOOSTING", "WINDOW": "1000", **own}


def archive_of_a_former_concept(topics: Topics) -> list[Former]:
    """Write records of one concept, then of another; return what the newest envelope names."""
    # In parts, so that not only the first model of the concept is published, and never a window of
    # records waits to be read: of more, some would be skipped.
    for number in range(1, 9):
        topics.write(500, rule=board)
        eventually(partial(has_trained_on, topics, 500 * number - 100))
    topics.write(2_000)
    return eventually(lambda: envelopes(topics)[-1].archive) or []


def test_a_model_of_a_former_concept_comes_back_after_a_restart_whose_window_does_not_reach_it(
    topics: Topics, start: Services, boosting: dict[str, str]
) -> None:
    process = start("modelgenerator", **boosting)
    kept = archive_of_a_former_concept(topics)
    process.kill()
    before = envelopes(topics)[-1].version
    process = start("modelgenerator", **boosting)
    await_line(process, f"models of former concepts that may come back: {len(kept)}")
    published(topics, "cadence", after=before)
    back = published(topics, r"archive \(a former boosting is right on .*", board, after=before)
    assert {each.version for each in kept} <= {each.version for each in back.archive or ()}


def test_a_model_of_a_former_concept_that_the_topic_has_lost_is_named_and_training_goes_on(
    topics: Topics, start: Services, boosting: dict[str, str]
) -> None:
    process = start("modelgenerator", **boosting)
    kept = archive_of_a_former_concept(topics)[0]
    process.kill()
    newest = envelopes(topics)[-1]
    place = TopicPartition(topics.settings.model_topic, 0)
    topics.admin.delete_records({place: newest.after or 0})
    process = start("modelgenerator", **boosting)
    await_line(
        process,
        f"boosting of model {kept.version}, will not come back: {topics.settings.model_topic} has"
        " it no more",
    )
    assert published(topics, "cadence", after=1).version > newest.version


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("nowhere:RECIPES", "ModuleNotFoundError: No module named 'nowhere'"),
        ("own_recipes:ABSENT", "AttributeError: module 'own_recipes' has no attribute 'ABSENT'"),
        ("own_recipes:NONE", "no table of recipes: [GaussianNB()]"),
    ],
)
def test_recipes_that_are_none_end_the_start_with_one_line(
    topics: Topics, start: Services, own: dict[str, str], table: str, line: str
) -> None:
    process = start("modelgenerator", RECIPES=table, **own)
    assert last_error(process) == f"RECIPES={table}: {line}"
    assert topics.versions() == []
