"""What a delay of the labels does to adaptation: the accuracy after each drift, as a plot.

The trainer's own decisions, on the stream `sea` with a drift every 5,000 records: the newest model
predicts each record; its label reaches the trainer so many records later. There is no Kafka in it,
so the result is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path

import numpy as np

from datagenerator.settings import Settings
from datagenerator.sources import open_source
from modelgenerator.training.recipes import recipes
from modelgenerator.training.trainer import Trainer
from modelgenerator.window import Labelled
from stream.arguments import argument_parser

RECORDS = 25_000
DRIFT_EVERY = 5_000
DELAYS = {0: "#0072b2", 1_000: "#009e73", 3_000: "#d55e00"}
BIN = 250
WIDTH, HEIGHT, MARGIN = 760, 300, 50
LOWEST, HIGHEST = 0.6, 0.95


def accuracies(delay: int) -> list[float]:
    """Return the share of right predictions in each `BIN` records, NaN before the first model."""
    settings = Settings.model_validate({"stream": "sea", "drift_every": DRIFT_EVERY})
    trainer, model = Trainer(recipes(), 2_000, 1_000), None
    source = open_source(settings, print)
    records = [timed.record for timed in islice(source.records(0), RECORDS)]
    right = np.full(RECORDS, np.nan)
    for start in range(0, RECORDS, 50):  # records of one unit
        step = range(start, min(RECORDS, start + 50))
        if model is not None:
            found = model.predict(np.array([records[i].features for i in step], dtype=np.float64))
            right[start : start + 50] = found == [records[i].label for i in step]
        arrived = range(max(0, start - delay), max(0, start + 50 - delay))
        for publication in trainer.observe(
            Labelled(0, i, records[i].features, int(records[i].label or 0)) for i in arrived
        ):
            model = deepcopy(publication.model)  # its recipes go on learning
    return [float(part.mean()) for part in np.split(right, RECORDS // BIN)]


def plot(lines: dict[int, list[float]]) -> Iterator[str]:
    """Yield the lines of an SVG: a curve for each delay, a dashed line at each drift."""

    def x(record: float) -> float:
        return MARGIN + record / RECORDS * (WIDTH - 2 * MARGIN)

    def y(share: float) -> float:
        return HEIGHT - MARGIN - (share - LOWEST) / (HIGHEST - LOWEST) * (HEIGHT - 2 * MARGIN)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    yield ' font-family="sans-serif" font-size="12">'
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    for drift in range(0, RECORDS + 1, DRIFT_EVERY):
        yield f'<path d="M{x(drift):.0f} {y(LOWEST):.0f}V{y(HIGHEST):.0f}" stroke="#999"'
        yield ' stroke-dasharray="4"/>'
        yield f'<text x="{x(drift):.0f}" y="{HEIGHT - 32}" text-anchor="middle">{drift:,}</text>'
    for share in np.arange(LOWEST, HIGHEST, 0.1):
        yield f'<text x="{MARGIN - 8}" y="{y(share):.0f}" text-anchor="end">{share:.1f}</text>'
        yield f'<path d="M{MARGIN} {y(share):.0f}H{WIDTH - MARGIN}" stroke="#ddd"/>'
    yield f'<text x="{WIDTH // 2}" y="{HEIGHT - 12}" text-anchor="middle">record</text>'
    for row, (delay, line) in enumerate(lines.items()):
        points = [(x((i + 0.5) * BIN), y(share)) for i, share in enumerate(line) if share == share]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
        color = DELAYS[delay]
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
        text = f"labels {delay:,} records later" if delay else "labels at once"
        yield f'<text x="{MARGIN + 8 + 200 * row}" y="30" fill="{color}">{text}</text>'
    yield "</svg>"


def main() -> None:
    """Write the plot, and print the accuracy of each delay."""
    parser = argument_parser("python -m benchmarks.late_label_plot", __doc__)
    parser.add_argument("file", type=Path, help="SVG to write")
    options = parser.parse_args()
    lines = {delay: accuracies(delay) for delay in DELAYS}
    options.file.write_text("\n".join(plot(lines)) + "\n")
    for delay, line in lines.items():
        print(f"delay={delay} accuracy={np.nanmean(line):.4f}")


if __name__ == "__main__":
    main()
