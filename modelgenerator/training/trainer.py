"""What is published, and when: the vote of the recipes, or a model that was right before."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from threadpoolctl import ThreadpoolController

from estimators.vote import Vote
from modelgenerator import metrics
from modelgenerator.settings import Settings
from modelgenerator.training.archive import Frozen, VotePlace
from modelgenerator.training.committee import Committee
from modelgenerator.training.gate import Gate
from modelgenerator.training.pace import Pace
from modelgenerator.training.recipes import RECIPES, Recipe, recipes
from modelgenerator.trial import record_limit
from modelgenerator.window import Labelled, Place, Window
from stream.layout import Layout
from stream.models import Former
from stream.records import Cell

log = logging.getLogger("modelgenerator")

FIRST_MODEL = 200
"""Labelled records that the first model needs."""

BLOCK = 25
"""Labelled records that are scored and learnt from together."""

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
    archive : list of Former or None
        Models of former concepts that may come back.
    """

    recipe: str
    model: Vote
    reason: str
    trained_on: int
    trained_to: dict[str, int]
    accuracies: dict[str, float | None]
    newest: list[list[Cell]]
    layout: Layout
    archive: list[Former] | None

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
        Between two models, at least; and twice what publishing the first one took. 0 is no limit.
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
        self._committee = Committee(table or RECIPES, gate or Gate(), archive)
        self._size = window
        self._window = Window(window, self.layout)
        self._retrain_every = retrain_every
        self._publish_seconds = publish_seconds
        self._clock = clock
        self._threads = ThreadpoolController()
        self._block: list[Place] = []
        self._observed = 0
        self._trained_to: dict[str, int] = {}
        self._suspended_until: dict[str, int] = {}
        self._is_first = True
        self._hurried_until = 0
        self._published, self._next_model = 0, FIRST_MODEL
        self._publish_from = -math.inf
        self._publishing = 0.0

    def observe(self, records: Iterable[Labelled]) -> Iterator[Publication]:
        """Take the next labelled records, and yield each model as soon as it is to be published.

        A second label of a record that is in the window is ignored, unless it revises the first.
        """
        begun, before, self._publishing = self._clock(), self._observed, 0.0
        for record in records:
            if record.revises:
                self._window.revise(record)
            elif record.place not in self._window:
                self._window.add(record)
                self._block.append(record.place)
                self._observed += 1
                yield from self._go_on()
        yield from self._go_on()
        seconds = self._clock() - begun - self._publishing
        self.pace.took(seconds, max(0, self._observed - before))

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

    def suspend(self, *names: str) -> None:
        """Suspend recipes, or the vote, because predictors refused or barred their models.

        While the vote is suspended, the model of the best recipe serves alone. If all are
        suspended, the vote is published all the same.
        """
        until = self._committee.learnt + SUSPENDED
        self._suspended_until |= dict.fromkeys(names, until)

    def published(self, found: Publication, place: VotePlace) -> None:
        """Take in where a model of this trainer was published."""
        self._committee.published(found.model, place)

    def restore(self, archive: Iterable[Frozen]) -> None:
        """Let models of former concepts come back that another trainer kept."""
        if self._committee.comeback:
            self._committee.comeback.archive.restore(archive)

    def keep_up(self, unread: int) -> None:
        """Train more seldom, or leave recipes out, where training is behind."""
        metrics.LAG.set(unread)
        if changed := self.pace.look(unread, self._committee.seconds):
            log.info("%s", changed)

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
        size = BLOCK * self.pace.stretch if self._committee.learnt else FIRST_MODEL
        if len(self._block) >= size:
            # All of them: recipes learn from the newest of the window, which must be scored by now.
            block, self._block = self._block, []
            with (
                warnings.catch_warnings(),
                # Several threads are slower on so few records, and take cores from the predictor.
                self._threads.limit(limits=1),
            ):
                # A fit that did not converge is judged by its score, like any other.
                warnings.simplefilter("ignore")
                self._learn([place for place in block if place in self._window])
            metrics.WINDOW.set(len(self._window))
        if self._is_due and (found := self._publication()):
            begun = self._clock()
            yield found
            took = self._clock() - begun
            self._publishing += took
            if self._publish_seconds:
                # Reading gets at least as much time as publishing, however long that takes.
                self._publish_from = begun + max(self._publish_seconds, 2 * took)

    def _learn(self, block: list[Place]) -> None:
        for partition, offset in block:
            key = str(partition)
            self._trained_to[key] = max(offset, self._trained_to.get(key, offset))
        committee = self._committee
        if committee.take(self._window, self.layout, block, self.pace):
            self._hurried_until = committee.learnt + HURRIED
            self._next_model = min(self._next_model, max(FIRST_MODEL, self._published + HURRY))

    @property
    def _is_due(self) -> bool:
        return (
            self._committee.learnt >= self._next_model
            and 0 < self._window.ones < len(self._window)
            and 0 < self._committee.ones < 1
            and self._clock() >= self._publish_from
        )

    def _publication(self) -> Publication | None:
        """Return what is to serve now."""
        committee, width = self._committee, self.layout.width or 1
        elected = committee.elect(width, self._serves)
        if not elected:
            return None
        recipe, model = elected
        reason = "first" if self._is_first else committee.news or "cadence"
        self._is_first, committee.news = False, ""
        step = min(self._retrain_every, committee.learnt // 2)
        if committee.learnt < self._hurried_until:
            step = min(step, HURRY)
        self._published = committee.learnt
        self._next_model = committee.learnt + max(HURRY, step)
        return Publication(
            recipe=recipe,
            model=model,
            reason=reason,
            trained_on=committee.learnt,
            trained_to=dict(self._trained_to),
            accuracies=committee.accuracies,
            newest=self._window.newest(min(TRIED, record_limit(width))),
            layout=self.layout,
            archive=committee.comeback.archive.formers if committee.comeback else None,
        )

    def _serves(self, recipe: str) -> bool:
        return self._committee.learnt >= self._suspended_until.get(recipe, 0)


def new_trainer(
    settings: Settings, layout: Layout, publish_seconds: float = PUBLISH_SECONDS
) -> Trainer:
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
        publish_seconds,
    )
