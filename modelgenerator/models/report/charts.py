"""The two charts of a report, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from modelgenerator.models.report.figures import Part
from modelgenerator.models.report.markup import Markup, tag
from quality.scores import Bin, wilson

WIDTH, HEIGHT = 360, 220
"""As on a phone, so that the text is as large there as elsewhere on the page."""

LEFT, RIGHT, TOP, BOTTOM = 34, 10, 8, 32
"""Margins."""


def over_time(found: Sequence[Part], accuracy: float) -> Markup:
    """Return the accuracy of each part with its 95 % interval, and that of all as a line."""
    bounds = [wilson(part.correct, part.n) or (0.0, 1.0) for part in found]
    lowest = min(0.9, math.floor(10 * min(low for low, _ in bounds)) / 10)

    def place(number: int, value: float) -> str:
        return f"{_x((number + 0.5) / len(found))},{_y((value - lowest) / (1 - lowest))}"

    highs = [place(number, high) for number, (_, high) in enumerate(bounds)]
    lows = [place(number, low) for number, (low, _) in enumerate(bounds)]
    line = [place(number, part.correct / part.n) for number, part in enumerate(found)]
    level = _y((accuracy - lowest) / (1 - lowest))
    return _chart(
        "over-time",
        "Accuracy over time",
        f"{len(found)} parts of about as many records each, oldest first, between {lowest:.1f} and"
        f" 1; the band is the 95 % interval, the dashed line the accuracy of all, {accuracy:.4f}",
        [(value, (value - lowest) / (1 - lowest)) for value in _ticks(lowest)],
        (("oldest records", 0.0, "start"), ("newest records", 1.0, "end")),
        tag("polygon", points=" ".join([*highs, *reversed(lows)]), class_="band"),
        tag("line", x1=_x(0), x2=_x(1), y1=level, y2=level, class_="dashed"),
        tag("polyline", points=" ".join(line), class_="line"),
    )


def calibration(bins: Iterable[Bin]) -> Markup:
    """Return the real rate of label 1 by the probability that was predicted."""
    marks = []
    for bin in bins:
        low, high = wilson(round(bin.positive * bin.records), bin.records) or (0.0, 1.0)
        x = _x(bin.probability)
        marks.append(tag("line", x1=x, x2=x, y1=_y(low), y2=_y(high), class_="interval"))
        marks.append(tag("circle", cx=x, cy=_y(bin.positive), r=3, class_="dot"))
    return _chart(
        "calibration",
        "Calibration",
        "The real rate of label 1 with its 95 % interval, by the mean probability of label 1 in"
        " each bin; on the dashed line, probabilities come true as often as they say",
        [(value, value) for value in _ticks(0.0)],
        (("probability 0", 0.0, "start"), ("probability 1", 1.0, "end")),
        tag("line", x1=_x(0), x2=_x(1), y1=_y(0), y2=_y(1), class_="dashed"),
        *marks,
    )


def _chart(
    name: str,
    title: str,
    about: str,
    ticks: Iterable[tuple[float, float]],
    ends: Iterable[tuple[str, float, str]],
    *marks: Markup,
) -> Markup:
    """Return marks in a frame; `ticks` are values and their heights, both 0 to 1."""
    grid = []
    for value, height in ticks:
        y = _y(height)
        grid.append(tag("line", x1=_x(0), x2=_x(1), y1=y, y2=y, class_="grid"))
        grid.append(tag("text", f"{value:.1f}", x=LEFT - 6, y=y + 4, text_anchor="end"))
    for text, x, anchor in ends:
        grid.append(tag("text", text, x=_x(x), y=HEIGHT - 10, text_anchor=anchor))
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", about, id=f"{name}-about"),
        *grid,
        *marks,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-title {name}-about",
    )


def _ticks(lowest: float) -> list[float]:
    step = 0.2 if lowest < 0.5 else 0.1
    return [1 - number * step for number in range(int((1 - lowest) / step + 1.001))]


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)
