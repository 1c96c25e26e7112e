"""The outputs of a unit as the records of their topics, and how a group's own are found again.

The last output of a unit on each partition of each topic carries two headers: whose output it is,
and the id of the data topic that it came from. A seal over both shows that a predictor wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from predictor.result import Result
from predictor.settings import PredictorSettings
from stream.records import Prediction, RecordError, Rejected, encode_prediction, encode_rejected
from stream.seal import Seal

T = TypeVar("T", Prediction, Rejected)

GROUP = "group"
"""Header: whose output it is; several groups may share the topic of rejected records."""

INCARNATION = "incarnation"
"""Header: the id of the data topic."""

Headers = list[tuple[str, bytes | None]]


class Message(NamedTuple):
    """A record to be produced, in the order of the parameters of ``KafkaProducer.send``."""

    topic: str
    value: bytes
    key: bytes | None
    headers: Headers | None
    partition: int


class Output(NamedTuple, Generic[T]):
    """An output that was read back, and the id of the data topic that it came from."""

    content: T
    incarnation: str | None

    @property
    def offset(self) -> int:
        """The last offset of the data topic that this answers."""
        content = self.content
        return content.last if isinstance(content, Rejected) else content.source[1]


def messages(
    result: Result, settings: PredictorSettings, incarnation: str | None, seal: Seal | None
) -> list[Message]:
    """Return the records to be produced for a result of the data topic with this id."""
    found = [
        Message(settings.prediction_topic, encode_prediction(p), key, None, p.source[0])
        for p, key in result.predictions
    ] + [
        Message(settings.rejected_topic, encode_rejected(r), None, None, r.source[0])
        for r in result.rejected
    ]
    headers: Headers = [(GROUP, settings.group_id.encode())]
    if incarnation:
        headers.append((INCARNATION, incarnation.encode()))
    last = {(message.topic, message.partition): i for i, message in enumerate(found)}
    for i in last.values():
        topic, value = found[i].topic, found[i].value
        sealed = seal.headers(topic, value, headers) if seal else headers
        found[i] = found[i]._replace(headers=sealed)
    return found


def last_own(
    decode: Callable[[bytes | None], T], group: str, seal: Seal | None, records: Iterable[Any]
) -> Output[T] | None:
    """Return the last of a group's own outputs among records of one partition.

    A record without headers belongs to the same unit as the next one that has them.

    Parameters
    ----------
    decode : callable
        Reads the value of a record; raises `RecordError`.
    seal : Seal or None
        What shows that an output is the group's own; ``None`` to go by the header alone.
    records : iterable of ConsumerRecord
        In the order of the partition.
    """
    own = of_open_unit = None
    for record in records:
        headers = dict(record.headers)
        with suppress(RecordError):  # not written by a predictor
            id = headers.get(INCARNATION)
            of_open_unit = Output(decode(record.value), id.decode(errors="replace") if id else None)
        if GROUP in headers:
            ours = headers[GROUP] == group.encode()
            if ours and (not seal or seal.holds(record.topic, record.value, record.headers)):
                own = of_open_unit or own
            of_open_unit = None
    return own if seal else of_open_unit or own
