"""Where sending resumes, given the ends of the data topic's partitions.

Record `id` goes to partition ``id % partitions``. So each partition has its ids in rising order,
and what a killed run did not send is missing at the ends of some partitions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stream.records import Schema


class Tail(NamedTuple):
    """The end of a data partition.

    Attributes
    ----------
    end : int
        Offset after the last record; 0 if there never was one.
    id : int or None
        The newest integer id; ``None`` if there is none.
    width : int or None
        Number of features of the newest record; ``None`` if there is none.
    """

    end: int
    id: int | None = None
    width: int | None = None


def next_ids(tails: Sequence[Tail]) -> list[int]:
    """Return the id that each partition takes next; the run starts at the lowest of them.

    A partition with records resumes after its newest id. One that never had a record starts with
    its own number, if the others have every id from 0 on (then an id tells its offset). If the
    ids are not placed this way (the number of partitions has changed, or another producer wrote
    the records), all partitions resume above the highest id.

    Parameters
    ----------
    tails : sequence of Tail
        One for each partition, in order.

    Examples
    --------
    >>> next_ids([Tail(end=2, id=3), Tail(end=1, id=1), Tail(end=0)])
    [6, 4, 2]
    >>> next_ids([Tail(end=4, id=3), Tail(end=0)])
    [4, 5]
    """
    count = len(tails)
    used = [(partition, tail) for partition, tail in enumerate(tails) if tail.end]
    in_place = all(tail.id is not None and tail.id % count == p for p, tail in used)
    from_zero = all(tail.id == (tail.end - 1) * count + p for p, tail in used)
    if from_zero or (in_place and len(used) == count):
        return [p if tail.id is None else tail.id + count for p, tail in enumerate(tails)]
    first = 1 + max((tail.id for tail in tails if tail.id is not None), default=-1)
    return [first + (partition - first) % count for partition in range(count)]


def mismatch(
    data_topic: str, schema_topic: str, schema: Schema, found: Schema | None, tails: Sequence[Tail]
) -> str | None:
    """Return one line that says why a source may not send to the data topic, or ``None``.

    Parameters
    ----------
    schema : Schema
        The source's.
    found : Schema or None
        The one on the schema topic.
    tails : sequence of Tail
        One for each partition, in order.
    """
    start_over = "to start over, delete the topics or choose another DATA_TOPIC"
    if found is not None and found != schema:
        return f"{schema_topic} has {_say(found)}; the source has {_say(schema)}; {start_over}"
    for partition, tail in enumerate(tails):
        if tail.width not in (None, len(schema.feature_names)):
            return (
                f"{data_topic}, partition {partition} has records of {tail.width} features;"
                f" the source has {len(schema.feature_names)}; {start_over}"
            )
    return None


def _say(schema: Schema) -> str:
    names = ", ".join(schema.feature_names[:3]) + (", …" if len(schema.feature_names) > 3 else "")
    return (
        f"{len(schema.feature_names)} features ({names}), label {schema.label!r},"
        f" positive {schema.positive!r}"
    )
