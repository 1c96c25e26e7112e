"""Labelled records of small synthetic concepts, and recipes that learn them quickly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from modelgenerator.training.recipes import RECIPES
from modelgenerator.training.trainer import Publication, Trainer
from modelgenerator.window import Labelled

Rule = Callable[[list[float]], bool]

BY_NAME = {recipe.name: recipe for recipe in RECIPES}
TWO = [BY_NAME["sgd"], BY_NAME["hgb_since"]]
"""One that draws a line, and one that does not need one."""


def linear(features: list[float]) -> bool:
    return features[0] + features[1] > 1


def turned(features: list[float]) -> bool:
    return not linear(features)


def exclusive(features: list[float]) -> bool:
    """No line separates these."""
    return (features[0] > 0.5) != (features[1] > 0.5)


def stream(rule: Rule, partitions: int = 1, start: int = 0, width: int = 3) -> Iterator[Labelled]:
    rng = random.Random(start)
    for id in range(start, 10**9):
        features = [rng.random() for _ in range(width)]
        yield Labelled(id % partitions, id // partitions, [*features], int(rule(features)))


def noisy(records: Iterable[Labelled], share: float, seed: int = 0) -> Iterator[Labelled]:
    """Turn the labels of a share of the records around."""
    rng = random.Random(seed)
    for record in records:
        yield record._replace(label=record.label ^ (rng.random() < share))


def observe(trainer: Trainer, records: Iterable[Labelled], count: int) -> list[Publication]:
    return list(trainer.observe(islice(records, count)))
