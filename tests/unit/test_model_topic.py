from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.errors import KafkaError

from stream.keys import SigningKey, TrustedKeys, revoke
from stream.model_topic import LONGEST, ModelIndex, ModelTopic, StoredModel
from stream.models import Message, ModelError, pack, unpack
from stream.service import Stop
from stream.settings import ModelLimits
from tests.unit.classifiers import LARGE, STRANGER, envelope, new_key

KEY = new_key()
SETTINGS = ModelLimits.model_validate({})
GARBAGE = Message(b"garbage", [("signature", bytes(64))])


def model(
    version: int, pickle: bytes = b"x", key: SigningKey | None = KEY, **changes: Any
) -> list[Message]:
    return list(pack(envelope(version, **changes), pickle, key))


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass
class Log:
    """A consumer of a topic that is a list; ``None`` is the mark of a transaction."""

    messages: list[Message | None] = field(default_factory=list)
    first: int = 0
    batch: int = 1
    read: list[int] = field(default_factory=list)
    position_: int = 0

    def publish(self, version: int, pickle: bytes = b"x", **changes: Any) -> None:
        """Publish as a publisher does, within a transaction."""
        self.messages += [*model(version, pickle, after=len(self.messages), **changes), None]

    def beginning_offsets(self, places: Sequence[TopicPartition], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(places, self.first)

    def end_offsets(self, places: Sequence[TopicPartition], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(places, len(self.messages))

    def assign(self, places: Sequence[TopicPartition]) -> None:
        (self.place,) = places

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.position_ = offset

    def position(self, _: TopicPartition) -> int:
        return self.position_

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        offsets = range(self.position_, min(len(self.messages), self.position_ + self.batch))
        self.position_ = offsets.stop
        self.read += offsets
        found = [(offset, self.messages[offset]) for offset in offsets]
        return {self.place: [Record(o, m.value, m.headers) for o, m in found if m]}


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def topic(log: Log, tmp_path: Path) -> ModelTopic:
    KEY.share(tmp_path)
    return ModelTopic(SETTINGS, log, Stop(), TrustedKeys(tmp_path))


def version_of(found: StoredModel | None) -> int | None:
    return found.version if found else None


def index_of(messages: Iterable[Message]) -> ModelIndex:
    index = ModelIndex()
    for offset, message in enumerate(messages):
        index.add(offset, unpack(message.value), "a key")
    return index


# Which models stand there


def test_a_model_is_whole_whatever_stands_between_its_parts_and_in_whatever_order() -> None:
    one, two, three = model(1, LARGE), model(2, LARGE), model(3)
    mixed = [one[0], two[2], one[0], three[0], two[0], one[2], one[1], two[1], one[0]]
    assert [m.whole for m in index_of(mixed).models()] == [True, True, True]


def test_a_model_is_told_of_once_when_its_last_part_comes() -> None:
    index = ModelIndex()
    messages = [*model(1, LARGE), *model(1, LARGE)]
    told = [index.add(offset, unpack(m.value), "key") for offset, m in enumerate(messages)]
    assert [version_of(each) for each in told] == [None, None, 1, None, None, None]


def test_of_two_contents_of_a_version_the_one_that_was_whole_first_counts() -> None:
    first, second = model(1, b"first"), model(1, b"second")
    torn = model(1, LARGE)[:2]
    for messages in ([*torn, *first, *second, *first], [*first, *torn, *second]):
        for order in (messages, messages[::-1]):
            index = ModelIndex()
            for offset, message in sorted(
                enumerate(messages), key=lambda pair: order.index(pair[1])
            ):
                index.add(offset, unpack(message.value), "key")
            found = index.find(1)
            assert found
            assert found.envelope == unpack(first[0].value).envelope


def test_a_torn_model_names_the_missing_part_once_a_newer_version_came() -> None:
    begun = model(1, LARGE)
    assert index_of([begun[0], begun[2]]).torn() == []
    (torn,) = index_of([begun[0], begun[2], *model(2, LARGE)[:1]]).torn()
    assert (torn.version, torn.missing) == (1, "part 2 of 3 is missing")
    assert index_of([*begun, *model(2)]).torn() == []
    assert index_of([*begun[1:], *model(2)]).torn() == [], "retention took its beginning"


def test_a_forgotten_model_is_read_again_when_it_is_searched(log: Log, topic: ModelTopic) -> None:
    for version in range(1, 6):
        log.publish(version)
    assert version_of(topic.newest()) == 5
    topic.index.forget(5)
    assert [m.version for m in topic.index.models()] == [5]
    assert version_of(topic.newest(lambda m: m.version < 5)) == 4


# The newest


@pytest.mark.parametrize("older_software", [False, True])
def test_copies_behind_the_newest_never_change_the_choice(
    log: Log, topic: ModelTopic, older_software: bool
) -> None:
    for version in range(1, 34):
        if older_software:
            log.messages += model(version)
        else:
            log.publish(version)
    copies = [message for message in log.messages if message]
    log.messages += copies[:1] * 10
    log.messages += copies[4:9] * 200
    assert version_of(topic.newest()) == 33
    assert len(log.read) == len(set(log.read)), "an offset is read once"


def test_a_search_reads_no_further_back_than_a_newer_version_can_stand(
    log: Log, topic: ModelTopic
) -> None:
    for version in range(1, 1_000):
        log.publish(version)
    assert version_of(topic.newest()) == 999
    assert len(log.read) <= 8


def test_a_second_search_reads_only_what_came_since(log: Log, topic: ModelTopic) -> None:
    for version in range(1, 50):
        log.publish(version)
    assert version_of(topic.newest(lambda m: m.version < 40)) == 39
    log.read.clear()
    log.publish(50)
    assert version_of(topic.newest()) == 50
    assert version_of(topic.newest(lambda m: m.version < 45)) == 44
    assert log.read == [98, 99]


def test_garbage_of_a_stranger_costs_time_and_a_search_that_ran_out_of_it_goes_on(
    log: Log, topic: ModelTopic
) -> None:
    log.publish(1)
    log.publish(2)
    log.messages += [*model(9, key=STRANGER), *model(8, key=None)] * 50
    log.messages += [GARBAGE] * 2 * LONGEST
    with pytest.raises(KafkaError, match="goes on from there"):
        topic.newest(seconds=0)
    found = None
    for _ in range(10):  # each time, it reads one stretch at least
        with suppress(KafkaError):
            found = topic.newest(seconds=0)
    assert version_of(found) == 2
    assert len(log.read) == len(set(log.read))


def test_a_topic_that_was_copied_with_other_offsets_is_searched_whole(
    log: Log, topic: ModelTopic
) -> None:
    for version in range(1, 20):
        log.messages += model(version, after=10_000 + version)
    log.messages += log.messages[:1] * 20
    assert version_of(topic.newest()) == 19


def test_a_topic_that_was_recreated_is_searched_anew(log: Log, topic: ModelTopic) -> None:
    for version in range(1, 20):
        log.publish(version)
    assert version_of(topic.newest()) == 19
    log.messages.clear()
    assert topic.newest() is None
    log.publish(1)
    assert version_of(topic.newest()) == 1


def test_only_the_records_of_trusted_keys_count_and_others_are_told_of(
    log: Log, tmp_path: Path
) -> None:
    log.publish(1)
    log.messages += [GARBAGE, *model(2, key=None), *model(3, key=STRANGER)]
    ignored: list[tuple[int, str]] = []
    KEY.share(tmp_path)
    trusted = TrustedKeys(tmp_path)
    topic = ModelTopic(
        SETTINGS, log, Stop(), trusted, lambda r, why: ignored.append((r.offset, why))
    )
    assert version_of(topic.newest()) == 1
    assert {offset for offset, _ in ignored} == {2, 3, 4}
    assert dict(ignored)[3] == "expected one signature header, got none"
    revoke(KEY.fingerprint, tmp_path)
    assert ModelTopic(SETTINGS, log, Stop(), trusted).newest() is None
    anyones = ModelTopic(SETTINGS, log, Stop(), None).newest()
    assert anyones
    assert (anyones.version, anyones.signer) == (3, "nobody")


# The bytes of one


def test_the_bytes_of_a_model_are_found_between_strangers_and_copies(
    log: Log, topic: ModelTopic
) -> None:
    log.publish(1, b"one")
    parts = model(2, LARGE, after=2)
    copy = model(1, b"one", after=0)
    log.messages += [
        *parts[:1] * 3, GARBAGE, *copy, parts[2], *model(3, LARGE, STRANGER), parts[0], parts[1],
    ]  # fmt: skip
    log.messages += [*parts[1:], *copy * 20]
    assert topic.get(2)[1] == LARGE
    found, pickle = topic.get(1)
    assert (found.version, pickle) == (1, b"one")


def test_a_model_that_cannot_be_had_is_refused_with_the_reason(log: Log, tmp_path: Path) -> None:
    KEY.share(tmp_path)
    small = ModelLimits.model_validate({"model_max_bytes": 1_000})
    topic = ModelTopic(small, log, Stop(), TrustedKeys(tmp_path))
    log.messages += model(1, LARGE)[::2]
    log.messages += model(2, LARGE)
    log.messages += model(3, b"x", STRANGER)
    evil = unpack(model(4, b"evil")[0].value)
    value = model(4, b"good")[0].value.replace(b"Z29vZA==", b"ZXZpbA==")
    assert unpack(value).pickle == evil.pickle
    log.messages.append(Message(value, [("signature", KEY.sign(value))]))
    claim = orjson.dumps(orjson.loads(model(6)[0].value) | {"parts": 10**9})
    log.messages.append(Message(claim, [("signature", KEY.sign(claim))]))
    for version, reason in {
        1: "larger than 1000 bytes",
        2: "larger than 1000 bytes",
        3: "not on the topic, or not signed by a trusted key",
        4: "sha256: does not match the pickle",
        5: "not on the topic",
        6: r"larger than 1000 bytes \(at least 1000000000\)",
    }.items():
        with pytest.raises(ModelError, match=reason):
            topic.get(version)
    roomy = ModelTopic(SETTINGS, log, Stop(), TrustedKeys(tmp_path))
    with pytest.raises(ModelError, match="part 2 of 3 is missing"):
        roomy.get(1)
    assert roomy.get(2)[1] == LARGE


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.data())
def test_models_whose_parts_are_lost_repeated_or_mixed_come_out_whole_or_not_at_all(
    pickles: list[bytes], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.models.PART_BYTES", 8)
        sent = [m for version, pickle in enumerate(pickles, 1) for m in model(version, pickle)]
    kept = data.draw(st.lists(st.sampled_from(sent), max_size=20))
    topic = ModelTopic(SETTINGS, Log(list(kept)), Stop(), None)
    for version, pickle in enumerate(pickles, 1):
        with suppress(ModelError):
            assert topic.get(version)[1] == pickle


# What comes


def test_models_are_followed_as_they_come(log: Log, topic: ModelTopic) -> None:
    log.batch = 500
    log.publish(1)
    assert version_of(topic.newest()) == 1
    assert topic.poll(0) == []
    log.publish(2)
    parts = model(3, LARGE)
    log.messages += [*parts[:2], *model(1), GARBAGE]
    assert [m.version for m in topic.poll(0)] == [2]
    log.messages += parts[2:]
    assert [m.version for m in topic.poll(0)] == [3]
    assert topic.get(3)[1] == LARGE
    log.publish(4)
    assert [m.version for m in topic.poll(0)] == [4]


def test_the_bytes_of_a_model_that_came_with_a_poll_are_not_read_again(
    log: Log, topic: ModelTopic
) -> None:
    log.batch = 500
    topic.poll(0)
    log.publish(1, LARGE)
    assert [m.version for m in topic.poll(0)] == [1]
    read = list(log.read)
    assert topic.get(1)[1] == LARGE
    assert log.read == read


def test_everything_is_read_from_the_beginning(log: Log, topic: ModelTopic) -> None:
    for version in range(1, 700):
        log.publish(version)
    log.first = 2
    assert [m.version for m in topic.read_all().models()] == list(range(2, 700))
    assert topic.get(50)[0].version == 50


def test_models_of_one_stream_share_their_feature_names() -> None:
    names = [f"feature {number}" for number in range(100)]
    messages = [m for v in range(1, 4) for m in model(v, features=100, feature_names=list(names))]
    models = index_of(messages).models()
    assert len({id(m.envelope.feature_names) for m in models}) == 1
    assert replace(models[2].envelope, sha256="") == envelope(3, features=100, feature_names=names)
