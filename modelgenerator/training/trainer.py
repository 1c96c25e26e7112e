"""What is published, and when: the vote of the recipes, or a model that was right before."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from estimators.vote import Calibration, Floats, Vote, positive
from modelgenerator.settings import Settings
from modelgenerator.training.archive import Frozen
from modelgenerator.training.calibration import Calibrator
from modelgenerator.training.comeback import COMPARED, Comeback
from modelgenerator.training.gate import Gate
from modelgenerator.training.learner import Learner, wrong
from modelgenerator.training.learning import Labels, RisingErrors
from modelgenerator.training.pace import Pace
from modelgenerator.training.recipes import CATEGORIES, RECIPES, Columns, Recipe, recipes
from modelgenerator.training.standings import Standing, weights
from modelgenerator.trial import record_limit
from modelgenerator.window import Labelled, Place, Window
from stream.layout import Layout
from stream.records import Cell

log = logging.getLogger("modelgenerator")

FIRST_MODEL = 200
"""Labelled records that the first model needs."""

BLOCK = 25
"""Labelled records that are scored and learnt from together."""

RENEWED_EVERY = 100
"""Labelled records after which weights and calibration are renewed, and the archive looked at."""

HURRY = 50
"""Labelled records between two models at least, and at most for a while after an alarm."""

HURRIED = 1_000
"""Labelled records after an alarm that count as a while."""

PUBLISH_SECONDS = 0.5
"""Between two models of the service, at least."""

TRIED = 200
"""Newest records that a model is tried on before it is published, at most."""

SUSPENDED = 10_000
"""Labelled records for which a recipe is suspended whose model predictors refused or barred."""

ONES_HALF_LIFE = 2_000.0

VOTE = "vote"
ARCHIVED = "archived"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A model to publish, and why.

    Attributes
    ----------
    recipe : str
        ``vote``, or the recipe whose model alone serves.
    reason : str
        ``first``, ``cadence``, ``alarm``, ``weights`` or ``archive``, with the numbers.
    trained_on : int
        Number of records that were learnt from so far.
    trained_to : dict of str to int
        Partition to the highest offset that was learnt from.
    accuracies : dict of str to (float or None)
        How good the models of each recipe were lately, test-then-train, by the gate; ``vote`` is
        what served.
    newest : list of rows
        Of the newest records that it was trained on, the newest first, to try it on.
    layout : Layout
        By which its records were read.
    """

    recipe: str
    model: Vote
    reason: str
    trained_on: int
    trained_to: dict[str, int]
    accuracies: dict[str, float | None]
    newest: list[list[Cell]]
    layout: Layout

    def adds_to(self, trained_to: Mapping[str, int] | None) -> bool:
        """Return whether the model was trained on records beyond these offsets.

        ``None``, for no model that can be served, is less than any model.
        """
        before = trained_to or {}
        return trained_to is None or any(o > before.get(p, -1) for p, o in self.trained_to.items())


class Trainer:
    """Keeps the recipes' models trained, and yields what is to be published.

    Records come in blocks. The newest models score a block first; only then do recipes learn from
    it. So a record whose label comes late is scored by the newest models when it comes. While
    training keeps up, what is published depends on the records alone, not on the batches in which
    they come.

    Parameters
    ----------
    table : sequence of Recipe
    window : int
        Labelled records that are kept, at most.
    retrain_every : int
        Labelled records between two models, at most.
    layout : Layout
        By which the records were read. If it names no width, that is the commonest one of the first
        200 records.
    gate : Gate
        What makes a recipe better than another one.
    archive : bool
        Whether models of former concepts may come back.
    publish_seconds : float
        Between two models, at least.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    layout : Layout
        By which the next records are to be read.

    Examples
    --------
    >>> trainer = Trainer()
    >>> records = [Labelled(0, offset, [offset % 7, 1.0], offset % 2) for offset in range(250)]
    >>> [(p.reason, p.trained_on, p.trained_to) for p in trainer.observe(records)]
    [('first', 200, {'0': 199})]
    """

    def __init__(
        self,
        table: Sequence[Recipe] | None = None,
        window: int = 20_000,
        retrain_every: int = 100,
        layout: Layout | None = None,
        gate: Gate | None = None,
        archive: bool = True,
        publish_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout or Layout()
        self.pace = Pace(clock)
        self._gate = gate or Gate()
        self._size = window
        self._window = Window(window, self.layout)
        self._retrain_every = retrain_every
        self._publish_seconds = publish_seconds
        self._clock = clock
        self._threads = ThreadpoolController()
        self._learners = {recipe.name: Learner(recipe, self._gate) for recipe in table or RECIPES}
        self._weights: dict[str, float] = {}
        self._calibrator, self._calibration = Calibrator(), Calibration()
        self._standing = Standing(self._gate)
        self._errors = RisingErrors()
        self._comeback = Comeback() if archive else None
        self._ones = Standing(Gate(), ONES_HALF_LIFE)
        self._block: list[Place] = []
        self._observed = self._learnt = self._renewed = 0
        self._trained_to: dict[str, int] = {}
        self._suspended_until: dict[str, int] = {}
        self._reason = "first"
        self._hurried_until = 0
        self._next_model = FIRST_MODEL
        self._published_at = -publish_seconds

    def observe(self, records: Iterable[Labelled]) -> Iterator[Publication]:
        """Take the next labelled records, and yield each model as soon as it is to be published.

        A second label of a record that is in the window is ignored, unless it revises the first.
        """
        for record in records:
            if record.revises:
                self._window.revise(record)
            elif record.place not in self._window:
                self._window.add(record)
                self._block.append(record.place)
                self._observed += 1
                yield from self._go_on()
        yield from self._go_on()

    def follow(self, layout: Layout) -> None:
        """Take the next records by another layout, of the same types if there were records before.

        Records with another number of features, which came before it was known, are left out.
        """
        if not self._observed:
            self._window = Window(self._size, layout)
        elif self.layout.width is None and layout.width:
            if others := self._window.keep(layout.width):
                log.warning(
                    "%d of the first %d labelled records have another number of features than %d;"
                    " they are not trained on",
                    *(others, self._observed, layout.width),
                )
            self._observed = len(self._window)
            self._block = [*self._window]
        self.layout = layout

    def suspend(self, recipe: str) -> None:
        """Suspend a recipe, or the vote, because predictors refused or barred its model.

        While the vote is suspended, the model of the best recipe serves alone. If all are
        suspended, the vote is published all the same.
        """
        self._suspended_until[recipe] = self._learnt + SUSPENDED

    def keep_up(self, unread: int) -> None:
        """Train more seldom, or leave recipes out, if so many records wait to be read."""
        costs = {name: learner.seconds for name, learner in self._learners.items()}
        if changed := self.pace.look(unread, costs):
            log.warning("%s", changed)

    @property
    def needs(self) -> str:
        """What the first model still needs, in words."""
        more = max(0, FIRST_MODEL - self._observed)
        ones = self._window.ones
        absent = {0: len(self._window) > ones, 1: ones > 0}
        needed = [f"{more} more"] if more else []
        needed += [f"one labelled {label}" for label, present in absent.items() if not present]
        text = f"the first model needs {FIRST_MODEL} labelled records of both labels"
        return text + (f": {', '.join(needed)}" if needed else ", which are there")

    def _go_on(self) -> Iterator[Publication]:
        """Learn from the blocks that are full; yield a model if one is due."""
        if self.layout.width is None:
            if self._observed < FIRST_MODEL:
                return
            # The commonest, so that one odd first record does not decide.
            self.follow(Layout(self._window.commonest_width))
        while len(self._block) >= (size := BLOCK * self.pace.stretch):
            block, self._block = self._block[:size], self._block[size:]
            with (
                warnings.catch_warnings(),
                # Several threads are slower on so few records, and take cores from the predictor.
                self._threads.limit(limits=1),
            ):
                # A fit that did not converge is judged by its score, like any other.
                warnings.simplefilter("ignore")
                self._learn([place for place in block if place in self._window])
        if self._is_due and (found := self._publication()):
            yield found

    def _learn(self, block: list[Place]) -> None:
        """Score a block with the newest models, then train on it."""
        matrix, labels = self._window.matrix(self.layout, block)
        threshold = self._gate.threshold(self._ones.ones)
        self._score(matrix, labels, threshold)
        self._ones.add(np.zeros(len(labels)), labels)
        self._learnt += len(block)
        for partition, offset in block:
            key = str(partition)
            self._trained_to[key] = max(offset, self._trained_to.get(key, offset))
        columns = self._columns(matrix)
        for name, learner in self._learners.items():
            if name not in self.pace.left_out and columns.width < learner.recipe.widest:
                learner.learn(self._window, self.layout, columns, len(block), self.pace.stretch)
            if learner.alarm:
                self._alarm(learner.alarm)
                learner.alarm = ""
        if self._learnt - self._renewed >= RENEWED_EVERY or not self._weights:
            self._renewed = self._learnt
            self._renew(threshold)

    def _score(self, matrix: Any, labels: Labels, threshold: float) -> None:
        given: dict[str, Floats] = {}
        for name, learner in self._learners.items():
            found = None if name in self.pace.left_out else learner.score(matrix)
            if found is not None:
                given[name] = found
                learner.take(
                    self._gate.losses(found, labels, threshold),
                    wrong(found, labels, threshold),
                    labels,
                )
        voting = {name: weight for name, weight in self._weights.items() if name in given}
        if not voting:
            return
        votes: Floats = np.average(
            [given[name] for name in voting], axis=0, weights=[*voting.values()]
        )
        self._calibrator.add(votes, labels)
        served, vote_wrong = votes, wrong(votes, labels, threshold)
        if self._comeback:
            own_wrong = None
            if self._comeback.model:
                served = positive(self._comeback.model.model, matrix)
                own_wrong = wrong(served, labels, threshold)
            self._comeback.take(vote_wrong, own_wrong, labels)
        self._standing.add(self._gate.losses(served, labels, threshold), labels)
        if self._errors.add(wrong(served, labels, threshold)):
            errors = self._errors
            self._alarm(
                f"wrong on {errors.after:.3f} of the records, before on {errors.before:.3f}"
            )
            if self._comeback:
                self._comeback.end_concept(matrix)

    def _alarm(self, what: str) -> None:
        if self._reason != "first":
            self._reason = f"alarm ({what})"
        self._hurried_until = self._learnt + HURRIED
        self._next_model = min(self._next_model, self._learnt + HURRY)

    def _renew(self, threshold: float) -> None:
        """Renew the weights, the calibration, and what serves in place of the vote."""
        best = max(self._weights, key=self._weights.__getitem__, default=None)
        values = {
            name: learner.standing.value
            for name, learner in self._learners.items()
            if learner.model is not None and name not in self.pace.left_out
        }
        if not values:
            return
        self._weights = weights(values)
        self._calibration = self._calibrator.fit()
        now = max(self._weights, key=self._weights.__getitem__)
        if best and now != best and self._reason == "cadence":
            standings = (values[now] or 0.0, values.get(best) or 0.0)
            lead, other = standings
            self._reason = f"weights ({now} leads with {lead:.3f}, {best} has {other:.3f})"
        if self._comeback:
            newest = self._window.newest_places(COMPARED)
            matrix, labels = self._window.matrix(self.layout, newest)
            frozen = Frozen(now, self._learners[now].frozen(), values[now] or 0.5)
            if changed := self._comeback.look(frozen, matrix, labels, threshold):
                self._reason = changed
                self._next_model = min(self._next_model, self._learnt)

    def _columns(self, matrix: Any) -> Columns:
        vocabularies = self._window.encoder.vocabularies
        commonest = {index: each.commonest(CATEGORIES) for index, each in vocabularies.items()}
        return Columns(matrix.shape[1], commonest)

    @property
    def _is_due(self) -> bool:
        return (
            self._learnt >= self._next_model
            and 0 < self._window.ones < len(self._window)
            and self._clock() >= self._published_at + self._publish_seconds
        )

    def _publication(self) -> Publication | None:
        """Return what serves now, to be published."""
        if not self._weights:
            return None
        recipe, members, voting = self._elected()
        threshold = self._gate.threshold(self._ones.ones)
        if threshold == 0.5:  # as the vote itself has it: a calibrated one is slightly worse
            threshold = float(self._calibration(np.array([threshold]))[0])
        reason, self._reason = self._reason, "cadence"
        step = min(self._retrain_every, self._learnt // 2)
        if self._learnt < self._hurried_until:
            step = min(step, HURRY)
        self._next_model = self._learnt + max(HURRY, step)
        self._published_at = self._clock()
        width = self.layout.width or 1
        return Publication(
            recipe=recipe,
            model=Vote(members, voting, width, self._calibration, threshold),
            reason=reason,
            trained_on=self._learnt,
            trained_to=dict(self._trained_to),
            accuracies={VOTE: self._standing.value}
            | {name: each.standing.value for name, each in self._learners.items()},
            newest=self._window.newest(min(TRIED, record_limit(width))),
            layout=self.layout,
        )

    def _elected(self) -> tuple[str, dict[str, Any], dict[str, float]]:
        """Return what is published: its name, its members, and their weights."""
        back = self._comeback.model if self._comeback else None
        if self._serves(VOTE):
            if back:
                return VOTE, {ARCHIVED: back.model}, {ARCHIVED: 1.0}
        elif able := [name for name in self._weights if self._serves(name)]:
            best = max(able, key=self._weights.__getitem__)
            return best, {best: self._learners[best].frozen()}, {best: 1.0}
        return VOTE, {name: self._learners[name].frozen() for name in self._weights}, self._weights

    def _serves(self, recipe: str) -> bool:
        return self._learnt >= self._suspended_until.get(recipe, 0)


def new_trainer(settings: Settings, layout: Layout) -> Trainer:
    """Return a trainer as the settings say.

    Raises
    ------
    Fatal
        When ``RECIPES`` names no table of recipes.
    """
    return Trainer(
        recipes(settings.recipes),
        settings.window,
        settings.retrain_every,
        layout,
        Gate.parse(settings.gate),
        settings.archive,
        PUBLISH_SECONDS,
    )
