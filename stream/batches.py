"""How the records of a fetch are decoded; a batch that cannot be decoded becomes one record.

Anyone who may write to a topic can write such a batch, and a disk can damage one. kafka-python
stops at it for ever. Where the next batch begins is certain: the broker has checked the lengths.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.util import decode_varint

from stream.codecs import CodecError, decompress
from stream.service import Warnings

AHEAD = 10_000
"""Records that are decoded before the first of them is delivered. Of a batch with no more than
that, as librdkafka's are by default, either all records are delivered or none."""

HEADERS_LIMIT = 10_000
"""Most headers that a record may have."""

_HEADER_BYTES = DefaultRecordBatch.HEADER_STRUCT.size
_OLD_HEADER_BYTES = MemoryRecords.MIN_SLICE
_MAGIC_AT = MemoryRecords.MAGIC_OFFSET
_LAST_OFFSET_DELTA_AT = 23

_suspects: set[tuple[TopicPartition, int]] = set()
"""Batches whose checksum was wrong once, which may have happened on the way from the broker."""

_warnings = Warnings(logging.getLogger("stream"))
_client_unpack_records = Fetcher.PartitionRecords._unpack_records


class BatchError(ValueError):
    """A batch that cannot be decoded."""


class ChecksumError(BatchError):
    """A batch that is not what its producer sent."""


class UndecodableBatch(ConsumerRecord):  # type: ignore[misc] # kafka-python carries no types
    """A record without key, value and headers in place of a batch that cannot be decoded.

    Its `offset` is the last of the batch: who goes on behind this record goes on behind the batch.

    Attributes
    ----------
    first : int
        The first offset of the batch that was not delivered.
    size : int
        Bytes of the batch on the topic.
    reason : str
        Why it cannot be decoded.
    """

    first: int
    size: int
    reason: str


def unpack_records(
    part: Any, place: TopicPartition, batches: Any, *deserializers: Any
) -> Iterator[Any]:
    """Yield the records of one partition's fetch, and an `UndecodableBatch` where there is one.

    Records of aborted transactions are left out where the consumer reads committed ones only.
    It takes the place of kafka-python's own method and needs about half its time.

    Parameters
    ----------
    part : kafka.consumer.fetcher.Fetcher.PartitionRecords
        Its `next_fetch_offset` follows the records that are taken from here.
    *deserializers : object
        With any, the client decodes by itself.

    Raises
    ------
    CorruptRecordError
        Where the length of a batch is wrong, so that the next one cannot be found.
    MemoryError
    """
    if any(deserializers):
        yield from _client_unpack_records(part, place, batches, *deserializers)
        return
    try:
        while (raw := batches._next_slice) is not None:
            _check_length(place, raw)
            try:
                batches._cache_next()
            except struct.error:  # a negative length
                raise CorruptRecordError(f"{place}: a batch behind another has no end") from None
            last, records = _last_offset(raw), None
            while True:
                first = max(part.next_fetch_offset, part.fetch_offset)
                try:
                    records = records or _records(part, place, raw)
                    found = list(islice(records, AHEAD))
                except (MemoryError, KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:  # noqa: BLE001 - compiled codecs raise what they like
                    if isinstance(error, ChecksumError) and _is_new_suspect(place, raw):
                        return  # fetched once more, from here on
                    last = _certain_last_offset(raw, batches._next_slice, first)
                    found = [_undecodable(place, raw, first, last, error)] if last >= first else []
                for record in found:
                    part.next_fetch_offset = record.offset + 1
                    yield record
                if len(found) < AHEAD:
                    break
            # Behind the last record, which compaction may have taken.
            part.next_fetch_offset = max(part.next_fetch_offset, last + 1)
    finally:
        part.drain()  # what is not drained is asked for more, for ever


def _check_length(place: TopicPartition, raw: memoryview) -> None:
    old = len(raw) > _MAGIC_AT and raw[_MAGIC_AT] < 2
    if len(raw) < (_OLD_HEADER_BYTES if old else _HEADER_BYTES):
        raise CorruptRecordError(f"{place}: a batch of {len(raw)} bytes")


def _records(part: Any, place: TopicPartition, raw: memoryview) -> Iterator[Any]:
    """Decode one batch.

    Raises
    ------
    Exception
        Whatever is wrong with it.
    """
    magic = raw[_MAGIC_AT]
    if magic > 2:
        raise BatchError(f"unknown magic {magic}")
    batch = DefaultRecordBatch(raw) if magic == 2 else LegacyRecordBatch(raw, magic)
    skipped = magic == 2 and _is_skipped(part, batch)
    if part.check_crcs and not batch.validate_crc():
        raise ChecksumError("CRC mismatch")
    part.bytes_read += len(raw)
    if magic < 2:
        return _old_records(place, batch)
    if skipped:
        return iter(())
    part.leader_epoch = batch.leader_epoch
    return _decode(place, batch, decompress(batch.compression_type, bytes(raw[_HEADER_BYTES:])))


def _is_skipped(part: Any, batch: Any) -> bool:
    """Tell whether a batch is the end of a transaction, or of one that was aborted."""
    aborted = False
    if part.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
        part._consume_aborted_transactions_up_to(batch.last_offset)
        if batch.is_control_batch:
            part.aborted_producer_ids.discard(batch.producer_id)
        aborted = part._is_batch_aborted(batch)
    return batch.is_control_batch or aborted


def _is_new_suspect(place: TopicPartition, raw: memoryview) -> bool:
    suspect = (place, _base_offset(raw))
    if suspect in _suspects:
        _suspects.discard(suspect)
        return False
    _suspects.add(suspect)
    return True


def _decode(place: TopicPartition, batch: Any, data: bytes) -> Iterator[Any]:
    topic, partition = place
    epoch, kind, base = batch.leader_epoch, batch.timestamp_type, batch.base_offset
    appended = batch.max_timestamp if kind == DefaultRecordBatch.LOG_APPEND_TIME else None
    start, least, most, at = batch.first_timestamp, base, batch.last_offset, 0
    for _ in range(batch.records_count):
        length, at = decode_varint(data, at)
        end = at + length
        delta, at = decode_varint(data, at + 1)  # behind the attributes, which mean nothing
        offset, at = decode_varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = decode_varint(data, at)
        if not 0 <= count <= HEADERS_LIMIT:
            raise BatchError(f"a record with {count} headers, at most {HEADERS_LIMIT} are allowed")
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            content, at = _bytes(data, at)
            headers.append((_text(name), content))
        offset += base
        if at != end or not least <= offset <= most:
            raise BatchError("corrupt records")
        least = offset + 1
        yield ConsumerRecord(
            topic,
            partition,
            epoch,
            offset,
            start + delta if appended is None else appended,
            kind,
            key,
            value,
            headers,
            None,
            _size(key),
            _size(value),
            sum(len(name.encode()) + len(content or b"") for name, content in headers)
            if headers
            else -1,
        )
    if at != len(data):
        raise BatchError("corrupt records")


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    if length < 0:
        return None, at
    return data[at : at + length], at + length


def _text(name: bytes | None) -> str:
    if name is None:
        raise BatchError("a header without a key")
    return name.decode()


def _size(value: bytes | None) -> int:
    return -1 if value is None else len(value)


def _old_records(place: TopicPartition, batch: Any) -> Iterator[Any]:
    """Decode the formats before Kafka 0.11."""
    for record in batch:
        yield ConsumerRecord(
            *place,
            -1,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            record.key,
            record.value,
            [],
            record.checksum,
            _size(record.key),
            _size(record.value),
            -1,
        )


def _undecodable(
    place: TopicPartition, raw: memoryview, first: int, last: int, error: BaseException
) -> UndecodableBatch:
    time_ms = -1 if raw[_MAGIC_AT] < 2 else max(-1, DefaultRecordBatch(raw).first_timestamp)
    batch = UndecodableBatch(*place, None, last, time_ms, 0, None, None, [], None, -1, -1, -1)
    batch.first, batch.size = first, len(raw)
    known = isinstance(error, BatchError | CodecError)
    text = str(error) if known else f"{type(error).__name__}: {error}".rstrip(": ")
    batch.reason = f"batch: cannot be decoded: {' '.join(text.split())[:200]}"
    _warnings.warn(
        str(place),
        f"{place.topic} partition {place.partition} offsets {first} to {last}: {batch.reason}",
    )
    return batch


def _base_offset(raw: memoryview) -> int:
    return int(struct.unpack_from(">q", raw)[0])


def _last_offset(raw: memoryview) -> int:
    if raw[_MAGIC_AT] < 2:  # the old formats name that of the last record
        return _base_offset(raw)
    return _base_offset(raw) + int(struct.unpack_from(">i", raw, _LAST_OFFSET_DELTA_AT)[0])


def _certain_last_offset(raw: memoryview, following: memoryview | None, first: int) -> int:
    """Return where a batch ends whose header may be damaged: before the next one begins."""
    if following is None or len(following) < _OLD_HEADER_BYTES:
        return max(first, _last_offset(raw))
    return _base_offset(following) - 1
