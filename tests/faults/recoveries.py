"""How long it took to recover from each fault."""

from __future__ import annotations

from statistics import median


class Recoveries:
    """Collects recovery times by fault.

    Attributes
    ----------
    seconds : dict of str to list of float
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, fault: str, *seconds: float) -> None:
        """Add how long it took, each time."""
        self.seconds.setdefault(fault, []).extend(seconds)

    def table(self) -> list[str]:
        """Return the lines of a Markdown table, none if nothing was measured."""
        rows = [
            f"| {fault} | {len(found)} | {median(found):.1f} s | {max(found):.1f} s |"
            for fault, found in sorted(self.seconds.items())
        ]
        head = ["| fault | times | median | worst |", "| --- | --- | --- | --- |"]
        return [*head, *rows] if rows else []
