"""I9: each outcome is a prediction that was made before, met by its label."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from predictor.settings import LABEL_WAIT_MOST
from predictor.tally import Tally
from predictor.verify.labels import Labels
from predictor.verify.models import Models
from predictor.verify.partition import Output, Partition
from predictor.verify.report import Findings
from stream.records import Prediction

_KNOWN_MOST = LABEL_WAIT_MOST + 10_000
"""Predictions of a partition that a label may be for, and those of a unit."""

_DROPPED_AT_ONCE = 1_000_000
_NO_LABEL, _ASSUMED = 2, 3
_STATES = {0: "label 0", 1: "label 1", _NO_LABEL: "no label", _ASSUMED: "an assumed label"}


class Outcomes:
    """Compares outcomes with the predictions of a partition, in bounded memory.

    Attributes
    ----------
    labels : Labels
        The labels of the outcomes.
    first_known : int or None
        Offset of the first prediction that a label may be for.
    """

    def __init__(self, partition: Partition, models: Models, findings: Findings) -> None:
        self.labels = Labels(partition, models, findings)
        self.first_known: int | None = None
        tally = partition.committed.tally
        self._expired_to = tally.expired_to if isinstance(tally, Tally) else 0
        self._findings = findings
        self._incomplete = partition.predictions.start > 0
        self._current = True
        self._sources = array("q")
        self._digests = array("q")
        self._states = bytearray()

    def add(self, output: Output, prediction: Prediction) -> None:
        """Take in a prediction, to be met by outcomes."""
        known, source, label = self._sources, output.order, prediction.label
        if known and (source <= known[-1] or output.current != self._current):
            self._drop(len(known))  # those of a data topic that was deleted
        elif len(known) >= _KNOWN_MOST + _DROPPED_AT_ONCE:
            self._drop(_DROPPED_AT_ONCE)
            self._incomplete = True
        self._current = output.current
        if source >= self._expired_to and self.first_known is None and output.current:
            self.first_known = output.offset
        known.append(source)
        self._digests.append(_digest(prediction))
        self._states.append(_NO_LABEL if label is None else label)

    def meet(self, output: Output, outcome: Prediction) -> int | None:
        """Check an outcome; return the label before it, ``None`` if there was none or is unknown.

        Raises
        ------
        Violation
        """
        if outcome.labelled is not None:
            self.labels.meet(output, outcome, *outcome.labelled)
        return self._meet_prediction(output, outcome)

    def waiting(self) -> int | None:
        """Return how many predictions wait for labels, ``None`` where retention took some."""
        known = self._sources
        if self._incomplete and (not known or known[0] > self._expired_to):
            return None
        first = bisect_left(known, self._expired_to) if self._current else len(known)
        return self._states.count(_NO_LABEL, first)

    def _meet_prediction(self, output: Output, outcome: Prediction) -> int | None:
        known, source = self._sources, outcome.source[1]
        at = bisect_left(known, source)
        if at == len(known) or known[at] != source:
            if at == 0 and self._incomplete:
                self._findings.not_checked["I9: retention has deleted the prediction"] += 1
                return None
            expected = "a prediction before its outcome"
            raise output.violation("I9", expected, f"none of source {outcome.source}")
        if self._digests[at] != _digest(outcome):
            expected = "the id, prediction, probability, model, seen and time that were predicted"
            raise output.violation("I9", expected, f"others of source {outcome.source}")
        before, revised = self._states[at], outcome.outcome == "revised"
        if before not in ((0, 1) if revised else (_NO_LABEL,)):
            expected = f"a prediction {'with a' if revised else 'without'} label"
            raise output.violation("I9", f"{expected} to be {outcome.outcome}", _STATES[before])
        assert outcome.label is not None  # an outcome has one
        self._states[at] = outcome.label
        if outcome.outcome == "assumed":
            self._states[at] = _ASSUMED
            if outcome.label:
                raise output.violation("I9", "an assumed label 0", f"{outcome.label}")
        self._findings.checked["I9"] += 1
        return before if before in (0, 1) else None

    def _drop(self, number: int) -> None:
        del self._sources[:number], self._digests[:number], self._states[:number]


def _digest(prediction: Prediction) -> int:
    """Return what tells predictions apart, in 8 bytes: a million of them wait at a time."""
    return hash(
        (
            prediction.id,
            prediction.prediction,
            prediction.probability,
            prediction.model,
            prediction.source,
            prediction.seen,
            prediction.time,
        )
    )
