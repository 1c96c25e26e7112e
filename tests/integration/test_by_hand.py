from __future__ import annotations

import pytest

from modelgenerator.by_hand import pinned, publish_again, unpin
from modelgenerator.settings import Settings
from stream.records import Status, encode_status
from stream.service import Fatal, Stop
from tests.services import Services, eventually
from tests.topics import Topics
from tests.unit.classifiers import envelope


@pytest.fixture
def settings(topics: Topics) -> Settings:
    return topics.settings


def publish_pinned(topics: Topics) -> int:
    return topics.publish_next(envelope(recipe="notebook", reason="by hand", pinned=True))


def fell(topics: Topics, version: int, status: str) -> None:
    said = encode_status(Status(version, status, {}, "for a test", "r"))
    topics.producer.send(topics.settings.status_topic, said, partition=0).get(30)


def await_published(topics: Topics, version: int) -> None:
    """Write records until the modelgenerator has published a version."""

    def there() -> bool:
        topics.write(100)
        return topics.versions()[-1:] >= [version]

    eventually(there, 90, lambda: f"version {version}; there are {topics.versions()}")


def test_while_a_model_is_pinned_the_modelgenerator_publishes_nothing_and_says_so(
    topics: Topics, settings: Settings, start: Services
) -> None:
    process = start("modelgenerator", RETRAIN_EVERY="100")
    await_published(topics, 1)
    hand = publish_pinned(topics)
    assert hand in topics.versions()
    assert [found.version for found in [pinned(settings, Stop())] if found] == [hand]

    said = f"model {hand} (notebook, by hand) is pinned: publishing nothing until"

    def noticed() -> bool:
        topics.write(100)
        return said in process.log()

    eventually(noticed, 90, said)
    assert topics.versions()[-1] == hand

    again = unpin(settings, topics.key, Stop())
    models = {model["version"]: model for model in topics.models()}
    old, new = models[hand], models[again]
    assert pinned(settings, Stop()) is None
    assert (new["version"], new["restores"], new["reason"]) == (again, hand, "unpin")
    assert new["pickle"] == old["pickle"]
    await_published(topics, again + 1)
    assert topics.versions()[hand - 1 : hand + 2] == [hand, again, again + 1]
    assert topics.models()[again]["pinned"] is False
    assert process.log().count("is pinned") == 1


def test_an_older_model_published_again_is_pinned_and_names_what_it_restores(
    topics: Topics, settings: Settings
) -> None:
    topics.publish(1, threshold=0.3, recipe="old")
    topics.publish(2)
    assert publish_again(settings, 1, topics.key, Stop()) == 3
    first, _, third = topics.models()
    changed = {"version": 3, "reason": "rollback", "restores": 1, "pinned": True, "after": 2}
    assert third == first | changed | {"created": third["created"]}


def test_a_barred_model_is_unpinned_by_the_one_before_it(
    topics: Topics, settings: Settings
) -> None:
    topics.publish(1)
    topics.publish(2)
    assert publish_pinned(topics) == 3
    assert topics.versions() == [1, 2, 3]
    fell(topics, 3, "barred")
    fell(topics, 2, "refused")
    assert unpin(settings, topics.key, Stop()) == 4
    assert (topics.models()[-1]["restores"], topics.models()[-1]["pinned"]) == (1, False)


def test_what_is_not_pinned_is_not_unpinned(topics: Topics, settings: Settings) -> None:
    with pytest.raises(Fatal, match="not pinned"):
        unpin(settings, topics.key, Stop())
    topics.publish(1)
    with pytest.raises(Fatal, match="not pinned"):
        unpin(settings, topics.key, Stop())
    with pytest.raises(Fatal, match="model 7: not on the topic"):
        publish_again(settings, 7, topics.key, Stop())


def test_a_model_in_parts_is_published_again_whole(topics: Topics, settings: Settings) -> None:
    large = bytes(range(256)) * 8_000  # four parts
    assert topics.publish_next(pickle=large) == 1
    assert topics.publish_next(pickle=b"x") == 2
    assert publish_again(settings, 1, topics.key, Stop()) == 3
    parts = [(m["part"], m["pickle"]) for m in topics.models() if m["version"] == 3]
    assert parts == [(m["part"], m["pickle"]) for m in topics.models() if m["version"] == 1]


def test_a_recipe_whose_model_was_refused_is_not_the_champion(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", RETRAIN_EVERY="100")
    await_published(topics, 1)
    (first, *_) = topics.models()
    fell(topics, topics.versions()[-1], "refused")

    def another() -> bool:
        topics.write(100)
        return any(model["recipe"] != first["recipe"] for model in topics.models())

    eventually(another, 90)
    changed = next(m for m in topics.models() if m["recipe"] != first["recipe"])
    assert changed["reason"] == "champion"
    assert f"was refused by r: for a test; its recipe {first['recipe']} is not" in process.log()
