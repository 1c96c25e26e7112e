from __future__ import annotations

import gzip
import logging
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords

from stream import batches, codecs, kafka_workarounds
from stream.batches import UndecodableBatch, unpack_records
from stream.service import Warnings
from tests.batches import (
    HEADER_BYTES,
    Latin,
    batch,
    checked,
    marker,
    with_attributes,
    with_payload,
)

PLACE = TopicPartition("data", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
THREE = [b"a", b"b", b"c"]


@pytest.fixture(autouse=True)
def applied() -> None:
    batches._suspects.clear()
    assert Fetcher.PartitionRecords._unpack_records is unpack_records, kafka_workarounds


def part(
    raw: bytes, start: int = 0, aborted: list[tuple[int, int]] | None = None, committed: bool = True
) -> Any:
    transactions = [
        SimpleNamespace(producer_id=producer_id, first_offset=first)
        for producer_id, first in aborted or []
    ]
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    return Fetcher.PartitionRecords(
        start, PLACE, MemoryRecords(raw), isolation_level=level, aborted_transactions=transactions
    )


def take_all(fetched: Any) -> list[Any]:
    """Take what one fetch holds, as `Fetcher.fetched_records` does."""
    found = []
    while fetched:
        found += fetched.take(1_000)
    return found


def read(*raw: bytes, start: int = 0, **options: Any) -> list[Any]:
    """Read to the end, in more than one fetch where the first ends early."""
    found, fetched = [], part(b"".join(raw), start, **options)
    found += take_all(fetched)
    if rest := batches_from(b"".join(raw), fetched.next_fetch_offset):
        found += take_all(part(rest, fetched.next_fetch_offset, **options))
    return found


def batches_from(raw: bytes, offset: int) -> bytes:
    """Leave out the batches before an offset, as a broker does."""
    while raw:
        base, length = struct.unpack_from(">qi", raw)
        if base + struct.unpack_from(">i", raw, 23)[0] >= offset or raw[16] < 2:
            return raw
        raw = raw[12 + length :]
    return raw


def summary(records: list[Any]) -> list[tuple[int, int] | bytes]:
    """Return the values of records, and first and last offset of what stands for a batch."""
    return [(r.first, r.offset) if isinstance(r, UndecodableBatch) else r.value for r in records]


@st.composite
def sound(draw: st.DrawFn) -> bytes:
    """Make a few batches behind one another, as any producer may send them."""
    some_bytes = st.none() | st.binary(max_size=200)
    raw, base = b"", 0
    for _ in range(draw(st.integers(1, 3))):
        values = draw(st.lists(some_bytes, min_size=1, max_size=5))
        keys = [draw(some_bytes) for _ in values]
        headers = draw(st.lists(st.tuples(st.text(max_size=5), some_bytes), max_size=3))
        producer = draw(st.sampled_from([-1, 7]))
        made = batch(values, base, draw(st.integers(0, 4)), keys, headers, producer)
        raw, base = raw + made, base + len(values) + draw(st.integers(0, 2))
    return raw


@given(sound(), st.integers(0, 4))
def test_sound_batches_are_decoded_as_the_client_decodes_them(raw: bytes, start: int) -> None:
    theirs = part(raw, start)
    theirs.record_iterator = (
        record
        for record in batches._client_unpack_records(theirs, PLACE, MemoryRecords(raw), None, None)
        if record.offset >= start
    )
    ours = part(raw, start)
    assert take_all(ours) == take_all(theirs)
    assert ours.next_fetch_offset == theirs.next_fetch_offset


@given(sound(), st.data())
def test_whatever_is_damaged_reading_ends_behind_the_last_batch(
    raw: bytes, data: st.DataObject
) -> None:
    raw += batch([b"behind"], base=100)
    damaged = bytearray(raw)
    first = 12 + struct.unpack_from(">i", raw, 8)[0]
    # Not the offset, the length and the format: the broker goes by them too.
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(17, first - 1))] = data.draw(st.integers(0, 255))
    for kept in (bytes(damaged), checked(bytes(damaged[:first])) + bytes(damaged[first:])):
        found = read(kept)
        assert found[-1].value == b"behind"
        offsets = [record.offset for record in found]
        assert offsets == sorted(set(offsets))


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, GZIP])
def test_the_formats_before_kafka_0_11_are_read(magic: int, codec: int) -> None:
    raw = batch(THREE, magic=magic, codec=codec)
    assert [(r.offset, r.value) for r in read(raw)] == [(0, b"a"), (1, b"b"), (2, b"c")]


WRONG: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda raw: raw[:-1] + b"x", "CRC mismatch"),
    (lambda raw: with_attributes(raw, 6), "unknown codec 6"),
    (lambda raw: with_attributes(raw, GZIP), "error: Error -3 while decompressing data"),
    (lambda raw: with_attributes(raw, SNAPPY), "UncompressError"),
    (lambda raw: with_attributes(raw, LZ4), "RuntimeError: LZ4F"),
    (lambda raw: with_attributes(raw, ZSTD), "ZstdError: "),
    (lambda raw: with_payload(raw, raw[HEADER_BYTES:] + b"x"), "corrupt records"),
    (lambda raw: with_payload(raw, raw[HEADER_BYTES:-1]), ""),
    (lambda raw: with_payload(raw, b""), "IndexError: index out of range"),
    (lambda raw: with_payload(raw, b"\xff" * 40), "ValueError: Out of int64 range"),
    (lambda raw: raw[:16] + b"\3" + raw[17:], "unknown magic 3"),
]


@pytest.mark.parametrize(("damage", "reason"), WRONG)
def test_a_batch_that_cannot_be_decoded_is_one_item_between_its_neighbours(
    damage: Callable[[bytes], bytes], reason: str
) -> None:
    raw = batch(THREE, base=1)
    found = read(batch([b"before"]), damage(raw), batch([b"behind"], base=4))
    assert summary(found) == [b"before", (1, 3), b"behind"]
    assert (found[1].value, found[1].topic, found[1].partition) == (None, "data", 3)
    assert found[1].reason.startswith(f"batch: cannot be decoded: {reason}")
    assert found[1].size == len(damage(raw))
    # The last of a fetch too.
    assert summary(read(batch([b"before"]), damage(raw))) == [b"before", (1, 3)]


def test_a_batch_with_a_wrong_checksum_is_fetched_once_more() -> None:
    sound, behind = batch(THREE), batch([b"behind"], base=3)
    damaged = sound[:-1] + b"x" + behind
    fetched = part(damaged)
    assert (fetched.take(10), fetched.next_fetch_offset, bool(fetched)) == ([], 0, False)
    assert summary(part(sound + behind).take(10)) == [*THREE, b"behind"]
    assert summary(part(damaged).take(10)) == [(0, 2), b"behind"]


def test_a_header_key_that_is_no_text_is_named_in_the_reason() -> None:
    [found] = read(batch(THREE, headers=[(Latin("é"), b"")]))
    assert (found.first, found.offset) == (0, 2)
    assert "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9" in found.reason


def test_a_record_has_at_most_10000_headers() -> None:
    limit = batches.HEADERS_LIMIT
    assert summary(read(batch([b"a"], headers=[("", b"")] * limit))) == [b"a"]
    [found] = read(batch([b"a"], headers=[("", b"")] * (limit + 1)))
    assert "a record with 10001 headers" in found.reason


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_decompresses_to_more_than_the_limit_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch, codec: int
) -> None:
    raw = batch([bytes(3_000_000)], codec=codec)
    monkeypatch.setattr(codecs, "UNPACKED_LIMIT", 4_000_000)
    assert [r.value for r in read(raw)] == [bytes(3_000_000)]
    monkeypatch.setattr(codecs, "UNPACKED_LIMIT", 2_500_000)
    [found] = read(raw)
    assert found.reason.endswith("decompresses to more than 2500000 bytes")


def test_a_snappy_block_that_claims_gigabytes_allocates_none() -> None:
    raw = with_attributes(with_payload(batch([b"a"]), b"\xff\xff\xff\xff\x0f\x00"), SNAPPY)
    assert "decompresses to more than" in read(raw)[0].reason


COMPRESSED = [
    (GZIP, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]) + b"behind the data"),
    (SNAPPY, snappy.compress),
    (LZ4, lambda data: lz4.frame.compress(data, store_size=False, content_checksum=True)),
    (LZ4, lambda data: lz4.frame.compress(data, block_linked=False) + b"behind the data"),
    (ZSTD, lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data)),
    (ZSTD, lambda data: b"".join(map(zstandard.compress, (data[:9], data[9:])))),
]


@pytest.mark.parametrize(("codec", "compress"), COMPRESSED)
def test_every_way_to_compress_that_other_clients_have_is_read(
    codec: int, compress: Callable[[bytes], bytes]
) -> None:
    raw = batch(THREE)
    raw = with_attributes(with_payload(raw, compress(raw[HEADER_BYTES:])), codec)
    assert summary(read(raw)) == THREE


@pytest.mark.parametrize(("codec", "compress"), COMPRESSED)
def test_compressed_data_that_ends_early_is_not_decoded(
    codec: int, compress: Callable[[bytes], bytes]
) -> None:
    raw = batch(THREE)
    data = compress(raw[HEADER_BYTES:]).removesuffix(b"behind the data")
    cut = with_attributes(with_payload(raw, data[: len(data) // 2]), codec)
    assert summary(read(cut, batch([b"behind"], base=3))) == [(0, 2), b"behind"]


def test_reading_that_begins_within_a_broken_batch_names_the_rest_of_it() -> None:
    raw = with_attributes(batch(THREE), 6)
    assert summary(read(raw, start=1)) == [(1, 2)]


def test_a_damaged_last_offset_takes_nothing_from_the_next_batch() -> None:
    raw = batch(THREE)
    raw = raw[:23] + struct.pack(">i", 1_000_000) + raw[27:]
    assert summary(read(raw, batch([b"behind"], base=3))) == [(0, 2), b"behind"]
    assert summary(read(raw, batch([b"behind"], base=3), start=3)) == [b"behind"]


def test_records_out_of_order_are_no_records() -> None:
    twice = batch([b"a"])[HEADER_BYTES:] * 2
    raw = with_payload(batch([b"a", b"a"]), twice)
    assert summary(read(raw)) == [(0, 1)]


def test_of_a_larger_batch_what_was_delivered_before_the_damage_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "AHEAD", 2)
    raw = batch(THREE)
    assert summary(read(raw)) == THREE
    assert summary(read(with_payload(raw, raw[HEADER_BYTES:-1]))) == [b"a", b"b", (2, 2)]


def test_the_position_follows_what_was_taken() -> None:
    fetched = part(batch(THREE) + with_attributes(batch(THREE, base=3), 6))
    positions = []
    while taken := fetched.take(1):
        positions.append((taken[0].offset, fetched.next_fetch_offset))
    assert positions == [(0, 1), (1, 2), (2, 3), (5, 6)]
    assert not fetched


def test_a_batch_whose_last_records_compaction_took_is_passed_whole() -> None:
    raw = batch([b"a"])
    fetched = part(checked(raw[:23] + struct.pack(">i", 9) + raw[27:]))
    assert summary(take_all(fetched)) == [b"a"]
    assert fetched.next_fetch_offset == 10


def test_aborted_records_are_left_out_and_broken_ones_of_theirs_too() -> None:
    aborted = batch(THREE, producer_id=7)
    raw = (
        aborted,
        with_attributes(batch(THREE, base=3, producer_id=7), 0x16),
        marker(6, 7, commit=False),
        batch([b"next"], base=7, producer_id=7),
        marker(8, 7, commit=True),
    )
    assert summary(read(*raw, aborted=[(7, 0)])) == [b"next"]
    everything = read(*raw, aborted=[(7, 0)], committed=False)
    assert summary(everything) == [*THREE, (3, 5), b"next"]


@pytest.mark.parametrize("key", [b"", b"\0\0\0\7", b"garbage"])
def test_after_a_broken_end_of_a_transaction_the_next_one_is_delivered(key: bytes) -> None:
    aborted, following = batch([b"a"], producer_id=7), batch([b"next"], base=2, producer_id=7)
    broken = marker(1, 7, commit=False, key=key)
    assert summary(read(aborted, broken, following, aborted=[(7, 0)])) == [b"next"]
    damaged = broken[:-1] + b"x"
    assert summary(read(aborted, damaged, following, aborted=[(7, 0)])) == [(1, 1), b"next"]


@pytest.mark.parametrize("length", [-12, 0, 5, 13])
def test_a_batch_of_a_wrong_length_ends_the_fetch_with_an_error(length: int) -> None:
    raw = batch([b"before"]) + batch([b"a"], base=1)[:8] + struct.pack(">i", length) + bytes(60)
    fetched = part(raw)
    assert summary(fetched.take(10)) == [b"before"]
    assert not fetched, "the next poll fetches again"
    with pytest.raises(CorruptRecordError, match="partition=3"):
        part(raw[len(batch([b"before"])) :]).take(10)


def test_out_of_memory_is_not_the_batch_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def decompress(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(batches, "decompress", decompress)
    fetched = part(batch(THREE))
    with pytest.raises(MemoryError):
        fetched.take(10)
    assert not fetched


def test_an_undecodable_batch_is_one_line_in_the_log_at_most_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_warnings", Warnings(logging.getLogger("stream")))
    for _ in range(2):
        read(with_attributes(batch(THREE), 6))
    assert [r.getMessage() for r in caplog.records] == [
        "data partition 3 offsets 0 to 2: batch: cannot be decoded: unknown codec 6"
    ]
