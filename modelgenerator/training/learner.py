"""A recipe at work: its newest model, how good that is, and what it costs."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from estimators.vote import Floats, positive
from modelgenerator import metrics
from modelgenerator.training.gate import Gate
from modelgenerator.training.learning import EachOnce, Labels, fit, go_on
from modelgenerator.training.recipes import Columns, Recipe
from modelgenerator.training.standings import Standing
from modelgenerator.window import Window
from stream.layout import Layout
from stream.quoting import one_line
from stream.service import Warnings

log = logging.getLogger("modelgenerator")
_warnings = Warnings(log)


class Learner:
    """Trains one recipe. A model scores records before any model of the recipe learns from them.

    Attributes
    ----------
    model : estimator or None
        The newest; ``None`` before the first.
    standing : Standing
        Of its models so far.
    seconds : float
        What scoring and training took so far.
    """

    def __init__(self, recipe: Recipe, gate: Gate) -> None:
        self.recipe = recipe
        self.model: Any = None
        self.standing = Standing(gate)
        self._gate = gate
        self.seconds = 0.0
        self._learning = recipe.learning()
        self._once = isinstance(self._learning, EachOnce)
        self._growing: Any = None
        self._errors: list[bool] = []

    def score(self, matrix: Any) -> Floats | None:
        """Return what the newest model says of records that it has not seen, if there is one."""
        if self.model is None:
            return None
        begun = time.perf_counter()
        try:
            found = positive(self.model, matrix)
            if not np.isfinite(found).all():
                raise ValueError("not all probabilities are numbers")
            return found
        except Exception as error:  # noqa: BLE001 - a recipe of one's own may raise anything
            self._give_up("predict", error)
            return None
        finally:
            self.seconds += time.perf_counter() - begun

    def take(self, losses: Floats, wrong: list[bool], labels: Labels) -> None:
        """Take what became of the records that it has scored."""
        self.standing.add(losses, labels)
        self._errors = wrong

    def learn(
        self,
        window: Window,
        layout: Layout,
        columns: Callable[[], Columns],
        new: int,
        stretch: int,
    ) -> str:
        """Train, if it is time, on the newest records of the window, of which `new` have just come.

        Returns what was found, if the models are wrong on more records than before.
        """
        begun = time.perf_counter()
        errors, self._errors = self._errors, []
        count = self._learning.due(new, errors, stretch)
        if count:
            matrix, labels = window.matrix(layout, window.newest_places(count), to_fit=True)
            try:
                with metrics.TRAINING_SECONDS.labels(self.recipe.name).time():
                    self._train(matrix, labels, columns)
            except Exception as error:  # noqa: BLE001 - a recipe of one's own may raise anything
                self._give_up("fit", error)
        self.seconds += time.perf_counter() - begun
        return self._learning.alarm

    def frozen(self) -> Any:
        """Return its newest model as it will stay."""
        return copy.deepcopy(self.model) if self._once else self.model

    def _train(self, matrix: Any, labels: Labels, columns: Callable[[], Columns]) -> None:
        if not self._once:
            self.model = fit(self.recipe.make(columns()), matrix, labels)
            return
        begun = self._growing is not None
        if not begun:
            self._growing = self.recipe.make(columns())
        go_on(self._growing, matrix, labels, begun)
        self.model = self._growing

    def _give_up(self, method: str, error: Exception) -> None:
        """Begin again without a model; the next one must be scored before it votes."""
        self.model = self._growing = None
        self.standing = Standing(self._gate)
        _warnings.warn(
            self.recipe.name,
            f"recipe {self.recipe.name}: {method} raised {type(error).__name__}:"
            f" {one_line(str(error), 200)}; it does not vote until it is trained again",
        )


def wrong(probabilities: Floats, labels: Labels, threshold: float) -> list[bool]:
    """Tell of each record whether it was predicted wrong."""
    found: list[bool] = ((probabilities > threshold) != (labels == 1)).tolist()
    return found
