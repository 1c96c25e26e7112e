"""What is fuzzed: each decoder that reads a topic, with records to begin with."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords

from modelgenerator.intake import Intake
from modelgenerator.join import Join
from modelgenerator.models.catalogue import Catalogue
from modelgenerator.models.table import table
from modelgenerator.training.recipes import recipes
from modelgenerator.training.trainer import Trainer
from predictor import outputs
from predictor.accuracy_log import line
from predictor.committed import Commit
from predictor.tally import Tally
from stream import kafka_workarounds, records
from stream.batches import UndecodableBatch
from stream.keys import SigningKey, TrustedKeys
from stream.models import SIGNATURE, ModelError, unpack, verify
from stream.records import Prediction, RecordError
from stream.seal import HEADER, Seal, decode_sealed
from tests.batches import HEADER_BYTES, at, batch, checked, marker, with_attributes

FORMATS = Path(__file__).resolve().parents[1] / "records"
ERROR_LENGTH = 1_000
"""Most characters of an error: it stands in a rejected record, or in a log line."""

MAGIC_AT = MemoryRecords.MAGIC_OFFSET
PLACE = TopicPartition("fuzzed", 0)

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
with TemporaryDirectory() as _folder:
    KEY.share(Path(_folder) / "trusted")
    TRUSTED = TrustedKeys(Path(_folder) / "trusted")
SEAL = Seal(b"s")
SIGNED = (FORMATS / "model.json").read_bytes().strip()
SEALED = (FORMATS / "status-barred.json").read_bytes().strip()

assert kafka_workarounds  # it replaces the client's own decoder of batches


class FoundError(AssertionError):
    """A decoder did what it must not do."""


def decoder(
    decode: Callable[[bytes], Any], encode: Callable[[Any], bytes] | None = None
) -> Callable[[bytes], None]:
    """Return a target: what a decoder reads can be written and read again, and is the same.

    What it does not read, it refuses with an error of its own, of bounded length.
    """

    def target(data: bytes) -> None:
        try:
            found = decode(data)
        except (RecordError, ModelError) as error:
            if len(str(error)) > ERROR_LENGTH:
                raise FoundError(f"an error of {len(str(error))} characters") from None
            return
        if encode and decode(encode(found)) != found:
            raise FoundError(f"{found} is another one when it is read again")

    return target


def tally(data: bytes) -> Tally:
    """Read a tally as a broker hands it over: as text."""
    return Tally.from_metadata(data.decode(errors="replace"))


def numbered(data: bytes) -> bytes:
    """Give batches the offsets that a broker would: no producer decides them.

    They are cut off at a batch of the formats before Kafka 0.11, whose records have offsets of
    their own; a fetch that begins with one is left as it is.
    """
    found, base = b"", 0
    while len(data) > HEADER_BYTES and data[MAGIC_AT] == 2:
        length = 12 + max(0, struct.unpack_from(">i", data, 8)[0])
        found, raw, data = found + at(data[:length], base), data, data[length:]
        base += 1 + max(0, struct.unpack_from(">i", raw, 23)[0])
    return found or data


def batches(data: bytes) -> None:
    """Read a fetch; offsets rise, and one batch that cannot be decoded becomes one record."""
    transaction = SimpleNamespace(producer_id=7, first_offset=0)
    fetched = Fetcher.PartitionRecords(
        0,
        PLACE,
        MemoryRecords(numbered(data)),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=[transaction],
    )
    last, old = -1, not data[MAGIC_AT:].startswith(b"\2")
    try:
        while fetched:
            for record in fetched.take(1_000):
                first = record.first if isinstance(record, UndecodableBatch) else record.offset
                if not old and (first <= last or record.offset < first):
                    raise FoundError(f"offsets {first} to {record.offset} after {last}")
                last = record.offset
    except CorruptRecordError:
        pass  # nobody knows where the next batch begins; the broker checks that before


def checked_batch(data: bytes) -> None:
    """The same, with a sound checksum, so that what is behind it is reached."""
    batches(checked(data) if len(data) > HEADER_BYTES else data)


def headers(data: bytes) -> None:
    """Look for a group's own output; whatever its headers hold, nothing else is raised."""
    name, _, value = data.partition(b"\0")
    record = SimpleNamespace(
        headers=[(name.decode(errors="replace"), value), ("group", b"mine"), ("incarnation", data)],
        topic="predictions",
        value=(FORMATS / "prediction.json").read_bytes(),
    )
    outputs.last_own(records.decode_prediction, "mine", SEAL, [record])


def metadata(data: bytes) -> None:
    """Read the metadata of a committed label offset, and look for the seal of a predictor."""
    text = data.decode(errors="replace")
    Commit(1, Tally(), None).with_labels(5, text)
    if SEAL.holds_in("a place", text):
        raise FoundError("a seal holds for what was not sealed")


def _record(data: bytes) -> SimpleNamespace:
    """Make a record with one header: name, digits of its length, content, then the value."""
    name, _, rest = data.partition(b"\0")
    digits, _, rest = rest.partition(b"\0")
    length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
    header = (name.decode(errors="replace"), rest[:length])
    return SimpleNamespace(topic="statuses", value=rest[length:], headers=[header])


def _with_header(name: str, content: bytes, value: bytes) -> bytes:
    return b"%s\0%d\0%s%s" % (name.encode(), len(content), content, value)


def signature(data: bytes) -> None:
    """Check the signature of a record: it holds for what was signed, and for nothing else."""
    record = _record(data)
    try:
        verify(record.value, record.headers, TRUSTED)
    except ModelError:
        return
    if record.value != SIGNED:
        raise FoundError("a signature holds for what was not signed")


def seal(data: bytes) -> None:
    """Read a status under a seal: it holds for what was sealed, and for nothing else."""
    record = _record(data)
    try:
        decode_sealed(records.decode_status, record, SEAL)
    except RecordError:
        return
    if record.value != SEALED:
        raise FoundError("a seal holds for what was not sealed")


def intake(data: bytes) -> None:
    """Sort a record of data or of labels; whatever it holds, what is said of it is one line."""
    found = Intake(Trainer(recipes(), 200, 100), Join(200), has_model=True)
    found.sort(0, 7, data)
    found.match(0, 7, data)
    _check_line(str(found))


def listing(data: bytes) -> None:
    """List a model of somebody who is not trusted, a status and a prediction, line by line."""
    found = Catalogue()
    found.add_untrusted(SimpleNamespace(value=data, headers=[]), "not trusted")
    with suppress(RecordError):
        found.add_status(records.decode_status(data))
    with suppress(RecordError):
        found.add_prediction(records.decode_prediction(data))
    for shown in table(found.rows(), width=200).split("\n"):
        _check_line(shown)


def log_line(data: bytes) -> None:
    """Fill in a line of the log from a prediction with any timestamp and counts."""
    timestamp, n, correct = struct.unpack_from(">qQQ", data.ljust(24, b"\0"))
    n = 1 + n % 2**63
    prediction = Prediction(1, 1, None, 1, n, correct % n, 1, (0, 0))
    _check_line(line(prediction, timestamp).decode().removesuffix("\n"))


def _check_line(text: str) -> None:
    if len(text) > 2 * ERROR_LENGTH or not text.isprintable():
        raise FoundError(f"no line: {text!r}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "record": decoder(records.decode_record, records.encode_record),
    "label": decoder(records.decode_label, records.encode_label),
    "schema": decoder(records.decode_schema, records.encode_schema),
    "status": decoder(records.decode_status, records.encode_status),
    "prediction": decoder(records.decode_prediction, records.encode_prediction),
    "rejected": decoder(records.decode_rejected, records.encode_rejected),
    "model": decoder(unpack),
    "tally": decoder(tally, lambda found: found.to_metadata().encode()),
    "position": decoder(Commit.from_header, Commit.to_header),
    "metadata": metadata,
    "batches": batches,
    "checked batch": checked_batch,
    "headers": headers,
    "signature": signature,
    "seal": seal,
    "intake": intake,
    "listing": listing,
    "log line": log_line,
}


def seeds(name: str) -> list[bytes]:
    """Return what a target begins with."""
    if name in ("batches", "checked batch"):
        values = [b'{"id":1,"features":[1,2]}', None, b"x" * 300]
        codecs = [batch(values, codec=codec, headers=[("a", b"b")]) for codec in range(5)]
        old = [
            batch([b"a", b"b"], magic=magic, codec=codec) for magic in (0, 1) for codec in (0, 1)
        ]
        aborted = batch(values, producer_id=7) + marker(3, 7, commit=False)
        endless = struct.pack(">qi", 0, -22) + codecs[0][12:]
        torn = [endless, with_attributes(codecs[0], 7) + struct.pack(">qi", 3, -12) + bytes(60)]
        return [*codecs, *old, *torn, aborted, codecs[0] + batch([b"behind"], base=3)]
    if name == "tally":
        return [Tally(1, 2, 3, 4, 5, 6, 7, 8, (9, 8), "a").to_metadata().encode()]
    if name == "headers":
        return [b"group\0mine", b"incarnation\0\xff", b"\0"]
    if name in ("position", "metadata"):
        commit = Commit(100, Tally(1, label_incarnation="a", labels=30), (7, 9))
        return [commit.to_header() if name == "position" else commit.label_metadata().encode()]
    if name == "signature":
        return [_with_header(SIGNATURE, KEY.sign(SIGNED), SIGNED)]
    if name == "seal":
        sealed = SEAL.headers("statuses", SEALED)
        return [_with_header(HEADER, content or b"", SEALED) for _, content in sealed]
    if name == "log line":
        return [struct.pack(">qQQ", *figures) for figures in ((0, 10, 9), (-(2**62), 10, 9))]
    if name == "listing":
        return [path.read_bytes().strip() for path in sorted(FORMATS.glob("*.json"))]
    if name == "intake":
        return [*seeds("record"), b'{"id":1,"features":[1],"lable":1}']
    kind = "data" if name == "record" else name
    return [path.read_bytes().strip() for path in sorted(FORMATS.glob(f"{kind}*.json"))]
