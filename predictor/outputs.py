"""The outputs of a unit as the records of their topics, and how a group's own are found again.

The last output of a unit on each partition of each topic carries headers: whose output it is, the
id of the data topic that it came from, and where the partition stands after the unit. A seal over
them shows that a predictor wrote it. Each prediction has a short seal of its own, because
predictions that wait for their labels are read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from predictor.committed import Commit
from predictor.result import Result
from predictor.settings import PredictorSettings
from stream.records import Prediction, RecordError, Rejected, encode_prediction, encode_rejected
from stream.seal import SHORT_HEADER, Seal, ShortSeal

GROUP = "group"
"""Header: whose output it is; several groups may share the topic of rejected records."""

INCARNATION = "incarnation"
"""Header: the id of the data topic."""

POSITION = "position"
"""Header: where the partition stands after the unit, as `Commit` writes it."""

Headers = list[tuple[str, bytes | None]]


class Message(NamedTuple):
    """A record to be produced, in the order of the parameters of ``KafkaProducer.send``."""

    topic: str
    value: bytes
    key: bytes | None
    headers: Headers | None
    partition: int


class Output(NamedTuple):
    """An output that was read back, and the id of the data topic that it came from.

    Attributes
    ----------
    commit : Commit or None
        Where the partition stood after its unit; ``None`` from the version before.
    """

    content: Prediction | Rejected
    incarnation: str | None
    commit: Commit | None = None

    @property
    def offset(self) -> int:
        """The last offset of the data topic that was answered."""
        if self.commit:
            return self.commit.offset - 1
        content = self.content
        return content.last if isinstance(content, Rejected) else content.source[1]


def messages(
    result: Result,
    commits: Mapping[int, Commit],
    settings: PredictorSettings,
    incarnation: str | None,
    seal: Seal | None,
) -> list[Message]:
    """Return the records to be produced for a result.

    Parameters
    ----------
    commits : mapping of int to Commit
        What is committed with it for each partition.
    incarnation : str or None
        Id of the data topic.
    """
    topic = settings.prediction_topic
    short = short_seal(seal, settings, incarnation)
    found = []
    for prediction, key in result.predictions:
        value = encode_prediction(prediction)
        headers: Headers | None = [(SHORT_HEADER, short.of(value))] if short else None
        found.append(Message(topic, value, key, headers, prediction.source[0]))
    for topic, rejected in (
        (settings.rejected_topic, result.rejected),
        (settings.label_rejected_topic, result.rejected_labels),
    ):
        found += [Message(topic, encode_rejected(r), None, None, r.source[0]) for r in rejected]
    last = {(message.topic, message.partition): i for i, message in enumerate(found)}
    for i in last.values():
        message = found[i]
        headers = [*(message.headers or ()), (GROUP, settings.group_id.encode())]
        if incarnation:
            headers.append((INCARNATION, incarnation.encode()))
        headers.append((POSITION, commits[message.partition].to_header()))
        sealed = seal.headers(message.topic, message.value, headers) if seal else headers
        found[i] = message._replace(headers=sealed)
    return found


def short_seal(
    seal: Seal | None, settings: PredictorSettings, incarnation: str | None
) -> ShortSeal | None:
    """Return what seals each prediction of the data topic with this id."""
    context = (settings.prediction_topic, settings.group_id, incarnation or "")
    return seal.short(*context) if seal else None


def last_own(
    decode: Callable[[bytes | None], Prediction | Rejected],
    group: str,
    seal: Seal | None,
    records: Iterable[Any],
) -> Output | None:
    """Return the last of a group's own outputs among records of one partition.

    A record without the header of the group belongs to the same unit as the next one that has it.

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
            id, position = headers.get(INCARNATION), headers.get(POSITION)
            of_open_unit = Output(
                decode(record.value),
                id.decode(errors="replace") if id else None,
                Commit.from_header(position) if position else None,
            )
        if GROUP in headers:
            ours = headers[GROUP] == group.encode()
            if ours and (not seal or seal.holds(record.topic, record.value, record.headers)):
                own = of_open_unit or own
            of_open_unit = None
    return own if seal else of_open_unit or own
