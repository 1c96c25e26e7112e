"""What those can do who may write the topics and the key folder but have no trusted key."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from kafka import TopicPartition

from local.process import Process
from modelgenerator.publisher import NotPublished
from stream import reading
from stream.keys import revoke
from stream.models import SIGNATURE, Message, pack
from stream.records import Status, encode_rejected, encode_status, reject
from stream.service import WARN_EVERY_SECONDS, Fatal
from tests.services import PATIENCE_SECONDS, Services, assert_ends, await_line, eventually
from tests.topics import Topics, await_answered, publisher, regression
from tests.unit.classifiers import STRANGER, Malicious, envelope, new_key, pickled


def on_the_topic(topics: Topics) -> list[Message]:
    """The records of the model topic, as anyone can read and write them again."""
    topics.await_decided()
    found = topics.records(topics.settings.model_topic)
    return [Message(record.value, list(record.headers)) for record in found]


def place_end(topics: Topics) -> int:
    place = TopicPartition(topics.settings.model_topic, 0)
    return reading.bounds(topics.consumer, place)[1]


def large(version: int, topics: Topics) -> list[Message]:
    """A model in three parts."""
    described = envelope(version, after=place_end(topics), stream=topics.stream)
    return list(pack(described, pickled(regression(1_300_000)), topics.key))


def flipped(message: Message, index: int) -> Message:
    value = bytearray(message.value)
    value[index] ^= 1
    return replace(message, value=bytes(value))


def forgeries(good: Message, marker: Path) -> list[Message]:
    """Records of the model topic that no trusted key signed, some with code in them."""
    malicious = pickled(Malicious(marker))
    ((name, signature),) = good.headers
    (foreign,) = pack(envelope(50), malicious, STRANGER)
    (unsigned,) = pack(envelope(51), malicious, None)
    return [
        foreign,
        unsigned,
        replace(foreign, headers=good.headers),
        replace(foreign, headers=[*foreign.headers, *good.headers]),
        replace(good, headers=[*good.headers, *good.headers]),
        replace(good, headers=[(name, b"")]),
        replace(good, headers=[(name, signature[:63])]),
        replace(good, headers=[(name.upper(), signature)]),
        Message(unsigned.value, [(name, signature)]),
        Message(b'{"version":' + b"[" * 500_000, good.headers),
        Message(orjson.dumps({**orjson.loads(good.value), "parts": 10**9}), good.headers),
        *(flipped(good, index) for index in range(0, len(good.value), 97)),
    ]


def assert_lines_a_minute(process: Process, text: str, most: int, begun: float) -> None:
    """Assert that a text was logged at most so often in each minute since `begun`."""
    minutes = 1 + (time.monotonic() - begun) // WARN_EVERY_SECONDS
    assert process.log().count(text) <= most * minutes


def test_somebody_who_can_only_write_the_model_topic_cannot_change_what_is_served(
    topics: Topics, start: Services, tmp_path: Path
) -> None:
    marker = tmp_path / "malicious code ran"
    for _ in range(3):
        topics.publish_next()
    history, begun = on_the_topic(topics), time.monotonic()
    predictor = start("predictor")
    await_line(predictor, "model 3 (test) serves from the next unit")
    forged = forgeries(history[-1], marker)
    topics.send(forged)
    topics.send(history * 5)
    topics.send([Message(b"garbage", [])] * 2_000)
    # Between all that, a model is still put together, from its own parts alone.
    parts = large(4, topics)
    others = large(5, topics)
    topics.send([parts[0], *forged[:5], parts[1], history[0], *forged[5:10], parts[2]])
    await_line(predictor, "model 4 (test) serves from the next unit")
    topics.send([others[0], parts[1], others[2]])
    topics.write(1)  # a unit that had begun may still be model 3's
    eventually(lambda: topics.answered() == 1, 60)
    topics.write(20)
    eventually(lambda: topics.answered() == 21, 60)
    assert {p["model"] for p in topics.predictions()[1:]} == {4}
    assert predictor.log().count(") serves from the next unit") == 2
    assert_lines_a_minute(predictor, "WARNING predictor: refused", 5, begun)  # one for each reason
    assert not marker.exists()
    # And a publisher does not give a version twice.
    topics.send(history[:1] * 600)
    assert topics.publish_next() == 6


def test_a_starting_predictor_ignores_old_models_that_are_replayed(
    topics: Topics, start: Services
) -> None:
    for _ in range(3):
        topics.publish_next()
    history = on_the_topic(topics)
    topics.send(history[:1] * 100)
    topics.send(history[1:2] * 10)
    predictor = start("predictor")
    await_line(predictor, "model 3 (test) serves from the next unit")
    assert predictor.log().count("serves from the next unit") == 1
    assert f"signed by {topics.key.fingerprint}" in predictor.log()


@pytest.fixture
def other(settings_env: dict[str, str]) -> Iterator[Topics]:
    """Another stream on the same brokers, which shares the keys."""
    names = {n: f"other.{settings_env[n]}" for n in ("DATA_TOPIC", "MODEL_TOPIC", "GROUP_ID")}
    with Topics(settings_env | names) as found:
        yield found


def test_a_model_that_was_signed_for_another_stream_neither_serves_nor_pins_nor_counts(
    topics: Topics, other: Topics, start: Services
) -> None:
    pinned = envelope(pinned=True, trained_to={"0": 10**6})
    for _ in range(3):
        other.publish_next(pinned)
    copies = on_the_topic(other)
    assert topics.publish_next() == 1
    topics.send(copies)
    predictor = start("predictor")
    await_line(predictor, "model 1 (test) serves from the next unit")
    topics.send(copies * 2)
    await_line(predictor, f"stream: signed for '{other.stream}', not for '{topics.stream}'")
    topics.write(100)
    await_answered(topics)
    assert {(p["model"], p.get("seen")) for p in topics.predictions()} == {(1, None)}

    trainer = start("modelgenerator")  # nothing is pinned, and no record was trained on
    topics.write(400)
    await_line(trainer, "model=2 ")
    await_line(predictor, "model 2 (")
    assert predictor.stop() == 0
    await_line(start("predictor"), "serves from the next unit")
    await_answered(topics)
    topics.check()


def test_models_of_older_software_serve_until_one_names_its_stream_and_copies_of_others_do_not(
    topics: Topics, other: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.publish(2)
    predictor = start("predictor")
    await_line(predictor, "model 2 (test) serves from the next unit")
    assert topics.publish_next() == 3
    await_line(predictor, "model 3 (test) serves from the next unit")
    other.publish(50, after=0)
    copies = on_the_topic(other)
    topics.send(copies * 20)
    await_line(predictor, "stream: missing, though a model before it names one")
    assert predictor.stop() == 0
    again = start("predictor")
    await_line(again, "model 3 (test) serves from the next unit")
    assert topics.publish_next() == 4
    await_line(again, "model 4 (test) serves from the next unit")


def test_a_model_topic_that_was_mirrored_serves_under_the_id_of_its_stream(
    topics: Topics, other: Topics, start: Services
) -> None:
    other.publish_next()
    other.publish_next()
    topics.send(on_the_topic(other))
    elsewhere = start("predictor")
    await_line(elsewhere, f"no model of {topics.settings.model_topic} can be served")
    assert elsewhere.stop() == 0
    predictor = start("predictor", STREAM_ID=other.stream)
    await_line(predictor, "model 2 (test) serves from the next unit")


def test_a_flood_of_garbage_on_the_model_topic_stops_no_publication_and_no_start(
    topics: Topics, start: Services
) -> None:
    assert topics.publish_next() == 1
    (tiny,) = pack(envelope(9), b"", STRANGER)
    topics.send([Message(b"{}", tiny.headers)] * 100_000)
    topics.send([replace(tiny, headers=[(SIGNATURE, bytes(64))])] * 10_000)
    assert topics.publish_next() == 2
    topics.send([Message(b"{}", tiny.headers)] * 100_000)
    begun = time.monotonic()
    predictor = start("predictor")
    await_line(predictor, "model 2 (test) serves from the next unit")
    assert topics.publish_next() == 3
    await_line(predictor, "model 3 (test) serves from the next unit")
    assert_lines_a_minute(predictor, "WARNING predictor: refused", 3, begun)


def test_an_open_transaction_of_a_stranger_delays_versions_and_repeats_none(topics: Topics) -> None:
    topics.publish_next()
    versions: list[int] = []
    publisher = threading.Thread(target=lambda: versions.append(topics.publish_next()))
    with topics.transactional(f"{topics.group}-stranger") as stranger:
        stranger.begin_transaction()
        stranger.send(topics.settings.model_topic, b"garbage", partition=0).get(30)
        publisher.start()
        publisher.join(6)
        assert versions == [], "whether a version 2 is hidden cannot be known yet"
        stranger.abort_transaction()
        publisher.join(PATIENCE_SECONDS)
    assert versions == [2]
    assert topics.publish_next() == 3


def test_a_status_without_the_seal_of_predictors_bars_nothing_and_takes_no_version(
    topics: Topics, start: Services
) -> None:
    topics.publish_next()
    predictor = start("predictor")
    await_line(predictor, "model 1 (test) serves from the next unit")
    for value in (b"garbage", b"[" * 100_000, b'{"version":"x"}'):
        topics.producer.send(topics.settings.status_topic, value, partition=0).get(30)
    topics.say(10**18, "serving")
    topics.say(2**53 - 1, "serving", sealed=False)
    for version in (1, 2, 3):
        topics.say(version, "barred", sealed=False)
    copied = encode_status(Status(1, "barred", {}, "copied", "r"))
    sound = topics.records(topics.settings.status_topic)[3]
    topics.producer.send(
        topics.settings.status_topic, copied, headers=list(sound.headers), partition=0
    ).get(30)
    assert topics.publish_next() == 2
    await_line(predictor, "model 2 (test) serves from the next unit")
    topics.write(10)
    await_answered(topics)
    assert predictor.stop() == 0
    again = start("predictor")
    await_line(again, "model 2 (test) serves from the next unit")
    assert "seal: it was not made with PREDICTOR_SECRET, so it does not count" in again.log()
    for process in (predictor, again):
        assert process.log().count("seal:") <= 1, "at most a line a minute"

    topics.say(2, "barred")
    await_line(again, "model 1 (test) serves from the next unit")


@pytest.mark.parametrize("offsets_are_lost", [False, True])
def test_forged_outputs_skip_no_record_and_change_no_count(
    topics: Topics, start: Services, offsets_are_lost: bool
) -> None:
    topics.publish(1)
    topics.write(100)
    topics.write_values([b"the last one is rejected"])
    predictor = start("predictor")
    await_answered(topics, 101)
    assert predictor.stop() == 0
    rejected, predicted = topics.settings.rejected_topic, topics.settings.prediction_topic
    headers = list(topics.records(rejected)[-1].headers)
    forged = encode_rejected(reject((0, 600), b"", "forged"))
    prediction = orjson.loads(topics.records(predicted)[-1].value)
    counts = orjson.dumps({**prediction, "n": 900, "correct": 900, "source": [0, 599]})
    for with_headers in ([], headers, headers[:-1], [("group", b"\xff"), ("incarnation", b"\xff")]):
        for topic, value in ((rejected, forged), (predicted, counts)):
            topics.producer.send(topic, value, headers=with_headers, partition=0).get(30)
    if offsets_are_lost:
        eventually(lambda: topics.admin.delete_groups([topics.group])[topics.group] == "OK")
    topics.write(500)
    again = start("predictor")
    await_line(again, "partitions 0@101 n=100")
    genuine = 101 + 500
    eventually(lambda: topics.answered() == genuine + 8, 60, again.tail)
    last = topics.predictions()[-1]
    assert (last["source"], last["n"]) == ([0, 600], 600)


@pytest.mark.parametrize("sealed", [False, True])
def test_only_a_sealed_status_ends_a_pin(topics: Topics, sealed: bool) -> None:
    assert topics.publish_next(envelope(pinned=True)) == 1
    topics.say(1, "barred", sealed=sealed)
    with publisher(topics.settings, topics.key) as found:
        if sealed:
            assert found.publish(envelope(), pickled(regression()), unless_pinned=True) == 2
            return
        with pytest.raises(NotPublished, match=r"model 1 .* is pinned"):
            found.publish(envelope(), pickled(regression()), unless_pinned=True)


def test_keys_are_rotated_and_revoked_while_the_predictor_runs_and_over_a_restart(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    folder, old = Path(settings_env["TRUSTED_KEYS"]), topics.key
    new = new_key()
    topics.publish_next()
    predictor = start("predictor")
    await_line(
        predictor,
        f"model 1 (test) serves from the next unit, trained on 200 records,"
        f" signed by {old.fingerprint}",
    )
    new.share(folder)
    both = ", ".join(sorted([old.fingerprint, new.fingerprint]))
    await_line(predictor, f"trusted in {folder}: {both}")
    assert topics.publish_next(key=new) == 2
    await_line(
        predictor,
        f"model 2 (test) serves from the next unit, trained on 200 records,"
        f" signed by {new.fingerprint}",
    )

    revoke(old.fingerprint, folder)
    await_line(predictor, f"trusted in {folder}: {new.fingerprint}\n")
    with pytest.raises(Fatal, match=f"signing key {old.fingerprint} is not trusted; trusted in"):
        topics.publish_next()
    topics.send(pack(envelope(3), pickled(regression()), old))
    await_line(predictor, "not signed by a trusted key")

    mark = revoke(new.fingerprint, folder)
    await_line(
        predictor,
        "model 2 goes on serving until a newer one comes, though key"
        f" {new.fingerprint} is no longer trusted; trusted in {folder}: none",
    )
    topics.write(10)
    eventually(lambda: topics.answered() == 10, 60)
    assert predictor.stop() == 0

    again = start("predictor")
    await_line(again, f"no model of {topics.settings.model_topic} can be served; waiting for one")
    assert f"not signed by a trusted key (trusted in {folder}: none)" in again.log()
    mark.rename(mark.with_suffix(".pem"))  # a model that came before its key
    await_line(again, "model 2 (test) serves from the next unit")
    assert "model 3" not in again.log()
    topics.write(10)
    eventually(lambda: topics.answered() == 20, 60)
    assert {p["model"] for p in topics.predictions()} == {2}


def test_a_revoked_key_leaves_the_newest_model_of_a_key_that_is_still_trusted(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    folder, stolen = Path(settings_env["TRUSTED_KEYS"]), new_key()
    stolen.share(folder)
    topics.publish_next()
    for _ in range(10):
        topics.publish_next(key=stolen)
    revoke(stolen.fingerprint, folder)
    predictor = start("predictor")
    await_line(predictor, "model 1 (test) serves from the next unit")
    assert predictor.log().count("not signed by a trusted key") == 1


STRANGE_IDS = (
    b"18446744073709551615",
    b"1000000",
    b"1796",
    b"0",
    b"-5",
    b'"text"',
    b"1e3",
    b"9" * 400,
)


@pytest.mark.parametrize("begun", [False, True], ids=["on a new topic", "within its own records"])
def test_ids_of_somebody_else_do_not_steer_the_datagenerator(
    topics: Topics, start: Services, begun: bool
) -> None:
    options = {"STREAM": "examples/digits.csv", "LABEL": "parity", "POSITIVE": "odd", "RATE": "0"}
    if begun:
        first = start("datagenerator", **options, COUNT="500")
        await_line(first, "ends with id 499")
        assert_ends(first)
    for id in STRANGE_IDS:
        topics.write_values(
            [b'{"id":%s,"features":%s}' % (id, b"[1,2]" if begun else orjson.dumps([1] * 61))]
        )
        again = start("datagenerator", **options, COUNT="500")
        await_line(again, f"first_id={500 * begun} " if id == STRANGE_IDS[0] else "first_id=500 ")
        await_line(again, "ends with id 499")
        assert_ends(again)
    await_line(start("datagenerator", **options), "ends with id 1796")
    own = [r for r in topics.records(topics.settings.data_topic) if r.key is None]
    assert [orjson.loads(record.value)["id"] for record in own] == list(range(1797))


def test_a_strange_id_costs_a_warning_that_names_its_place(topics: Topics, start: Services) -> None:
    topics.write_values([b'{"id":18446744073709551615,"features":[1,2,3]}'])
    process = start("datagenerator", COUNT="10", RATE="0")
    await_line(process, "done: sea ends with id 9")
    place = f"{topics.settings.data_topic} partition 0 offset 0"
    assert f"{place}: id 18446744073709551615 does not continue the ids" in process.log()
