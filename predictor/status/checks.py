"""What `--check` and `--since` are given on the command line, and whether a check holds."""

from __future__ import annotations

import argparse
import math
import operator
import re
from collections.abc import Mapping
from typing import NamedTuple

from quality.scores import METRICS
from stream.quoting import shown

RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LONGEST_SECONDS = 366 * UNITS["d"]

CHECKED = (
    "n", *METRICS, "coverage", "label_delay_p50", "label_delay_p95", "predictions", "rejected",
    "predictions_per_second", "rejected_per_second", "lag",
)  # fmt: skip
"""What can be checked: numbers of the window, and the lag."""


class Check(NamedTuple):
    """A metric, a relation and a limit, as ``accuracy>=0.8``."""

    metric: str
    relation: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.limit:g}"

    def holds(self, values: Mapping[str, float | None]) -> bool:
        """Tell whether it holds; where the metric is not known, it does not."""
        value = values[self.metric]
        return value is not None and bool(RELATIONS[self.relation](value, self.limit))

    def line(self, values: Mapping[str, float | None]) -> str:
        """Say whether it holds, and what the metric is."""
        value = values[self.metric]
        found = "not known, nothing in the window says it" if value is None else f"{value:.6g}"
        verdict = "holds" if self.holds(values) else "does not hold"
        return f"{self} {verdict}: {self.metric} is {found}"


def check(text: str) -> Check:
    """Read a check as it is given on the command line."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>]=?)\s*(\S+)\s*", text)
    if not match:
        raise argparse.ArgumentTypeError(
            "expected a metric, one of >=, <=, > and <, and a number, like accuracy>=0.8,"
            f" got {shown(text)}"
        )
    metric, relation, limit = match.groups()
    if metric not in CHECKED:
        raise argparse.ArgumentTypeError(
            f"no metric is called {shown(metric)}; allowed are {', '.join(CHECKED)}"
        )
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{metric}: expected a number, got {shown(limit)}")
    return Check(metric, relation, number)


def seconds(text: str) -> int:
    """Read a time as it is given on the command line, such as ``1h``."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    found = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < found <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"expected a time like 30s, 10m, 1h or 7d, at most 366d, got {shown(text)}"
        )
    return found
