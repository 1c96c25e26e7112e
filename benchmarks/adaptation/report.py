"""The results as tables in Markdown, and a plot of each stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.adaptation.metrics import error_at_end, extra_errors, rolling
from benchmarks.adaptation.runs import Result

NAMES = {
    "kafka": "this project, through Kafka",
    "offline": "the same policy without Kafka",
    "six_windows": "six recipes on windows, without Kafka",
    "moa_arf": "adaptive random forest (MOA, 10 trees)",
    "moa_leveraging": "leveraging bagging (MOA, 10 trees)",
    "river_arf": "adaptive random forest (river, 10 trees)",
    "river_logistic": "online logistic regression (river)",
    "no_change": "no change: the last known label",
    "majority": "majority of the known labels",
}
PLOTTED = {
    "kafka": "#0072b2",
    "moa_arf": "#d55e00",
    "river_logistic": "#009e73",
    "no_change": "#999999",
}
ROLLING = 1_000

Key = tuple[str, int]
"""Stream and delay."""

Found = dict[Key, dict[str, list[Result]]]


class Best:
    """The lowest share of errors of any learner in the last third of each concept."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._errors: dict[tuple[str, int, int], float] = {}
        for result in results:
            ends = [*result.starts, len(result.right)]
            for start, end in pairwise(ends):
                error = error_at_end(result.right, start, end)
                key = (result.run.stream, result.run.seed, start)
                if error == error:  # not NaN
                    self._errors[key] = min(error, self._errors.get(key, 1.0))

    def extra_errors(self, result: Result, revisits: bool) -> float | None:
        """Return the mean over the drifts, or those to a former concept; ``None`` for none."""
        found, former = [], set()
        for number, (start, name) in enumerate(result.figures["concepts"]):
            best = self._errors.get((result.run.stream, result.run.seed, start))
            if number and best is not None and (name in former or not revisits):
                found.append(extra_errors(result.right, start, best))
            former.add(name)
        counted = [each for each in found if each is not None]
        return mean(counted) if counted else None


def tables(results: Sequence[Result]) -> str:
    """Return all tables."""
    found: Found = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.run.stream, result.run.delay][result.run.learner].append(result)
    at_once = {key: runs for key, runs in found.items() if not key[1]}
    late = {key: runs for key, runs in found.items() if key[1]}
    drifting = {
        k: v for k, v in at_once.items() if any(r.starts[1:] for r in next(iter(v.values())))
    }
    best = Best(result for result in results if not result.run.delay)
    sections = {
        "Accuracy in percent, mean over the seeds; CPU seconds for 1,000 records, mean over the"
        " streams:": _by_learner(at_once, _accuracy, cpu=True),
        "Accuracy through Kafka less that without, in points:": _difference(at_once),
        "Extra errors in the 5,000 records after a drift, against the best learner's last third of"
        " that concept, mean over drifts and seeds:": _by_learner(
            drifting, partial(_extra, best, False)
        ),
        "The same for drifts to a concept that was there before:": _by_learner(
            {key: runs for key, runs in drifting.items() if key[0] == "recurring"},
            partial(_extra, best, True),
        ),
        "Through Kafka, mean over the seeds:": _through_kafka(at_once),
        "Accuracy in percent where labels come later:": _by_learner(late, _accuracy),
    }
    return "\n".join(f"{title}\n\n{table}\n" for title, table in sections.items() if table)


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the rolling accuracy of one stream and seed, with drifts and swaps."""
    import matplotlib as mpl  # a requirement of the benchmark alone

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    by_learner = {result.run.learner: result for result in results}
    for learner, color in PLOTTED.items():
        if learner in by_learner:
            line = rolling(by_learner[learner].right, ROLLING)
            line[:200] = np.nan  # a few records say nothing
            axes.plot(100 * line, color=color, linewidth=1.2, label=NAMES[learner])
    low, _ = axes.get_ylim()
    for start in results[0].starts[1:]:
        axes.axvline(start, color="#555555", linestyle="--", linewidth=0.8)
    if "kafka" in by_learner:
        swaps = [record for record, *_ in by_learner["kafka"].figures["swaps"]]
        label = f"swaps ({len(swaps)})"
        axes.plot(swaps, [low] * len(swaps), "|", color="#0072b2", markersize=9, label=label)
    run = results[0].run
    axes.set(
        title=f"{run.stream}, seed {run.seed}: accuracy of the latest {ROLLING:,} records",
        xlabel="record (dashed: a drift)",
        ylabel="%",
    )
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _accuracy(runs: Sequence[Result]) -> str:
    return f"{100 * mean(each.figures['accuracy'] for each in runs):.2f}"


def _extra(best: Best, revisits: bool, runs: Sequence[Result]) -> str:
    found = [best.extra_errors(each, revisits) for each in runs]
    counted = [each for each in found if each is not None]
    return f"{mean(counted):.0f}" if counted else "–"


def _by_learner(found: Found, cell: Callable[[Sequence[Result]], str], cpu: bool = False) -> str:
    """Return a row for each learner and a column for each stream."""
    rows = []
    for learner, name in NAMES.items():
        if any(learner in runs for runs in found.values()):
            cells = [cell(runs[learner]) if learner in runs else "–" for runs in found.values()]
            if cpu:
                used = [sum(r.figures["cpu"].values()) for v in found.values() for r in v[learner]]
                cells.append(f"{mean(used):.3f}")
            rows.append([name, *cells])
    columns = [f"{stream}, {delay:,} late" if delay else stream for stream, delay in found]
    return _markdown(["", *columns, *["CPU s"] * cpu], rows)


def _difference(found: Found) -> str:
    """Say by how much the accuracy through Kafka differs from that without, on the same seeds."""
    parts = []
    for (stream, _), runs in found.items():
        without = {each.run.seed: each.figures["accuracy"] for each in runs["offline"]}
        pairs = [
            100 * (each.figures["accuracy"] - without[each.run.seed])
            for each in runs["kafka"]
            if each.run.seed in without
        ]
        if pairs:
            parts.append(f"{stream} {mean(pairs):+.2f} ({len(pairs)} seeds)")
    return ", ".join(parts)


def _through_kafka(found: Found) -> str:
    def figure(name: str, digits: int, times: int = 1) -> Callable[[Result], Any]:
        return lambda result: (
            round(times * result.figures[name], digits) if name in result.figures else None
        )

    columns: dict[str, tuple[Callable[[Result], Any], int]] = {
        "seeds": (lambda result: result.run.seed, 0),
        "lateness, records": (figure("lateness", 0), 0),
        "95 % of them": (figure("lateness_95", 0), 0),
        "95 % predicted within s": (figure("seconds_95", 2), 2),
        "swaps": (lambda result: len(result.figures["swaps"]), 0),
        "published": (figure("published", 0), 0),
        "CPU s modelgenerator": (lambda result: result.figures["cpu"]["modelgenerator"], 3),
        "CPU s predictor": (lambda result: result.figures["cpu"]["predictor"], 3),
        "Brier": (figure("brier", 4), 4),
        "ECE %": (figure("ece", 2, 100), 2),
        "ECE % away from drifts": (figure("ece_settled", 2, 100), 2),
        "first counted record": (figure("cold_start", 0), 0),
        "not counted": (figure("not_counted", 0), 0),
    }
    rows = []
    for (stream, _), runs in found.items():
        if given := runs.get("kafka"):
            row = [stream]
            for name, (take, digits) in columns.items():
                values = [value for each in given if (value := take(each)) is not None]
                number = len(values) if name == "seeds" else mean(values) if values else None
                row.append("–" if number is None else f"{number:,.{digits}f}")
            rows.append(row)
    return _markdown(["", *columns], rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
