"""Batches of records as a broker stores them, sound and damaged."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import for_code
from kafka.protocol.producer import ProduceRequest
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

HEADER_BYTES = 61
CRC_AT = 17
ATTRIBUTES_AT = 21

Headers = Sequence[tuple[str, bytes | None]]


class Latin(str):
    """The key of a header that kafka-python does not encode as UTF-8."""

    def encode(self, *_: Any) -> bytes:
        return super().encode("latin-1")


def batch(
    values: Sequence[bytes | None],
    base: int = 0,
    codec: int = 0,
    keys: Sequence[bytes | None] | None = None,
    headers: Headers = (),
    producer_id: int = -1,
    magic: int = 2,
) -> bytes:
    """Make a batch; with a producer id, one within a transaction."""
    known = producer_id >= 0
    state = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": 0} if known else {}
    builder = MemoryRecordsBuilder(magic, codec, 2**31 - 1, transactional=known, **state)
    for index, value in enumerate(values):
        builder.append(1_000 + index, keys[index] if keys else None, value, list(headers))
    builder.close()
    return at(bytes(builder.buffer()), base)


def at(raw: bytes, base: int) -> bytes:
    """Move a batch to another offset, as the broker does."""
    return struct.pack(">q", base) + raw[8:]


def marker(base: int, producer_id: int, commit: bool, key: bytes | None = None) -> bytes:
    """Make the end of a transaction."""
    key = struct.pack(">hh", 0, commit) if key is None else key
    raw = batch([b"\0\0\0\0\0\0"], base, keys=[key], producer_id=producer_id)
    return with_attributes(raw, 0x30)


def with_attributes(raw: bytes, attributes: int) -> bytes:
    """Change codec and kind of a batch."""
    return checked(raw[:ATTRIBUTES_AT] + struct.pack(">h", attributes) + raw[ATTRIBUTES_AT + 2 :])


def with_payload(raw: bytes, payload: bytes) -> bytes:
    """Change the records of a batch, compressed as its codec says."""
    length = struct.pack(">i", HEADER_BYTES - 12 + len(payload))
    return checked(raw[:8] + length + raw[12:HEADER_BYTES] + payload)


def checked(raw: bytes) -> bytes:
    """Give a batch the checksum of what it holds."""
    checksum = struct.pack(">I", calc_crc32c(raw[ATTRIBUTES_AT:]))
    return raw[:CRC_AT] + checksum + raw[ATTRIBUTES_AT:]


def produce(admin: KafkaAdminClient, place: TopicPartition, raw: bytes) -> int:
    """Write a batch as it is to a partition of a single broker, and return its first offset.

    Raises
    ------
    KafkaError
        Where the broker refuses it.
    """

    async def send() -> Any:
        topic = ProduceRequest.TopicProduceData
        partition = topic.PartitionProduceData(index=place.partition, records=raw)
        request = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=10_000,
            topic_data=[topic(name=place.topic, partition_data=[partition])],
            min_version=3,
            max_version=9,
        )
        return await admin._manager.send(request)

    answer = admin._manager.run(send).responses[0].partition_responses[0]
    if answer.error_code:
        raise for_code(answer.error_code)(answer.error_message)
    return int(answer.base_offset)
