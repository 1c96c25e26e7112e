"""What other producers write, and what nobody can decode, read by the services."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from confluent_kafka import Producer
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from local.kafka import LocalKafka
from stream.batches import UndecodableBatch
from stream.records import Record, encode_record
from tests.batches import (
    ATTRIBUTES_AT,
    CRC_AT,
    HEADER_BYTES,
    Latin,
    batch,
    checked,
    produce,
    with_attributes,
    with_payload,
)
from tests.services import PATIENCE_SECONDS, Services, await_line, eventually
from tests.topics import Topics, await_answered

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
GZIP, LZ4, ZSTD = 1, 3, 4
VALUES = [encode_record(Record(-1, [float(n), 1.0], 1)) for n in range(3)]


def place(topics: Topics) -> TopicPartition:
    return TopicPartition(topics.settings.data_topic, 0)


def foreign(topics: Topics, codec: str, **options: str) -> Producer:
    """Make a producer of librdkafka's."""
    servers = topics.settings.kafka_bootstrap_servers
    # As few batches as the client makes of what is sent at once.
    common = {"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 100}
    return Producer(common | options)


def write_foreign(
    topics: Topics, codec: str, count: int, headers: bool, transactional: bool, first_id: int
) -> None:
    options = {"transactional.id": f"{topics.group}-foreign"} if transactional else {}
    producer = foreign(topics, codec, **options)
    if transactional:
        producer.init_transactions(30)
        producer.begin_transaction()
    for n in range(count):
        producer.produce(
            topics.settings.data_topic,
            encode_record(Record(first_id + n, [1.0 - n % 3, n / 7], n % 2)),
            key=b"key %d" % n if headers else None,
            headers=[("ü", b"\xff"), ("x", None)] if headers else None,
            partition=0,
        )
    if transactional:
        producer.commit_transaction(30)
    assert producer.flush(30) == 0


def test_what_librdkafka_writes_with_any_codec_is_predicted(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    predictor = start("predictor")
    ways = [
        (codec, count, headers, transactional)
        for codec in CODECS
        for count in (1, 1_000)
        for headers in (False, True)
        for transactional in (False, True)
    ]
    written = 0
    for way in ways:
        write_foreign(topics, *way, first_id=written)
        written += way[1]
    await_answered(topics, written, 180)
    assert [p["id"] for p in topics.predictions()] == list(range(written))
    assert "cannot be decoded" not in predictor.log()
    topics.check()


def test_topics_that_the_broker_compresses_are_read_by_every_service(
    topics: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    settings = topics.settings
    codecs = {
        settings.data_topic: "zstd",
        settings.schema_topic: "lz4",
        settings.model_topic: "snappy",
        settings.status_topic: "gzip",
        settings.prediction_topic: "lz4",
        settings.rejected_topic: "zstd",
    }
    topics.admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, topic, configs={"compression.type": codec})
            for topic, codec in codecs.items()
        ]
    )
    start("modelgenerator", RETRAIN_EVERY="200")
    start("predictor")
    generator = start("datagenerator", COUNT="1000", RATE="0")
    await_line(generator, "done")
    start("datagenerator", COUNT="2000", RATE="0")
    topics.write_values([b"not json"])
    await_answered(topics, 2_001, 180)
    assert [r["reason"].partition(":")[0] for r in topics.rejected()] == ["value"]
    verified = start.python("-m", "predictor.verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


UNDECODABLE: list[tuple[str, Callable[[], bytes], str]] = [
    ("a header that is no text", lambda: batch(VALUES, headers=[(Latin("é"), b"")]), "Unicode"),
    ("too many headers", lambda: batch(VALUES, headers=[("", b"")] * 10_001), "10001 headers"),
    (
        "a checksum that Java does not look at",
        lambda: compressed(
            LZ4,
            lambda data: (
                lz4.frame.compress(data, block_linked=False, content_checksum=True)[:-1] + b"x"
            ),
        ),
        "contentChecksum",
    ),
    (
        "150 MB in few bytes",
        lambda: with_attributes(
            with_payload(batch([b""]), zstandard.compress(large_record(150 * 2**20))), ZSTD
        ),
        "decompresses to more than",
    ),
    (
        "an offset outside the batch",
        lambda: with_payload(batch([b"a"]), batch([b"", b"a"])[HEADER_BYTES + 7 :]),
        "corrupt records",
    ),
]
"""What Kafka 4.3 takes, the batch, and a part of the reason."""


def compressed(codec: int, compress: Callable[[bytes], bytes]) -> bytes:
    raw = batch(VALUES)
    return with_attributes(with_payload(raw, compress(raw[HEADER_BYTES:])), codec)


def large_record(size: int) -> bytes:
    """Make the records of a batch with one record, all zeros but for lengths and no key."""

    def varint(number: int) -> bytes:
        encoded, number = bytearray(), 2 * number if number >= 0 else -2 * number - 1
        while number > 0x7F:
            encoded.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*encoded, number])

    body = b"\0\0\0" + varint(-1) + varint(size) + bytes(size) + b"\0"
    return varint(len(body)) + body


def test_batches_that_cannot_be_decoded_are_rejected_and_each_other_record_is_predicted(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(10)
    expected = []
    for _, make, reason in UNDECODABLE:
        first = produce(topics.admin, place(topics), make())
        topics.write(1)
        expected.append((first, topics.records(place(topics).topic)[-1].offset - 1, reason))
    assert topics.written() == 10 + len(UNDECODABLE)
    predictor = start("predictor")
    await_answered(topics, topics.written() + len(expected))
    found = topics.rejected()
    assert [(r["source"], r["until"]) for r in found] == [([0, a], b) for a, b, _ in expected]
    for rejected, (*_, reason) in zip(found, expected, strict=True):
        assert rejected["reason"].startswith("batch: cannot be decoded: ")
        assert reason in rejected["reason"]
        assert rejected["value"] == ""
    assert [p["id"] for p in topics.predictions()] == list(range(topics.written()))
    await_line(predictor, f"{place(topics).topic} partition 0 offsets {expected[0][0]} to")
    topics.check()
    verified = start.python("-m", "predictor.verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_predictor_resumes_behind_a_batch_that_it_has_rejected(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(5)
    produce(topics.admin, place(topics), UNDECODABLE[0][1]())
    predictor = start("predictor")
    await_answered(topics, 6)
    assert predictor.stop() == 0
    start("predictor")
    topics.write(5)
    await_answered(topics, 11)
    assert [(r["source"], r["until"]) for r in topics.rejected()] == [([0, 5], 7)]
    topics.check()


@pytest.mark.parametrize("name", ["data", "schema", "model", "status", "prediction", "rejected"])
def test_on_no_topic_does_a_batch_that_cannot_be_decoded_stop_a_service(
    topics: Topics, start: Services, name: str
) -> None:
    topic = getattr(topics.settings, f"{name}_topic")
    broken = batch([b"a"], keys=[b"k"], headers=[(Latin("é"), b"")])
    produce(topics.admin, TopicPartition(topic, 0), broken)
    generator = start("datagenerator", COUNT="600", RATE="0")
    await_line(generator, "done")
    modelgenerator = start("modelgenerator", RETRAIN_EVERY="100")
    predictor = start("predictor")
    eventually(topics.predictions, 120)
    produce(topics.admin, TopicPartition(topic, 0), broken)
    newest = topics.predictions()[-1]["model"]
    start("datagenerator", RATE="300")  # without end: a model may take long
    eventually(lambda: topics.predictions()[-1]["model"] > newest, 120)
    if name in ("data", "model", "status"):
        await_line(predictor, f"{topic} partition 0 offsets")
    for process in (modelgenerator, predictor):
        assert process.stop() == 0
    assert generator.stop() == 0


@pytest.fixture
def broker(tmp_path: Path, settings_env: dict[str, str]) -> Iterator[LocalKafka]:
    """Run a broker whose disk the test damages."""
    with LocalKafka(tmp_path / "broker") as found:
        settings_env["KAFKA_BOOTSTRAP_SERVERS"] = found.bootstrap_servers
        yield found


def _flip(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 0xFF])


def _wrong_lengths(raw: bytes) -> bytes:
    return checked(raw[:HEADER_BYTES] + b"\xff" * (len(raw) - HEADER_BYTES))


def _unknown_codec(raw: bytes) -> bytes:
    return checked(raw[:ATTRIBUTES_AT] + struct.pack(">h", 7) + raw[ATTRIBUTES_AT + 2 :])


def _wrong_checksum(raw: bytes) -> bytes:
    return raw[:CRC_AT] + bytes(4) + raw[CRC_AT + 4 :]


def test_what_a_disk_has_damaged_is_rejected_and_the_stream_goes_on_behind_it(
    broker: LocalKafka, tmp_path: Path, settings_env: dict[str, str], start: Services
) -> None:
    damages: list[Callable[[bytes], bytes]] = [
        _flip,
        _wrong_lengths,
        _unknown_codec,
        _wrong_checksum,
    ]
    with Topics(settings_env) as topics:
        topics.publish(1)
        for _ in damages:
            topics.write(2)
            produce(topics.admin, place(topics), compressed(GZIP, gzip.compress))
        topics.write(2)
        topic = topics.settings.data_topic
        broker.stop(PATIENCE_SECONDS)  # a killed one cuts off what is damaged when it starts
        segment = tmp_path / "broker" / "data" / f"{topic}-0" / f"{0:020d}.log"
        segment.write_bytes(_damaged(segment.read_bytes(), damages))
        broker.start()
        start("predictor")
        await_answered(topics, topics.written() + len(damages))
        first = [5 * n + 2 for n in range(len(damages))]
        found = [(r["source"], r["until"]) for r in topics.rejected()]
        assert found == [([0, offset], offset + 2) for offset in first]
        assert [p["id"] for p in topics.predictions()] == list(range(topics.written()))
        topics.check()
        assert start.python("-m", "predictor.verify").returncode == 0
        undecodable = [r for r in topics.records(topic) if isinstance(r, UndecodableBatch)]
        assert len(undecodable) == len(damages)


def _damaged(segment: bytes, damages: list[Callable[[bytes], bytes]]) -> bytes:
    """Damage one compressed batch after another."""
    found, waiting = b"", list(damages)
    while segment:
        length = 12 + struct.unpack_from(">i", segment, 8)[0]
        raw, segment = segment[:length], segment[length:]
        if raw[ATTRIBUTES_AT + 1] & 7 == GZIP:
            raw = waiting.pop(0)(raw)
        found += raw
    assert not waiting
    return found


SPIN = """
import os
from kafka.consumer.fetcher import Fetcher

append = Fetcher._append

def spin(fetcher, drained, part, most, update_offsets):
    if part.topic_partition.topic == os.environ["DATA_TOPIC"] and part.next_fetch_offset >= 3:
        print("NOW IT TURNS", flush=True)
        while True:
            pass
    return append(fetcher, drained, part, 3, update_offsets)

Fetcher._append = spin
"""


@pytest.mark.parametrize("service", ["predictor", "modelgenerator"])
def test_a_client_that_spins_is_ended_on_sigterm_with_a_line_that_says_where(
    topics: Topics, start: Services, tmp_path: Path, service: str
) -> None:
    folder = tmp_path / "spin"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPIN)
    topics.publish(1)
    topics.write(10)
    running = start(service, PYTHONPATH=str(folder))
    await_line(running, "NOW IT TURNS")
    assert running.stop(30) == 1
    [line] = [line for line in running.log().splitlines() if "did not stop within" in line]
    assert f"reading {topics.settings.data_topic} partition 0 offset 3" in line
    assert "in spin" in line
