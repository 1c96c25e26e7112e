"""A publisher keeps its producer and what it has read; these tests publish in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from kafka import KafkaConsumer, TopicPartition

from modelgenerator.publisher import NotPublished, Publisher
from stream import clients, reading
from stream.keys import revoke, signing_key
from stream.models import unpack
from stream.service import Fatal, Stop
from tests.topics import Topics, publisher, regression
from tests.unit.classifiers import envelope, pickled

PICKLE = pickled(regression())


@pytest.fixture
def kept(topics: Topics) -> Iterator[Publisher]:
    """A publisher that has published model 1."""
    with publisher(topics.settings, topics.key) as found:
        assert publish(found) == 1
        yield found


def publish(kept: Publisher) -> int:
    """Publish as the modelgenerator does."""
    return kept.publish(envelope(recipe="kept"), PICKLE, unless_pinned=True)


def test_it_connects_once_and_reads_each_model_once(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    producers, read = Mock(wraps=clients.producer), Mock(wraps=unpack)
    monkeypatch.setattr("stream.clients.producer", producers)
    monkeypatch.setattr("stream.model_topic.unpack", read)
    with publisher(topics.settings, topics.key) as kept:
        assert [publish(kept) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert producers.call_count == 1
    assert read.call_count <= 5
    models = topics.models()
    assert [model["version"] for model in models] == [1, 2, 3, 4, 5]
    offsets = [record.offset for record in topics.records(topics.settings.model_topic)]
    for before, model, offset in zip([-1, *offsets], models, offsets, strict=False):
        assert before < model["after"] <= offset


def test_a_transaction_that_ends_while_the_publisher_is_suspended_fails_no_publication(
    topics: Topics, kept: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    producers, bounds, open_at = Mock(wraps=clients.producer), reading.bounds, [(0, 0)]
    monkeypatch.setattr("stream.clients.producer", producers)
    monkeypatch.setattr("modelgenerator.publisher.HIDDEN_SECONDS", 0.0)  # over when it looks again

    def seen(client: KafkaConsumer, place: TopicPartition, *stop: Stop) -> tuple[int, int]:
        is_hidden = place.topic == topics.settings.model_topic and open_at
        return open_at.pop() if is_hidden else bounds(client, place, *stop)

    monkeypatch.setattr("stream.reading.bounds", seen)
    assert publish(kept) == 2
    assert not open_at
    assert not producers.called


def test_what_a_person_publishes_in_between_takes_the_next_version(
    topics: Topics, kept: Publisher
) -> None:
    for version in (2, 4, 6):
        assert topics.publish_next() == version
        assert publish(kept) == version + 1
    assert topics.versions() == [1, 2, 3, 4, 5, 6, 7]


def test_a_pin_in_between_holds_until_it_is_ended_or_the_model_is_barred(
    topics: Topics, kept: Publisher
) -> None:
    assert topics.publish_next(envelope(pinned=True)) == 2
    for _ in range(2):
        with pytest.raises(NotPublished, match=r"model 2 .* is pinned"):
            publish(kept)
    with publisher(topics.settings, topics.key) as person:
        assert person.unpin() == 3
        assert publish(kept) == 4
        assert person.rollback(1) == 5
    with pytest.raises(NotPublished, match=r"model 5 .* is pinned"):
        publish(kept)
    topics.say(5, "barred")
    assert [publish(kept), publish(kept)] == [6, 7]
    assert topics.versions() == [1, 2, 3, 4, 5, 6, 7]


def test_the_pin_before_counts_where_a_newer_one_is_barred_in_between(
    topics: Topics, kept: Publisher
) -> None:
    for version in (2, 3):
        assert topics.publish_next(envelope(pinned=True)) == version
    for version in (3, 2):
        with pytest.raises(NotPublished, match=f"model {version} .* is pinned"):
            publish(kept)
        topics.say(version, "barred")
    assert publish(kept) == 4


def test_two_that_publish_at_once_repeat_and_leave_out_no_version(topics: Topics) -> None:
    versions: dict[str, list[int]] = {"a": [], "b": []}

    def work(name: str) -> None:
        with publisher(topics.settings, topics.key) as kept:
            for _ in range(10):
                versions[name].append(kept.publish(envelope(recipe=name), PICKLE))

    threads = [threading.Thread(target=work, args=(name,)) for name in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    models = topics.models()
    assert [model["version"] for model in models] == list(range(1, 21))
    for name, told in versions.items():
        assert told == [model["version"] for model in models if model["recipe"] == name]


def test_a_key_that_is_revoked_in_between_pins_nothing_and_the_own_one_ends_it(
    topics: Topics, kept: Publisher, tmp_path: Path
) -> None:
    other, trusted = signing_key(tmp_path / "other.pem"), topics.settings.trusted_keys
    other.share(trusted)
    assert topics.publish_next(envelope(pinned=True), key=other) == 2
    with pytest.raises(NotPublished, match=r"model 2 .* is pinned"):
        publish(kept)
    revoke(other.fingerprint, trusted)
    assert publish(kept) == 2, "as if the other were not there"
    revoke(topics.key.fingerprint, trusted)
    with pytest.raises(Fatal, match="is not trusted"):
        publish(kept)


def test_a_secret_that_comes_later_makes_the_statuses_before_count(
    topics: Topics, kept: Publisher
) -> None:
    assert topics.publish_next(envelope(pinned=True)) == 2
    topics.say(2, "barred")  # it makes the secret
    secret = topics.settings.predictor_secret
    secret.rename(away := secret.with_suffix(".away"))
    with pytest.raises(NotPublished, match=r"model 2 .* is pinned"):
        publish(kept)
    away.rename(secret)
    assert publish(kept) == 3


def test_no_version_is_given_twice_where_no_predictor_has_said_yet_that_it_serves(
    topics: Topics, kept: Publisher, settings_env: dict[str, str]
) -> None:
    topics.delete(topics.settings.model_topic)
    with Topics(settings_env) as again:
        assert publish(kept) == 2
        assert again.versions() == [2]


def test_versions_continue_where_the_model_topic_is_recreated_in_between(
    topics: Topics, kept: Publisher, settings_env: dict[str, str]
) -> None:
    topics.say(7, "serving")
    topics.delete(topics.settings.model_topic)
    with Topics(settings_env) as again:
        assert publish(kept) == 8
        assert again.versions() == [8]
