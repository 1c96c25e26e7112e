"""Where sending resumes, given the ends of the data topic's partitions.

Record `id` goes to partition ``id % partitions``. So each partition has its ids in rising order,
and what a killed run did not send is missing at the ends of some partitions only. When the topic
gets more partitions, ids above those that were sent before go to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from stream.quoting import shown
from stream.records import Schema, Type, normal


class Tail(NamedTuple):
    """The end of a data partition.

    Attributes
    ----------
    end : int
        Offset after the last record; 0 if there never was one.
    id : int or None
        The newest id of its own; ``None`` if there is none.
    width : int or None
        Number of features of the newest record; ``None`` if there is none.
    id_before : int or None
        The newest but one.
    """

    end: int
    id: int | None = None
    width: int | None = None
    id_before: int | None = None


def own_ids(ids: Iterable[int], partitions: int, lone_limit: int) -> list[int]:
    """Return the ids of a partition that the datagenerator wrote, ascending.

    Anybody may write ids, but its own run on: each is the one before it plus the number of
    partitions, or less than twice that where the topic grew. So the longest run counts.

    Parameters
    ----------
    ids : iterable of int
        Of the newest records of the partition.
    lone_limit : int
        An id with none beside it counts only below this.

    Examples
    --------
    >>> own_ids([3, 6, 1_000_000, 9, -1], partitions=3, lone_limit=20)
    [3, 6, 9]
    """
    runs: list[list[int]] = []
    for id in sorted({id for id in ids if id >= 0}):
        if runs and id - runs[-1][-1] < 2 * partitions:
            runs[-1].append(id)
        else:
            runs.append([id])
    longest = max(runs, key=len, default=[])
    return longest if len(longest) > 1 or longest < [lone_limit] else []


def next_ids(tails: Sequence[Tail], newest_misplaced: Callable[[], int] = lambda: -1) -> list[int]:
    """Return the id that each partition takes next; the run starts at the lowest of them.

    A partition resumes after its newest id, or begins with the lowest id that is its own. If the
    topic has grown, only ids count that were sent since: those above all that are on another
    partition than they would be now. If a run was killed before it grew, fewer numbers than there
    are partitions are returned: what it left out goes to the partitions that there were.

    If another producer wrote the records, all partitions resume above the highest id.

    Parameters
    ----------
    tails : sequence of Tail
        One for each partition, in order.
    newest_misplaced : callable
        Returns the highest id that is not on partition ``id % len(tails)``, -1 if there is none.
        It is asked only where the topic has grown, because the answer may have to be searched for.

    Examples
    --------
    >>> next_ids([Tail(end=2, id=3), Tail(end=1, id=1), Tail(end=0)])
    [6, 4, 2]
    >>> next_ids([Tail(end=4, id=3), Tail(end=0)])
    [4, 5]
    >>> next_ids([Tail(end=3, id=4), Tail(end=1, id=1), Tail(end=0)])
    [6, 3]
    """
    count = len(tails)
    in_place = [tail.id is not None and tail.id % count == p for p, tail in enumerate(tails)]
    if all(in_place):
        return _following(tails)
    # Killed: on the partitions that it knew, each id up to the newest of its partition is there.
    for before in range(count, 0, -1):
        if _has_every_id(tails[:before]) and not any(tail.end for tail in tails[before:]):
            following = _following(tails[:before])
            caught_up = max(following) - min(following) < before
            return _above(min(following) - 1, count) if caught_up else following
    if any(tail.end and tail.id is None for tail in tails):  # another producer's
        return _above(max((tail.id for tail in tails if tail.id is not None), default=-1), count)
    sent_before = _above(newest_misplaced(), count)
    return [
        tail.id + count if own and tail.id is not None and tail.id >= first else first
        for first, tail, own in zip(sent_before, tails, in_place, strict=True)
    ]


def _has_every_id(tails: Sequence[Tail]) -> bool:
    """Tell whether no partition lacks an id before its newest; an id tells its offset then."""
    count = len(tails)
    return all(
        tail.id == (tail.end - 1) * count + p and tail.id_before in (None, tail.id - count)
        for p, tail in enumerate(tails)
        if tail.end
    )


def _following(tails: Sequence[Tail]) -> list[int]:
    """Return the id after the newest of each partition, its own number where there is none."""
    return [p if tail.id is None else tail.id + len(tails) for p, tail in enumerate(tails)]


def _above(last: int, count: int) -> list[int]:
    """Return the lowest id above `last` that goes to each partition."""
    return [last + 1 + (p - last - 1) % count for p in range(count)]


def mismatch(
    data_topic: str, schema_topic: str, schema: Schema, found: Schema | None, tails: Sequence[Tail]
) -> str | None:
    """Return one line that says why a source may not send to the data topic, or ``None``.

    Parameters
    ----------
    schema : Schema
        The source's.
    found : Schema or None
        The one on the schema topic; where there is none, the records tell the number of features.
    tails : sequence of Tail
        One for each partition, in order.
    """
    start_over = "to start over, delete the topics or choose another DATA_TOPIC"
    if found is not None:
        # The version before wrote no `negative`.
        if _meant(found) == _meant(schema) and found.negative in (None, schema.negative):
            return None
        return (
            f"{schema_topic} has {_say(found, schema)}; the source has {_say(schema, found)};"
            f" {start_over}"
        )
    for partition, tail in enumerate(tails):
        if tail.width not in (None, len(schema.feature_names)):
            return (
                f"{data_topic}, partition {partition} has records of {tail.width} features;"
                f" the source has {len(schema.feature_names)}; {start_over}"
            )
    return None


def _meant(schema: Schema) -> tuple[list[str], list[Type], str, str]:
    """Return what records have in common, whichever version wrote the schema."""
    types = schema.types or ["number"] * len(schema.feature_names)
    return schema.feature_names, types, normal(schema.label), normal(schema.positive)


def _say(schema: Schema, other: Schema) -> str:
    """Return a schema in words, with the first features that the other does not have."""
    typed, others = _typed(schema), {*_typed(other)}
    named = [feature for feature in typed if feature not in others] or typed
    negative = f", negative {shown(schema.negative)}" if schema.negative is not None else ""
    return (
        f"{len(typed)} features ({', '.join(named[:3])}{', …' * (len(typed) > 3)}), label"
        f" {shown(schema.label)}, positive {shown(schema.positive)}{negative}"
    )


def _typed(schema: Schema) -> list[str]:
    names, types, *_ = _meant(schema)
    return [
        shown(name) + f" {type}" * (type != "number")
        for name, type in zip(names, types, strict=True)
    ]
