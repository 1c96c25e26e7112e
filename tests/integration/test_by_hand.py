from __future__ import annotations

import io

import joblib
import pytest

from modelgenerator.publisher import NotPublished
from modelgenerator.training.recipes import RECIPES
from stream.models import ModelError
from tests.services import Services, eventually
from tests.topics import Topics, publisher, regression
from tests.unit.classifiers import envelope, pickled


def publish_pinned(topics: Topics) -> int:
    version = topics.publish_next(envelope(recipe="notebook", reason="by hand", pinned=True))
    topics.await_decided()
    return version


def rollback(topics: Topics, version: int, **limits: float) -> int:
    with publisher(topics.settings.model_copy(update=limits), topics.key) as found:
        return found.rollback(version)


def unpin(topics: Topics, **limits: float) -> int:
    with publisher(topics.settings.model_copy(update=limits), topics.key) as found:
        return found.unpin()


def await_published(topics: Topics, version: int) -> None:
    """Write records until the modelgenerator has published a version."""

    def there() -> bool:
        topics.write(100)
        return topics.versions()[-1:] >= [version]

    eventually(there, 90, lambda: f"version {version}; there are {topics.versions()}")


def test_while_a_model_is_pinned_the_modelgenerator_publishes_nothing_and_says_so(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", RETRAIN_EVERY="100")
    await_published(topics, 1)
    hand = publish_pinned(topics)
    assert hand in topics.versions()

    said = f"model {hand} (notebook, by hand) is pinned: publishing nothing until"

    def noticed() -> bool:
        topics.write(100)
        return said in process.log()

    eventually(noticed, 90, said)
    assert topics.versions()[-1] == hand

    again = unpin(topics)
    models = {model["version"]: model for model in topics.models()}
    old, new = models[hand], models[again]
    assert (new["version"], new["restores"], new["reason"]) == (again, hand, "unpin")
    assert new["pickle"] == old["pickle"]
    await_published(topics, again + 1)
    assert topics.versions()[hand - 1 : hand + 2] == [hand, again, again + 1]
    assert topics.assembled()[again][0].pinned is False
    assert process.log().count("is pinned") == 1


def test_an_older_model_published_again_is_pinned_and_names_what_it_restores(
    topics: Topics,
) -> None:
    topics.publish(1, threshold=0.3, recipe="old")
    topics.publish(2)
    assert rollback(topics, 1) == 3
    first, _, third = topics.models()
    changed = {"version": 3, "reason": "rollback", "restores": 1, "pinned": True, "after": 2}
    changed |= {"created": third["created"], "stream": topics.stream}
    assert third == first | changed


def test_a_barred_model_is_unpinned_by_the_one_before_it(topics: Topics) -> None:
    topics.publish(1)
    topics.publish(2)
    assert publish_pinned(topics) == 3
    assert topics.versions() == [1, 2, 3]
    topics.say(3, "barred")
    topics.say(2, "refused")
    assert unpin(topics) == 4
    assert (topics.models()[-1]["restores"], topics.models()[-1]["pinned"]) == (1, False)


def test_what_is_not_pinned_is_not_unpinned(topics: Topics) -> None:
    with pytest.raises(NotPublished, match="not pinned"):
        unpin(topics)
    topics.publish(1)
    with pytest.raises(NotPublished, match="not pinned"):
        unpin(topics)
    with pytest.raises(ModelError, match="not on the topic"):
        rollback(topics, 7)


def test_a_model_in_parts_is_published_again_whole(topics: Topics) -> None:
    assert topics.publish_next(pickle=pickled(regression(2_000_000))) == 1  # four parts
    assert topics.publish_next() == 2
    assert rollback(topics, 1) == 3
    parts = [(m["part"], m["pickle"]) for m in topics.models() if m["version"] == 3]
    assert parts == [(m["part"], m["pickle"]) for m in topics.models() if m["version"] == 1]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"model_max_bytes": 1_000_000}, "larger than 1000000 bytes"),
        ({"model_max_microseconds": 0.001}, "too slow"),
    ],
)
def test_a_rollback_refuses_what_exceeds_the_limits(
    topics: Topics, limits: dict[str, float], reason: str
) -> None:
    assert topics.publish_next(pickle=pickled(regression(1_500_000))) == 1
    assert topics.publish_next() == 2
    with pytest.raises(ModelError, match=reason):
        rollback(topics, 1, **limits)
    assert topics.versions() == [1, 2]


def test_unpin_publishes_nothing_that_exceeds_the_limits(topics: Topics) -> None:
    assert publish_pinned(topics) == 1
    with pytest.raises(ModelError, match="too slow"):
        unpin(topics, model_max_microseconds=0.001)
    assert topics.versions() == [1]


def test_while_the_vote_is_suspended_the_best_recipe_is_published_alone(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", RETRAIN_EVERY="100")
    await_published(topics, 1)
    assert topics.models()[0]["recipe"] == "vote"
    topics.say(topics.versions()[-1], "refused")

    def another() -> bool:
        topics.write(100)
        return topics.assembled()[-1][0].recipe != "vote"

    eventually(another, 90)
    alone, pickle = topics.assembled()[-1]
    assert alone.recipe in {recipe.name for recipe in RECIPES}
    assert [*joblib.load(io.BytesIO(pickle)).members] == [alone.recipe]
    assert "was refused by r: for a test; its recipe vote is suspended" in process.log()
