"""The one reader of the model topic: which models stand there, which is the newest, their bytes.

Whoever may write the topic can copy signed records to its end and put anything between them. So
these rules hold for every reader. `ModelIndex`, which knows no Kafka, decides them.

- Trust: a record counts only with the signature of a trusted key, for this stream. So a model of
  another stream that shares the key does not count.
- Models of older software name no stream. They count up to the first model that names one.
- Parts: a model is whole once each of its parts was read, whatever stands between or before them.
- A version with two contents: the content that was whole first counts, because the predictors that
  were running serve that one.
- Newest: the highest version is the newest model. An offset proves nothing, since the record there
  may be a copy. But each envelope says where the topic ended when it was published (``after``),
  under its signature, so every later version stands at that offset or behind it. Copies can cost
  a search time; they never change what it finds.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream import kafka_workarounds, reading
from stream.keys import TrustedKeys
from stream.models import Envelope, ModelError, Part, unpack, verify
from stream.service import Stop
from stream.settings import ModelLimits

SHORTEST, LONGEST = 8, 4096
"""Fewest and most offsets of a stretch that a search reads back at a time."""


@dataclass
class StoredModel:
    """A model on the topic, without its bytes.

    Attributes
    ----------
    envelope : Envelope
        What the model is.
    signer : str
        Fingerprint of the key that signed it, ``nobody`` where signatures are not asked for.
    parts : int
        Number of parts that it was split into.
    offsets : dict of int to int
        Part to the first offset at which it stands; only the parts that were read.
    size : int
        Bytes of the pickle in those parts.
    """

    envelope: Envelope
    signer: str
    parts: int
    offsets: dict[int, int] = field(default_factory=dict)
    size: int = 0

    @property
    def version(self) -> int:
        """Version of the model."""
        return self.envelope.version

    @property
    def whole(self) -> bool:
        """Whether each of its parts was read."""
        return len(self.offsets) == self.parts

    @property
    def missing(self) -> str:
        """The first part that was not read, as a log line names it; empty for a whole model."""
        if self.whole:
            return ""
        number = next(n for n in range(1, self.parts + 1) if n not in self.offsets)
        return f"part {number} of {self.parts} is missing"

    def problem(self, max_bytes: int) -> str:
        """Return why its bytes cannot be had, as a log line says it; empty if they can."""
        size = max(self.size, self.parts)  # each part has a byte at least
        if size > max_bytes:
            return f"larger than {max_bytes} bytes (at least {size})"
        return self.missing

    @property
    def after(self) -> int:
        """The least offset at which a later version can stand, 0 where that is not known.

        The envelope of an older publisher does not say it, or may be of another stream. The
        envelope of a model that stands before its own ``after`` speaks of another topic, from which
        this one was copied.
        """
        after = self.envelope.after if self.envelope.stream else None
        return 0 if after is None or after > min(self.offsets.values()) else after


class ModelIndex:
    """Which models stand in the part of the topic that was read, and where.

    Attributes
    ----------
    start, end : int or None
        The offsets from `start` to `end` - 1 were read; ``None`` before the first read.
    bound_from : float
        First offset read at which a model names its stream; infinite before there is one.
    """

    def __init__(self) -> None:
        self.start: int | None = None
        self.end: int | None = None
        self.bound_from = math.inf
        self._versions: dict[int, list[StoredModel]] = {}
        self._names: list[str] | None = None

    def add(self, offset: int, part: Part, signer: str) -> StoredModel | None:
        """Take one record that counts, in any order, any number of times.

        Returns
        -------
        StoredModel or None
            The model, if this part made it whole and it is the one of its version that counts.
        """
        model = self._model(part, signer)
        if part.part in model.offsets:
            model.offsets[part.part] = min(offset, model.offsets[part.part])
            return None
        model.offsets[part.part] = offset
        model.size += len(part.pickle)
        return model if model.whole and self.find(model.version) is model else None

    def find(self, version: int) -> StoredModel | None:
        """Return the model of a version; of several contents, the one that was whole first."""
        found = filter(self._counts, self._versions.get(version, ()))
        return min(found, key=lambda m: (not m.whole, max(m.offsets.values())), default=None)

    def models(self) -> list[StoredModel]:
        """Return the model of each version, by rising version."""
        return [model for v in sorted(self._versions) if (model := self.find(v))]

    def newest(self, wanted: Callable[[StoredModel], bool]) -> StoredModel | None:
        """Return the model with the highest version that `wanted` accepts."""
        return next(filter(wanted, reversed(self.models())), None)

    def torn(self) -> list[StoredModel]:
        """Return the models that began and were not whole when a newer version came."""
        models = self.models()
        return [model for model in models[:-1] if not model.whole and 1 in model.offsets]

    def unread(self, found: StoredModel | None, beginning: int) -> tuple[int, int] | None:
        """Return the offsets to read next, ``None`` when they cannot change what was found.

        Parameters
        ----------
        found : StoredModel or None
            The result of a search so far.
        beginning : int
            First offset of the topic.

        Returns
        -------
        tuple of int, or None
            First offset, and the one after the last. The stretches grow, and never overlap.
        """
        assert self.start is not None
        assert self.end is not None
        limit = max(beginning, found.after if found else 0)
        if self.start <= limit:
            return None
        length = min(LONGEST, max(SHORTEST, 7 * (self.end - self.start)))
        return max(limit, self.start - length), self.start

    def forget(self, version: int) -> None:
        """Forget the models before a version, so that the index does not grow for years.

        A search that needs one of them reads it again.
        """
        assert self.start is not None
        for old in [each for each in self._versions if each < version]:
            for model in self._versions.pop(old):
                self.start = max(self.start, 1 + max(model.offsets.values()))

    def _counts(self, model: StoredModel) -> bool:
        return bool(model.envelope.stream) or max(model.offsets.values()) < self.bound_from

    def _model(self, part: Part, signer: str) -> StoredModel:
        found = self._versions.setdefault(part.envelope.version, [])
        for model in found:
            if (model.parts, model.envelope) == (part.parts, part.envelope):
                return model
        envelope = part.envelope
        if envelope.feature_names == self._names:  # one list for all models: it can be long
            envelope = replace(envelope, feature_names=self._names)
        self._names = envelope.feature_names
        found.append(StoredModel(envelope, signer, part.parts))
        return found[-1]


def put_together(
    model: StoredModel, parts: Iterable[tuple[int, Part]], max_bytes: int
) -> tuple[Envelope, bytes]:
    """Return a model and its pickle, which is not unpickled.

    Parameters
    ----------
    parts : iterable of tuple of int and Part
        Offset and content of its parts, in any order; others are ignored. Nothing is taken from
        it for a model that is too large or not whole, so an iterator need not read them.
    max_bytes : int
        Largest pickle, in bytes, that is put together.

    Raises
    ------
    ModelError
        When a part is missing, the model is larger than allowed, or its digest is wrong.
    """
    if problem := model.problem(max_bytes):
        raise ModelError(problem)
    shares = {offset: part.pickle for offset, part in parts}
    pickle = b"".join(shares.get(offset, b"") for _, offset in sorted(model.offsets.items()))
    if hashlib.sha256(pickle).hexdigest() != model.envelope.sha256:
        raise ModelError("sha256: does not match the pickle")
    return model.envelope, pickle


class ModelTopic:
    """Reads the model topic: the newest model, the bytes of one, what came since.

    Each offset is read once for all calls, besides the bytes of a model that is asked for. So a
    second search reads only what was written since the first, and goes further back where it must.

    Parameters
    ----------
    settings : ModelLimits
        Name the topic, and the largest model whose bytes are returned.
    consumer : KafkaConsumer
        For this object alone.
    stop : Stop
        Ends a read early.
    trusted : Path or None
        Folder of the keys whose signatures count. It is read once for each stretch of records, and
        a record is not checked again later: where a key was added or revoked, begin with a new
        `ModelTopic`. ``None`` accepts records without any signature.
    ignored : callable, optional
        Told of each record that does not count: the record, and why. The reason may quote the
        record.
    """

    def __init__(
        self,
        settings: ModelLimits,
        consumer: KafkaConsumer,
        stop: Stop,
        trusted: Path | None,
        ignored: Callable[[Any, str], object] = lambda *_: None,
    ) -> None:
        self.index = ModelIndex()
        self._settings = settings
        self._consumer = consumer
        self._stop = stop
        self._trusted = trusted
        self._ignored = ignored
        self._place = TopicPartition(settings.model_topic, 0)
        self._following = False
        self._fetched: dict[int, Any] = {}

    @property
    def stream(self) -> str:
        """Id of the stream whose models count."""
        if self._settings.stream_id:
            return self._settings.stream_id
        return f"{kafka_workarounds.cluster_id(self._consumer)}/{self._place.topic}"

    def newest(
        self,
        wanted: Callable[[StoredModel], bool] = lambda _: True,
        seconds: float = math.inf,
    ) -> StoredModel | None:
        """Return the model with the highest version on the topic that `wanted` accepts.

        It reads back from the end, in growing stretches, until nothing newer can stand before.

        Parameters
        ----------
        wanted : callable, optional
            Given a model, which need not be whole; asked several times about the same one.
        seconds : float
            Timeout of the search.

        Raises
        ------
        KafkaError
            When the search takes longer than `seconds`, among others. The next call goes on where
            this one ended.
        Stopped
        """
        return self._search(lambda: self.index.newest(wanted), seconds)

    def get(self, version: int) -> tuple[Envelope, bytes]:
        """Return a whole model and its pickle, which is not unpickled.

        Its records were signed by a trusted key, and the pickle has the digest that they name.

        Raises
        ------
        ModelError
            When the topic has no such model, a part of it is missing, it is larger than
            ``MODEL_MAX_BYTES``, or its digest is wrong.
        KafkaError
        Stopped
        """
        model = self.index.find(version)
        if model is None or not model.whole:
            model = self._search(lambda: self.index.find(version))
        if model is None:
            raise ModelError("not on the topic, or not signed by a trusted key")
        return put_together(model, self._parts(model), self._settings.model_max_bytes)

    def read(self, start: int, count: int) -> None:
        """Read so many records from an offset on, as far as they stand there."""
        beginning, end = reading.bounds(self._consumer, self._place, self._stop)
        self._read(max(start, beginning), min(start + count, end))

    def read_all(self) -> ModelIndex:
        """Read the whole topic from its beginning, and return what stands there."""
        beginning, end = reading.bounds(self._consumer, self._place, self._stop)
        self._read(beginning, end)
        self.index.start, self.index.end = beginning, end
        return self.index

    def poll(self, timeout_ms: int) -> list[StoredModel]:
        """Return the models that records written since the last read or poll have made whole.

        Their bytes are returned by `get`, from memory where they came with this very poll.
        """
        if not self._following:
            if self.index.end is None:
                self.index.start = self.index.end = reading.bounds(self._consumer, self._place)[1]
            self._consumer.assign([self._place])
            self._consumer.seek(self._place, self.index.end)
            self._following = True
        records = self._consumer.poll(timeout_ms=timeout_ms).get(self._place, [])
        self._fetched = {record.offset: record for record in records}
        whole = self._take(records)
        self.index.end = self._consumer.position(self._place)
        return whole

    def _search(
        self, choose: Callable[[], StoredModel | None], seconds: float = math.inf
    ) -> StoredModel | None:
        beginning, end = reading.bounds(self._consumer, self._place, self._stop)
        index, give_up = self.index, time.monotonic() + seconds
        if index.end is None or index.start is None or index.end > end:  # new, or recreated
            index = self.index = ModelIndex()
            index.start = index.end = end
        self._read(index.end, end)
        index.end = end
        while stretch := index.unread(found := choose(), beginning):
            self._read(*stretch)
            index.start = stretch[0]
            if time.monotonic() > give_up:
                raise KafkaError(
                    f"{self._place.topic}: searched down to offset {index.start} for the newest"
                    f" model within {seconds:g} s; the search goes on from there"
                )
        return found

    def _read(self, start: int, end: int) -> None:
        if start < end:
            self._take(self._records(start, end))

    def _parts(self, model: StoredModel) -> Iterator[tuple[int, Part]]:
        offsets = set(model.offsets.values())
        records: Iterable[Any] = self._fetched.values()
        if not offsets <= self._fetched.keys():
            records = self._records(min(offsets), max(offsets) + 1)
        for record in records:
            if record.offset in offsets:
                yield record.offset, unpack(record.value)

    def _records(self, start: int, end: int) -> Iterable[Any]:
        self._following = False
        return reading.read_range(self._consumer, self._place, start, end, self._stop)

    def _take(self, records: Iterable[Any]) -> list[StoredModel]:
        keys = TrustedKeys(self._trusted) if self._trusted else None
        whole = []
        for record in records:
            try:
                part, signer = _part(record, keys)
                if keys is not None:
                    self._check_stream(record.offset, part.envelope.stream)
            except ModelError as error:
                self._ignored(record, str(error))
            else:
                if model := self.index.add(record.offset, part, signer):
                    whole.append(model)
        return whole

    def _check_stream(self, offset: int, stream: str | None) -> None:
        if stream == self.stream:
            self.index.bound_from = min(offset, self.index.bound_from)
        elif stream is not None:
            raise ModelError(f"stream: signed for {stream!r}, not for {self.stream!r} (STREAM_ID)")
        elif offset > self.index.bound_from:
            raise ModelError(
                "stream: missing, though a model before it names one; it is a copy, or an older"
                " modelgenerator published it"
            )


def _part(record: Any, keys: TrustedKeys | None) -> tuple[Part, str]:
    """Return what a record holds, and who signed it.

    Garbage fails to parse, which is a hundred times cheaper than to check its signature.
    """
    part = unpack(record.value)
    return part, "nobody" if keys is None else verify(record.value, record.headers, keys)
