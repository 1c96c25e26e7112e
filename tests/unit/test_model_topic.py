from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.errors import KafkaError

from stream.keys import SigningKey, revoke
from stream.model_topic import LONGEST, ModelIndex, ModelTopic, StoredModel, put_together
from stream.models import Message, ModelError, Part, pack, unpack
from stream.service import Stop
from stream.settings import ModelLimits
from tests.unit.classifiers import LARGE, STRANGER, envelope, new_key

KEY = new_key()
SETTINGS = ModelLimits.model_validate({"stream_id": "here"})
GARBAGE = Message(b"garbage", [("signature", bytes(64))])


def model(
    version: int, pickle: bytes = b"x", key: SigningKey | None = KEY, **changes: Any
) -> list[Message]:
    return list(pack(envelope(version, **{"stream": "here", **changes}), pickle, key))


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
    return ModelTopic(SETTINGS, log, Stop(), tmp_path)


def version_of(found: StoredModel | None) -> int | None:
    return found.version if found else None


def index_of(messages: Iterable[Message]) -> ModelIndex:
    index = ModelIndex()
    for offset, message in enumerate(messages):
        index.add(offset, unpack(message.value), "a key")
    return index


def parts_of(messages: Iterable[Message]) -> dict[int, Part]:
    return {offset: unpack(message.value) for offset, message in enumerate(messages)}


def taking(parts: dict[int, Part], taken: list[Part]) -> Iterator[tuple[int, Part]]:
    """Yield parts with their offsets, and note those that were taken."""
    for offset, part in parts.items():
        taken.append(part)
        yield offset, part


def all_put_together(messages: Sequence[Message], max_bytes: int = 10**9) -> dict[int, bytes | str]:
    """Return for each version its pickle, or why it cannot be had."""
    parts = parts_of(messages)
    found: dict[int, bytes | str] = {}
    for stored in index_of(messages).models():
        try:
            found[stored.version] = put_together(stored, parts.items(), max_bytes)[1]
        except ModelError as error:
            found[stored.version] = str(error)
    return found


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
            log.messages += model(version, stream=None)
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
    topic = ModelTopic(
        SETTINGS, log, Stop(), tmp_path, lambda r, why: ignored.append((r.offset, why))
    )
    assert version_of(topic.newest()) == 1
    assert {offset for offset, _ in ignored} == {2, 3, 4}
    assert dict(ignored)[3] == "expected one signature header, got none"
    revoke(KEY.fingerprint, tmp_path)
    assert ModelTopic(SETTINGS, log, Stop(), tmp_path).newest() is None
    anyones = ModelTopic(SETTINGS, log, Stop(), None).newest()
    assert anyones
    assert (anyones.version, anyones.signer) == (3, "nobody")


# Of which stream


def test_a_model_that_was_signed_for_another_stream_does_not_count(
    log: Log, tmp_path: Path
) -> None:
    log.publish(1)
    log.messages += model(7, stream="elsewhere", after=0, pinned=True)
    log.publish(2)
    log.messages += model(8, stream="elsewhere", after=10**9)
    KEY.share(tmp_path)
    ignored: dict[int, str] = {}
    topic = ModelTopic(
        SETTINGS, log, Stop(), tmp_path, lambda r, why: ignored.update({r.offset: why})
    )
    assert version_of(topic.newest()) == 2
    assert [m.version for m in topic.read_all().models()] == [1, 2]
    expected = "stream: signed for 'elsewhere', not for 'here' (STREAM_ID)"
    assert ignored == {2: expected, 5: expected}


@pytest.mark.parametrize("foreign", [1, 50])
def test_models_that_name_no_stream_count_up_to_the_first_that_names_one(
    log: Log, topic: ModelTopic, foreign: int
) -> None:
    for version in range(1, 30):
        log.publish(version, stream=None)
    assert version_of(topic.newest()) == 29
    log.publish(30)
    copies = model(foreign, b"of another stream", after=0, stream=None)
    log.messages += copies * 20
    assert version_of(topic.newest()) == 30
    assert topic.get(12)[0].version == 12
    assert topic.get(1)[1] == b"x"
    log.messages += copies
    assert topic.poll(0) == []
    assert version_of(topic.newest()) == 30


@pytest.mark.parametrize("copies", [0, 5, 5_000])
def test_a_reader_that_starts_serves_no_unbound_copy_though_it_stands_at_the_end(
    log: Log, topic: ModelTopic, copies: int
) -> None:
    log.publish(1, stream=None)
    log.publish(2)
    log.publish(3)
    log.messages += model(99, b"of another stream", after=3, stream=None) * copies
    assert version_of(topic.newest()) == 3


# The bytes of one


@given(
    st.dictionaries(st.integers(0, 99).map(str), st.integers(0, 2**53)),
    st.binary(max_size=3_000),
    st.integers(1, 1_000),
    st.randoms(use_true_random=False),
)
@example({}, b"", 8, Random(0))
@example({}, bytes(8), 8, Random(0))
@example({}, bytes(9), 8, Random(0))
def test_a_model_in_parts_in_any_order_comes_back_as_it_went(
    trained_to: dict[str, int], pickle: bytes, part_bytes: int, random: Random
) -> None:
    sent = envelope(7, trained_to=trained_to)
    parts = [unpack(message.value) for message in pack(sent, pickle, None, part_bytes)]
    assert len(parts) == max(1, -(-len(pickle) // part_bytes))
    random.shuffle(parts)
    index = ModelIndex()
    *none, found = [index.add(offset, part, "a key") for offset, part in enumerate(parts)]
    assert not any(none)
    assert found
    came, content = put_together(found, enumerate(parts), max_bytes=3_000)
    assert (replace(came, sha256=""), content) == (sent, pickle)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_model_without_one_of_its_parts_names_it_and_the_next_is_whole(number: int) -> None:
    torn, next_ = model(1, LARGE), model(2, LARGE)
    del torn[number - 1]
    missing = f"part {number} of 3 is missing"
    assert all_put_together([*torn, *next_]) == {1: missing, 2: LARGE}
    assert all_put_together([*torn, torn[0], *next_, torn[1]]) == {1: missing, 2: LARGE}


def test_parts_of_two_versions_do_not_mix() -> None:
    one, two = model(1, LARGE), model(2, LARGE[::-1])
    assert all_put_together([one[0], two[1], one[2]]) == {
        1: "part 2 of 3 is missing",
        2: "part 1 of 3 is missing",
    }
    mixed = [one[0], two[0], one[1], two[1], one[2], two[2]]
    assert all_put_together(mixed) == {1: LARGE, 2: LARGE[::-1]}


def test_parts_of_two_contents_of_a_version_do_not_mix() -> None:
    one, two = model(1, LARGE), model(1, LARGE[::-1])
    assert all_put_together([one[0], one[1], two[2]]) == {1: "part 3 of 3 is missing"}
    assert all_put_together([one[0], two[1], one[2], two[0], two[2]]) == {1: LARGE[::-1]}


def test_parts_of_a_model_that_was_split_in_two_ways_do_not_mix() -> None:
    threes, fives = (list(pack(envelope(1), bytes(15), KEY, share)) for share in (5, 3))
    assert all_put_together([*threes[:2], *fives[2:]]) == {1: "part 3 of 3 is missing"}
    assert all_put_together([threes[0], *fives]) == {1: bytes(15)}


def test_a_model_that_begins_again_is_whole() -> None:
    one = model(1, LARGE)
    assert all_put_together([one[0], one[1], *one]) == {1: LARGE}


def test_a_model_of_the_largest_size_is_put_together_and_nothing_is_read_of_a_larger_one() -> None:
    messages = [*model(1, LARGE), *model(2, b"small")]
    assert all_put_together(messages, len(LARGE)) == {1: LARGE, 2: b"small"}
    larger = f"larger than {len(LARGE) - 1} bytes (at least {len(LARGE)})"
    assert all_put_together(messages, len(LARGE) - 1) == {1: larger, 2: b"small"}
    stored = index_of(messages).find(1)
    assert stored
    taken: list[Part] = []
    with pytest.raises(ModelError, match="larger than"):
        put_together(stored, taking(parts_of(messages), taken), len(LARGE) - 1)
    assert taken == []


def test_nothing_is_read_of_a_model_that_is_not_whole() -> None:
    messages = model(1, LARGE)[:2]
    stored = index_of(messages).find(1)
    assert stored
    taken: list[Part] = []
    with pytest.raises(ModelError, match="part 3 of 3 is missing"):
        put_together(stored, taking(parts_of(messages), taken), 10**9)
    assert taken == []


def test_a_part_that_is_gone_or_replaced_since_it_was_read_makes_no_model() -> None:
    messages = model(1, LARGE)
    stored = index_of(messages).find(1)
    assert stored
    parts = list(parts_of(messages).items())
    other = [(offset, replace(part, pickle=b"other")) for offset, part in parts]
    for come in ([], parts[:2], parts[1:], [*parts[:2], other[2]]):
        with pytest.raises(ModelError, match="sha256: does not match the pickle"):
            put_together(stored, come, 10**9)


def test_the_digest_decides_over_a_pickle_that_is_given_twice() -> None:
    (message,) = model(1, b"x")
    evil = Message(message.value[:-1] + b',"pickle":"eQ=="}', [])
    assert all_put_together([message]) == {1: b"x"}
    assert all_put_together([evil]) == {1: "sha256: does not match the pickle"}


@settings(max_examples=20)
@given(
    st.lists(
        st.integers(1, 5).flatmap(
            lambda parts: st.builds(
                Part,
                st.integers(1, 3).map(envelope),
                st.integers(1, parts),
                st.just(parts),
                st.binary(min_size=1, max_size=30),
            )
        ),
        max_size=30,
    )
)
def test_parts_in_any_order_never_make_a_model_that_was_not_sent_and_take_a_bounded_size(
    sent: list[Part],
) -> None:
    index = ModelIndex()
    for offset, part in enumerate(sent):
        index.add(offset, part, "a key")
    for stored in index.models():
        taken: list[Part] = []
        parts = {offset: sent[offset] for offset in stored.offsets.values()}
        with pytest.raises(ModelError):  # its digest is that of no model here
            put_together(stored, taking(parts, taken), max_bytes=60)
        assert sum(len(part.pickle) for part in taken) <= 60


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
    small = SETTINGS.model_copy(update={"model_max_bytes": 1_000})
    topic = ModelTopic(small, log, Stop(), tmp_path)
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
    read = list(log.read)
    with pytest.raises(ModelError, match="larger than 1000 bytes"):
        topic.get(2)
    assert log.read == read, "nothing is read of a model that is too large"
    roomy = ModelTopic(SETTINGS, log, Stop(), tmp_path)
    with pytest.raises(ModelError, match="part 2 of 3 is missing"):
        roomy.get(1)
    assert roomy.get(2)[1] == LARGE


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.data())
def test_models_whose_parts_are_lost_repeated_or_mixed_come_out_whole_or_not_at_all(
    pickles: list[bytes], data: st.DataObject
) -> None:
    sent = {
        version: list(pack(envelope(version), pickle, None, 8))
        for version, pickle in enumerate(pickles, 1)
    }
    messages = [message for parts in sent.values() for message in parts]
    kept = data.draw(st.lists(st.sampled_from(messages), max_size=20))
    topic = ModelTopic(SETTINGS, Log(list(kept)), Stop(), None)
    for version, parts in sent.items():
        if all(part in kept for part in parts):
            assert topic.get(version)[1] == pickles[version - 1]
        else:
            with pytest.raises(ModelError, match=r"is missing|not on the topic"):
                topic.get(version)


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
    sent = envelope(3, features=100, feature_names=names, stream="here")
    assert replace(models[2].envelope, sha256="") == sent
