"""The recipes at work: they score records, learn from them, and vote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from estimators.vote import Calibration, Floats, Vote
from modelgenerator import metrics
from modelgenerator.training.archive import Frozen, VotePlace
from modelgenerator.training.calibration import Calibrator
from modelgenerator.training.comeback import COMPARED, Comeback
from modelgenerator.training.gate import Gate
from modelgenerator.training.learner import Learner, wrong
from modelgenerator.training.learning import Labels, RisingErrors
from modelgenerator.training.pace import Pace
from modelgenerator.training.recipes import ARCHIVED, CATEGORIES, VOTE, Columns, Recipe
from modelgenerator.training.standings import Standing, weights
from modelgenerator.window import Place, Window
from stream.layout import Layout

RENEWED_EVERY = 100
"""Labelled records after which weights and calibration are renewed, and the archive looked at."""

AGREED = 500
"""Newest records on which models of the archive are compared with each other."""

HARDLY_LESS = 1_000
"""A published model stands for the one of now in the archive if it has learnt from at most so many
labelled records less. A concept that is kept lasts longer."""

ONES_HALF_LIFE = 2_000.0
"""Of the share of records that are labelled 1."""


class Committee:
    """Scores each block of records with the newest models; only then do recipes learn from it.

    Parameters
    ----------
    table : sequence of Recipe
    gate : Gate
    archive : bool
        Whether models of former concepts may come back.

    Attributes
    ----------
    learnt : int
        Number of records that were learnt from.
    news : str
        What happened that is worth a new model, with the numbers; cleared by who publishes it.
    comeback : Comeback or None
        Models of former concepts.
    """

    def __init__(self, table: Sequence[Recipe], gate: Gate, archive: bool) -> None:
        self.learnt = 0
        self.news = ""
        self._gate = gate
        self._learners = {recipe.name: Learner(recipe, gate) for recipe in table}
        self._weights: dict[str, float] = {}
        self._calibrator, self._calibration = Calibrator(), Calibration()
        self._standing = Standing(gate)
        self._errors = RisingErrors()
        self.comeback = Comeback() if archive else None
        self._places: dict[str, tuple[int, VotePlace]] = {}
        self._ones = Standing(Gate(), ONES_HALF_LIFE)
        self._renewed = 0

    @property
    def accuracies(self) -> dict[str, float | None]:
        """How good the vote and the models of each recipe were lately, by the gate."""
        standings = {name: learner.standing for name, learner in self._learners.items()}
        return {name: each.value for name, each in ({VOTE: self._standing} | standings).items()}

    @property
    def ones(self) -> float:
        """The share of records learnt from that are labelled 1; older ones fade."""
        return self._ones.ones

    @property
    def seconds(self) -> dict[str, float]:
        """What each recipe has cost so far."""
        return {name: learner.seconds for name, learner in self._learners.items()}

    def published(self, vote: Vote, place: VotePlace) -> None:
        """Take in where a vote of these models was published."""
        self._places |= dict.fromkeys(vote.members, (self.learnt, place))

    def take(self, window: Window, layout: Layout, block: list[Place], pace: Pace) -> bool:
        """Score a block, the newest records of a window, then learn from it.

        Returns whether something happened for which a new model is urgent.
        """
        matrix, labels = window.matrix(layout, block)
        urgent = self._score(matrix, labels, pace.left_out)
        if urgent and self.comeback:
            self.comeback.end_concept(window.matrix(layout, window.newest_places(AGREED))[0])
        self._ones.add(np.zeros(len(labels)), labels)
        self.learnt += len(block)

        @cache
        def columns() -> Columns:
            texts = window.encoder.vocabularies.items()
            commonest = {index: each.commonest(CATEGORIES) for index, each in texts}
            return Columns(matrix.shape[1], commonest)

        for name, learner in self._learners.items():
            if name in pace.left_out or matrix.shape[1] > learner.recipe.widest:
                continue
            if found := learner.learn(window, layout, columns, len(block), pace.stretch):
                self.news, urgent = f"alarm ({name}: {found})", True
                metrics.DRIFT_ALARMS.labels(name).inc()
        lost = any(self._learners[name].standing.value is None for name in self._weights)
        if self.learnt - self._renewed >= RENEWED_EVERY or not self._weights or lost:
            self._renewed = self.learnt
            urgent |= self._renew(window, layout, pace.left_out)
        return urgent

    def elect(self, features: int, serves: Callable[[str], bool]) -> tuple[str, Vote] | None:
        """Return what is to serve now: its name, and the model; ``None`` before there is any.

        Parameters
        ----------
        features : int
            Number of features.
        serves : callable
            Tells whether the vote, or a recipe alone, may serve. If none may, the vote does.
        """
        if not self._weights:
            return None
        name, voting = VOTE, self._weights
        former = self.comeback.model if self.comeback and serves(VOTE) else None
        if former:
            members, voting = {ARCHIVED: former.model}, {ARCHIVED: 1.0}
        else:
            if not serves(VOTE):
                able = [each for each in voting if serves(each)]
                name = max(able, key=voting.__getitem__, default=VOTE)
                voting = voting if name == VOTE else {name: 1.0}
            members = {each: self._learners[each].frozen() for each in voting}
        # Of the vote itself, as in the standings: of the calibrated one, it is slightly worse.
        threshold = float(self._calibration(np.array([self._threshold]))[0])
        return name, Vote(members, dict(voting), features, self._calibration, threshold)

    @property
    def _threshold(self) -> float:
        """Probability from which on a record is labelled 1."""
        return self._gate.threshold(self.ones)

    def _score(self, matrix: Any, labels: Labels, left_out: Sequence[str]) -> bool:
        threshold, given = self._threshold, dict[str, Floats]()
        for name, learner in self._learners.items():
            found = None if name in left_out else learner.score(matrix)
            if found is not None:
                given[name] = found
                losses = self._gate.losses(found, labels, threshold)
                learner.take(losses, wrong(found, labels, threshold), labels)
        voting = {name: weight for name, weight in self._weights.items() if name in given}
        if not voting:
            return False
        votes: Floats = np.average(
            [given[name] for name in voting], axis=0, weights=[*voting.values()]
        )
        self._calibrator.add(votes, labels)
        served = votes
        if self.comeback:
            served = self.comeback.take(votes, matrix, labels, threshold)
        self._standing.add(self._gate.losses(served, labels, threshold), labels)
        if not self._errors.add(wrong(served, labels, threshold)):
            return False
        self.news = f"alarm ({self._errors})"
        metrics.DRIFT_ALARMS.labels(VOTE).inc()
        return True

    def _renew(self, window: Window, layout: Layout, left_out: Sequence[str]) -> bool:
        """Renew weights and calibration; return whether a former model comes back, or goes."""
        values = {
            name: learner.standing.value
            for name, learner in self._learners.items()
            if learner.model is not None and name not in left_out
        }
        if not values:
            self._weights = {}
            return False
        before, self._weights = self._weights, weights(values)
        self._calibration = self._calibrator.fit()
        best = max(self._weights, key=self._weights.__getitem__)
        self._tell_best(before, best, values)
        if not self.comeback:
            return False
        matrix, labels = window.matrix(layout, window.newest_places(COMPARED))
        model, place = self._learners[best].frozen(), self._place(best)
        frozen = Frozen(best, model, values[best] or 0.5, place)
        news = self.comeback.look(frozen, matrix, labels, self._threshold)
        self.news = news or self.news
        return bool(news)

    def _place(self, recipe: str) -> VotePlace | None:
        """Return where a model of a recipe was published that has learnt hardly less than now."""
        at, place = self._places.get(recipe, (0, None))
        return place if self.learnt - at <= HARDLY_LESS else None

    def _tell_best(
        self, before: Mapping[str, float], best: str, values: Mapping[str, float | None]
    ) -> None:
        former = max(before, key=before.__getitem__, default=best)
        if former != best and not self.news:
            lead, other = (values.get(name) or 0.0 for name in (best, former))
            self.news = f"weights ({best} leads with {lead:.3f}, {former} has {other:.3f})"
