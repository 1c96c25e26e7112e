"""What a run has found: the first violation, the counts, and how they are printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from stream.open_transactions import OpenTransaction

INVARIANTS = {
    "I1": "records predicted or rejected exactly once",
    "I2": "predictions whose counts follow from the one before",
    "I3": "committed tallies equal to the last published counts",
    "I4": "log lines equal to their predictions",
    "I5": "predictions whose model version did not go back, except from a barred one",
    "I6": "predictions recomputed with the same result",
    "I7": "predictions counted unless their model was trained on the record",
    "I8": "labels that came later met by an outcome, rejected or waiting, exactly once",
    "I9": "outcomes equal to the prediction before them, with the right label and delay",
}
"""What each count of `Findings.checked` counts."""


@dataclass(eq=False)
class Violation(Exception):
    """An invariant does not hold.

    Attributes
    ----------
    invariant : str
        ``I1`` to ``I9``.
    topic : str
        The topic, or the log file.
    partition, offset : int
        Where on the topic. For a log file: the partition that the line names, and its number.
    expected, found : str
        What should be there, and what is.
    """

    invariant: str
    topic: str
    partition: int
    offset: int
    expected: str
    found: str

    def __str__(self) -> str:
        place = "line" if self.invariant == "I4" else "offset"
        return (
            f"{self.invariant} {self.topic} partition {self.partition} {place} {self.offset}:"
            f" expected {self.expected}, found {self.found}"
        )


@dataclass
class Findings:
    """What was checked, over all partitions.

    Attributes
    ----------
    checked : Counter
        Invariant to the number of records (I3: tallies, I4: lines) for which it holds.
    not_checked : Counter
        Reason to the number of records that could not be checked because of it.
    predictions, rejected, pending : int
        Records predicted, rejected, and not yet predicted although they are committed.
    outcomes : Counter
        Kind of outcome to the number of them.
    rejected_labels, held, pending_labels : int
        Labels rejected, waiting for their records, and not yet read.
    open : list of OpenTransaction
        Transactions that hold back records of the data topic or of the label topic.
    n, correct : int
        Sum of the last counts of each partition.
    models : set of int
        Versions that predicted.
    swapped_to : set of int
        Versions that replaced another one.
    """

    checked: Counter[str] = field(default_factory=Counter)
    not_checked: Counter[str] = field(default_factory=Counter)
    predictions: int = 0
    rejected: int = 0
    pending: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected_labels: int = 0
    held: int = 0
    pending_labels: int = 0
    open: list[OpenTransaction] = field(default_factory=list)
    n: int = 0
    correct: int = 0
    models: set[int] = field(default_factory=set)
    swapped_to: set[int] = field(default_factory=set)


def report(findings: Findings, violation: Violation | None) -> dict[str, Any]:
    """Return what was checked and found as one JSON object."""
    return {
        "verified": violation is None,
        "predictions": findings.predictions,
        "rejected": findings.rejected,
        "pending": findings.pending,
        "outcomes": {kind: findings.outcomes[kind] for kind in ("labelled", "revised", "assumed")},
        "rejected_labels": findings.rejected_labels,
        "held_labels": findings.held,
        "pending_labels": findings.pending_labels,
        "open_transactions": [transaction._asdict() for transaction in findings.open],
        "n": findings.n,
        "correct": findings.correct,
        "accuracy": findings.correct / findings.n if findings.n else None,
        "models": sorted(findings.models),
        "swaps": len(findings.swapped_to),
        "checked": {name: findings.checked[name] for name in INVARIANTS},
        "not_checked": dict(findings.not_checked),
        "violations": [asdict(violation)] if violation else [],
    }


def table(findings: Findings) -> str:
    """Return a line for each invariant, then what was not checked and why."""
    lines = [f"{name} {findings.checked[name]:>12,} {what}" for name, what in INVARIANTS.items()]
    lines += [f"not checked {n:,}: {why}" for why, n in sorted(findings.not_checked.items())]
    if findings.pending:
        lines.append(f"not yet predicted: {findings.pending:,} records")
    if findings.pending_labels:
        lines.append(f"not yet read: {findings.pending_labels:,} labels")
    lines += map(str, findings.open)
    return "\n".join(lines)


def summary(found: dict[str, Any]) -> str:
    """Return the last line of a run in which every invariant holds."""
    accuracy = "none" if found["accuracy"] is None else f"{found['accuracy']:.6f}"
    outcomes = [f" {number} {kind}," for kind, number in found["outcomes"].items() if number]
    return (
        f"verified: {found['predictions']} predictions, {found['rejected']} rejected,"
        f"{''.join(outcomes)} accuracy {accuracy},"
        f" {len(found['models'])} models, {found['swaps']} swaps"
    )
