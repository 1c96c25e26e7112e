"""In which order the records and the labels of a partition are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from predictor.consumed import Consumed, ConsumedLabel


def merge(
    records: Sequence[Consumed], labels: Sequence[ConsumedLabel], ended: bool
) -> Iterator[Consumed]:
    """Yield the records and labels of one partition, the older timestamp first, data at a tie.

    The two topics have no common order. So a label is taken only when a younger record comes next,
    or when no record is left that could be older. A record without a timestamp does not wait for a
    label; a label without one waits until no record is left.

    Parameters
    ----------
    records, labels : sequence
        In the order of their offsets.
    ended : bool
        Whether `records` reach what was the end of the data partition after `labels` were read.

    Yields
    ------
    Consumed or ConsumedLabel
        All records, and as many of the labels as may be taken now; the others come first next time.
    """
    waiting = iter(labels)
    label = next(waiting, None)
    for record in records:
        while label and label.time is not None and label.time < (record.time or 0):
            yield label
            label = next(waiting, None)
        yield record
    if ended and label:
        yield label
        yield from waiting
