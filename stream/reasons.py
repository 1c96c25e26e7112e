"""Counts why records were rejected, so that a log line can name the commonest reason."""

from __future__ import annotations

import re
from collections import Counter

KINDS = 100
"""Different kinds of reasons that are counted; records with others count in the total only."""


class Reasons:
    """Counts reasons by kind: those that differ only in the values that they quote are one kind.

    Examples
    --------
    >>> reasons = Reasons()
    >>> reasons.add("label: expected 0 or 1, got 2", "partition 0 offset 7")
    >>> reasons.add("label: expected 0 or 1, got 3", "partition 0 offset 9")
    >>> str(reasons)
    '2, most often label: expected 0 or 1, got 2 (2 of them, first at partition 0 offset 7)'
    """

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}

    def add(self, reason: str, place: str) -> None:
        """Count a reason, as a `RecordError` says it, for the record at a place."""
        self.total += 1
        kind = re.sub(r"\d+", "0", reason.partition(", got ")[0])
        if kind in self._first or len(self._first) < KINDS:
            self._counts[kind] += 1
            self._first.setdefault(kind, (reason, place))

    def __add__(self, other: Reasons) -> Reasons:
        both = Reasons()
        both.total = self.total + other.total
        both._counts = self._counts + other._counts
        both._first = other._first | self._first
        return both

    def __str__(self) -> str:
        if not self.total:
            return "0"
        kind, count = self._counts.most_common(1)[0]
        reason, place = self._first[kind]
        return f"{self.total:,}, most often {reason} ({count:,} of them, first at {place})"
