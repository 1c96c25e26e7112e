"""On which records a recipe's model is trained, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN
from sklearn.dummy import DummyClassifier

Labels = NDArray[np.int64]


class RisingErrors:
    """Raises an alarm where the share of errors has risen.

    Parameters
    ----------
    confidence : float
        Risk of a false alarm, the delta of ADWIN.

    Notes
    -----
    Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing" (2007).

    Examples
    --------
    >>> errors = RisingErrors()
    >>> errors.add([False] * 500), errors.add([True] * 100)
    (False, True)
    >>> str(errors).startswith("wrong on 0.")
    True
    """

    def __init__(self, confidence: float = 0.002) -> None:
        self._window: Any = ADWIN(confidence)  # type: ignore[no-untyped-call] # of river
        self._before = self._after = 0.0

    @property
    def width(self) -> int:
        """Newest errors that show no change among themselves."""
        return int(self._window.width)

    def add(self, errors: Iterable[bool]) -> bool:
        """Take the next errors; return whether there was an alarm."""
        alarm = False
        for error in errors:
            before = self._window.estimation
            self._window.update(int(error))
            if self._window.drift_detected and self._window.estimation > before:
                self._before = self._before if alarm else before
                self._after, alarm = self._window.estimation, True
        return alarm

    def __str__(self) -> str:
        """Say what the last alarm was about."""
        return f"wrong on {self._after:.3f} of the records, before on {self._before:.3f}"


class Learning(Protocol):
    """Decides on how many of the newest records a model is trained, and when."""

    alarm: str
    """What the last call of `due` found, if that were rising errors."""

    def due(self, new: int, errors: list[bool], stretch: int) -> int:
        """Return on how many of the newest records to train now, 0 for not now.

        Parameters
        ----------
        new : int
            Records since the last call.
        errors : list of bool
            Whether the recipe's model was wrong on each of them; empty without a model.
        stretch : int
            How many times more seldom than usual, because the stream is fast.
        """


class _Counter:
    """Counts records up to a number, again and again."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, new: int, most: int) -> int:
        """Add records; once there are `most`, return how many there are, and begin again."""
        self._count += new
        if self._count < most:
            return 0
        reached, self._count = self._count, 0
        return reached


@dataclass
class EachOnce:
    """Every record once, in blocks of `every`, with the estimator's `partial_fit`."""

    every: int
    alarm: str = ""
    _new: _Counter = field(default_factory=_Counter)

    def due(self, new: int, errors: list[bool], stretch: int) -> int:
        """Return the size of the block once it is full."""
        return self._new.add(new, self.every * stretch)


@dataclass
class Latest:
    """The latest `size` records, again after every `every`."""

    size: int
    every: int
    alarm: str = ""
    _new: _Counter = field(default_factory=_Counter)

    def due(self, new: int, errors: list[bool], stretch: int) -> int:
        """Return the size every so often."""
        return self.size if self._new.add(new, self.every * stretch) else 0


@dataclass
class Steady:
    """The records since the errors of the recipe's own model changed last.

    At least `least` records, at most `most`; again after `every`, or, for `hurried` records after
    an alarm, after a fifth of that.
    """

    least: int = 200
    most: int = 10_000
    every: int = 500
    hurried: int = 1_000
    alarm: str = ""
    _errors: RisingErrors = field(default_factory=RisingErrors)
    _new: _Counter = field(default_factory=_Counter)
    _hurry: int = 0

    def due(self, new: int, errors: list[bool], stretch: int) -> int:
        """Return the width of the window in which the errors are steady."""
        self.alarm = str(self._errors) if self._errors.add(errors) else ""
        self._hurry = self.hurried if self.alarm else self._hurry - new
        every = self.every if errors and self._hurry <= 0 else self.every // 5
        if not self._new.add(new, every * stretch):
            return 0
        return max(self.least, min(self._errors.width, self.most))


@dataclass
class SinceAlarm:
    """The records since the last alarm of rising errors of the recipe's own model.

    After an alarm the old model stays until there are `first` records. It is replaced after every
    `first` until there are `until`, then after every `until`.
    """

    first: int = 50
    until: int = 1_000
    alarm: str = ""
    _errors: RisingErrors = field(default_factory=RisingErrors)
    _since: int = 0
    _new: _Counter = field(default_factory=_Counter)

    def due(self, new: int, errors: list[bool], stretch: int) -> int:
        """Return how many records there were since the alarm."""
        self.alarm = str(self._errors) if self._errors.add(errors) else ""
        if self.alarm:
            self._since, self._new = 0, _Counter()
        self._since += new
        every = self.first if self._since <= self.until else self.until
        return self._since if self._new.add(new, every * stretch) else 0


def fit(estimator: Any, features: Any, labels: Labels) -> Any:
    """Fit an estimator; if there is one label alone, return one that answers it."""
    if len(np.unique(labels)) < 2:
        estimator = DummyClassifier(strategy="prior")
    return estimator.fit(features, labels)


def go_on(estimator: Any, features: Any, labels: Labels, begun: bool) -> None:
    """Train an estimator, or a pipeline that ends with one, on more records.

    Each step of a pipeline learns with `partial_fit` if it has one; else it is fitted once, on the
    first records.
    """
    *steps, (_, last) = getattr(estimator, "steps", [("", estimator)])
    for _, step in steps:
        if hasattr(step, "partial_fit"):
            step.partial_fit(features)
        elif not begun:
            step.fit(features)
        features = step.transform(features)
    last.partial_fit(features, labels, classes=[0, 1])
