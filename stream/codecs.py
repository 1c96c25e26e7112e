"""Decompression of Kafka's codecs, whoever compressed, within a bound.

A batch of a megabyte can decompress to gigabytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator

import lz4.frame
import snappy
import zstandard

UNPACKED_LIMIT = 128 * 2**20
"""Most bytes that a batch may decompress to."""

_PIECE_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16


class CodecError(ValueError):
    """Data that cannot be decompressed, or not within the bound."""


def decompress(codec: int, data: bytes) -> bytes:
    """Decompress the records of a batch.

    Parameters
    ----------
    codec : int
        As in a batch's attributes: 0 none, 1 gzip, 2 Snappy, 3 LZ4, 4 Zstandard.

    Raises
    ------
    CodecError
        Where the codec is unknown, or the data incomplete or larger than `UNPACKED_LIMIT`.
    Exception
        Whatever else a library raises at damaged data.
    """
    if codec not in _CODECS:
        raise CodecError(f"unknown codec {codec}")
    found, size = [], 0
    for piece in _CODECS[codec](data):
        size += len(piece)
        _check(size)
        found.append(piece)
    return b"".join(found)


def _none(data: bytes) -> Iterable[bytes]:
    return (data,)


def _gzip(data: bytes) -> Iterator[bytes]:
    """Decompress the members of gzip data; what follows them is ignored, as Java does."""
    first = True
    while first or data.startswith(_GZIP):
        first = False
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = member.decompress(data, _PIECE_BYTES)
            data = member.unconsumed_tail
            if not piece and not member.eof:
                raise CodecError("gzip data is truncated")
            yield piece
        data = member.unused_data


def _snappy(data: bytes) -> Iterable[bytes]:
    blocks = list(_xerial_blocks(data)) if data.startswith(_XERIAL) else [data]
    _check(sum(map(_claimed_size, blocks)))  # the library allocates what a block claims
    return map(snappy.decompress, blocks)


def _xerial_blocks(data: bytes) -> Iterator[bytes]:
    """Take the framing of Java's library apart: a header, then blocks after their length."""
    stream = io.BytesIO(data)
    stream.seek(_XERIAL_HEADER_BYTES)
    while length := stream.read(4):
        yield stream.read(int.from_bytes(length))


def _claimed_size(block: bytes) -> int:
    """Return what a Snappy block says it decompresses to: a varint."""
    size = 0
    for index, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    return size


def _lz4(data: bytes) -> Iterator[bytes]:
    frame = lz4.frame.LZ4FrameDecompressor()
    yield frame.decompress(data, _PIECE_BYTES)
    while not frame.eof:
        if frame.needs_input:
            raise CodecError("LZ4 data is truncated")
        yield frame.decompress(b"", _PIECE_BYTES)


def _zstd(data: bytes) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def _check(size: int) -> None:
    if size > UNPACKED_LIMIT:
        raise CodecError(f"decompresses to more than {UNPACKED_LIMIT} bytes")


_CODECS: dict[int, Callable[[bytes], Iterable[bytes]]] = {
    0: _none,
    1: _gzip,
    2: _snappy,
    3: _lz4,
    4: _zstd,
}
