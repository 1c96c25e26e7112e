"""In which order the records and the labels of a partition are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from predictor.consumed import Consumed, ConsumedLabel


def merge(
    records: Iterable[Consumed], labels: Iterable[ConsumedLabel], ended: bool, more: bool = False
) -> Iterator[Consumed]:
    """Yield the records and labels of one partition, the older timestamp first, data at a tie.

    The two topics have no common order. So a label is taken only when a younger record comes next,
    or when no record is left that could be older. A record without a timestamp does not wait for a
    label; a label without one waits until no record is left.

    Parameters
    ----------
    records, labels : iterable
        In the order of their offsets.
    ended : bool
        Whether `records` reach what was the end of the data partition after `labels` were read.
    more : bool
        Whether there are labels that were not read yet. A record does not go before them.

    Yields
    ------
    Consumed or ConsumedLabel
        As many as may be taken now; the others come first next time.
    """
    waiting = iter(labels)
    label = next(waiting, None)
    for record in records:
        while label and label.time is not None and label.time < (record.time or 0):
            yield label
            label = next(waiting, None)
        if more and label is None:
            return
        yield record
    if ended and label:
        yield label
        yield from waiting
