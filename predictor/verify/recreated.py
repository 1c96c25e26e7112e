"""Since when outputs are of the topics as they are now, not of ones that were deleted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from stream.records import RecordError, decode_prediction


def recreated_at(predictions: Iterable[tuple[int, int, bytes | None]], first_data_ms: float) -> int:
    """Find where the predictions of the data topic as it is now begin.

    When a data topic is deleted and recreated, its offsets start again at 0, and so do the sources.
    Sources also go back when a record is predicted twice. The difference: after a recreation, the
    predictions before are older than the first record there is now.

    Parameters
    ----------
    predictions : iterable of (int, int, bytes or None)
        Offset, time in ms and value.
    first_data_ms : float
        Time of the first record of the data topic, in ms.

    Returns
    -------
    int
        Offset of the first prediction since the topic was last recreated, 0 if it never was.
    """
    since, last = 0, -1
    for offset, time_ms, value in predictions:
        try:
            prediction = decode_prediction(value)
        except RecordError:
            break  # the check finds it
        if prediction.outcome:
            continue
        source = prediction.source[1]
        if source <= last:
            since = offset
        if time_ms >= first_data_ms:
            break
        last = source
    return since


def answers_since(start: int, end: int, is_current: Callable[[int], bool]) -> int:
    """Find where the answers to the labels of the label topic as it is now begin.

    Parameters
    ----------
    start, end : int
        Offsets of a topic of answers.
    is_current : callable
        Tells whether the first unit that ends at an offset or after it answers the label topic as
        it is now; so do all units after such a one.
    """
    if start >= end or is_current(start):
        return start
    return start + bisect_left(range(start, end), True, key=is_current)
