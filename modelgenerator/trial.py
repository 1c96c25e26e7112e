"""How a model is to be served, found out by trying it: its probe, its nulls, its rule."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from estimators.vote import Vote
from stream.classifier import Answer, Model, probe
from stream.models import Envelope, ModelError
from stream.records import Cell

Table = Sequence[Sequence[Cell]]

RECORDS = 2_000
NUMBERS = 1_000_000
"""Newest records that a model is tried on, and how many features they have together, at most."""

SECONDS = 5.0
"""How long they may take to be predicted once; a slower model is tried on fewer."""

PROBES = 200
"""Newest records that are tried as a probe."""

PROBE_ROWS, PROBE_BYTES = 8, 64_000
"""Most records in an envelope, and their most bytes as JSON if there are several."""

NULL_TRIALS = 1_000
NULLABLE = 10_000
"""Features that may be null if not all may, at most: the envelope lists them."""

_KNOWN = (HistGradientBoostingClassifier, LogisticRegression, Vote)
"""Classes whose `predict` is 1 where the probability is above one half, up to rounding."""

_ROWS = 500


def tried(classifier: Any, envelope: Envelope, newest: Table) -> tuple[Envelope, list[str]]:
    """Try a model, and say in its envelope how it is to be served.

    Its own `predict` decides the labels, unless the envelope has a threshold, or `predict` is known
    to be a probability above one half and is that on all records tried.

    Parameters
    ----------
    newest : sequence of rows
        The newest records, the newest first, as the envelope's layout reads them. Those with
        another number of features are left out.

    Returns
    -------
    envelope : Envelope
        With `probe` or `probes`, `accepts_missing`, `accepts_missing_in` and `rule`.
    remarks : list of str
        What the publisher should know, a line each.

    Raises
    ------
    ModelError
        When the model does not answer the same when it is asked again, or only one of its methods
        answers; where some features are categories, also when it raises on most records, or there
        are none.
    """
    newest = [row for row in newest if len(row) == envelope.features]
    if hasattr(classifier, "predict_proba") and envelope.threshold is None:
        envelope = replace(envelope, rule=None if _is_known(classifier) else "predict")
    with warnings.catch_warnings(), threadpool_limits(1):  # several are slower on few records
        warnings.simplefilter("ignore")
        with_probe = _with_records if "category" in (envelope.types or ()) else _with_probe
        envelope = with_probe(classifier, envelope, newest)
        envelope, of_nulls = _with_nulls(classifier, envelope)
        envelope, of_labels = _with_rule(classifier, envelope, _rows(envelope, newest))
    return envelope, of_nulls + of_labels


def record_limit(features: int) -> int:
    """Return on how many records a model of so many features is tried, at most."""
    return min(RECORDS, NUMBERS // features + 1)


def _with_rule(classifier: Any, envelope: Envelope, rows: Table) -> tuple[Envelope, list[str]]:
    """Compare the labels by the envelope with those by the other rule."""
    served, known = Model(envelope, classifier), _is_known(classifier)
    answers = _answers(served, rows)
    raised = [answer for answer in answers if isinstance(answer, str)]
    if envelope.probes and 2 * len(raised) > len(answers):  # a column in the wrong place
        raise ModelError(f"it raises on {len(raised)} of {len(answers)} records: {raised[0]}")
    if not known:
        _check_answers_again(served, rows, answers)
    if not hasattr(classifier, "predict_proba") or (known and envelope.threshold is not None):
        return envelope, []
    by_predict = replace(envelope, threshold=None, rule="predict")
    other = replace(envelope, rule=None) if envelope.rule else by_predict
    labels = [
        (answer[0], other_answer[0])
        for answer, other_answer in zip(
            answers, _answers(Model(other, classifier), rows), strict=False
        )
        if not isinstance(answer, str) and not isinstance(other_answer, str)
    ]
    differ = sum(label != other_label for label, other_label in labels)
    if known and not differ:
        return envelope, []
    if envelope.threshold is None:
        how = "its own predict decides the labels, not a probability above one half"
        envelope = by_predict
    else:
        how = f"a probability of {envelope.threshold:g} or more is label 1, not its own predict"
    return envelope, [f"{how}: these differ on {differ} of {len(labels)} records tried"]


def _check_answers_again(model: Model, rows: Table, answers: Sequence[Answer]) -> None:
    rows = rows[: len(answers)][::-1]
    again = _answers(model, rows, max(1, min(_ROWS, len(rows)) // 2))  # also among other records
    pairs = zip(reversed(answers), again, strict=False)
    if changed := sum(not model.agree(*pair) for pair in pairs):
        raise ModelError(
            f"asked again in another order, it answers {changed} of {len(again)} records otherwise;"
            " a prediction has to depend on its record alone: does it need a random_state?"
        )


def _is_known(classifier: Any) -> bool:
    while type(classifier) is Pipeline:
        classifier = classifier.steps[-1][1]
    return type(classifier) in _KNOWN


def _with_probe(classifier: Any, envelope: Envelope, newest: Table) -> Envelope:
    """Take a record that the model predicts as its probe, if it does not predict random numbers."""
    for row in (None, *_whole_first(newest)):
        found = replace(envelope, probe=row)
        if Model(found, classifier).predicts(probe(found)):
            return found
    if envelope.rule:
        _check_methods(classifier, envelope)
    return envelope


def _with_records(classifier: Any, envelope: Envelope, newest: Table) -> Envelope:
    """Take a few records that the model predicts as its probes; a category is no random number."""
    rows = _whole_first(newest)
    if not rows:
        raise ModelError(
            "no record on the data topic fits, and a model of categories is tried on some;"
            " send records first"
        )
    answers = Model(envelope, classifier).answers(rows)
    probes: list[list[Cell]] = []
    size = 0
    for row, answer in zip(rows, answers, strict=True):
        size += 0 if isinstance(answer, str) else len(msgspec.json.encode(row))
        if not isinstance(answer, str) and (not probes or size <= PROBE_BYTES):
            probes.append(row)
    if not probes:
        _check_methods(classifier, replace(envelope, probes=rows[:1]))
        raise ModelError(str(answers[0]))
    return replace(envelope, probes=probes[:PROBE_ROWS])


def _whole_first(newest: Table) -> list[Any]:
    return sorted(map(list, newest[:PROBES]), key=lambda row: None in row)


def _check_methods(classifier: Any, envelope: Envelope) -> None:
    """Check whether only one of `predict` and `predict_proba` raises."""
    rows = probe(envelope)
    try:
        Model(envelope, classifier).predict(rows)
    except ModelError as error:
        if Model(replace(envelope, rule=None), classifier).predicts(rows):
            raise ModelError(f"{error}; with a threshold, its probabilities decide") from None
        if Model(envelope, SimpleNamespace(predict=classifier.predict)).predicts(rows):
            raise ModelError(f"{error}; its predict can serve without predict_proba") from None


def _with_nulls(classifier: Any, envelope: Envelope) -> tuple[Envelope, list[str]]:
    """Find the features that may be null: all at once, else by halves."""
    model, row = Model(envelope, classifier), probe(envelope)[:1]
    waiting = [range(envelope.features)] if model.predicts(row) else []
    accepted: list[int] = []
    trials = 0
    while waiting and trials < NULL_TRIALS:
        trials += 1
        columns = waiting.pop()
        if model.predicts(_without(row, columns)):
            accepted += columns
        elif len(columns) > 1:
            middle = len(columns) // 2
            waiting += [columns[middle:], columns[:middle]]
    if trials == 1 and accepted:
        return replace(envelope, accepts_missing=True), []
    accepted = accepted[:NULLABLE]
    remark = f"null is accepted in {len(accepted)} of {envelope.features} features"
    if accepted and not model.predicts(_without(row, accepted)):
        remark += ", but not in all of these at once"
    if untried := sum(map(len, waiting)):
        remark += f"; {untried} were not tried"
    found = replace(envelope, accepts_missing_in=accepted or None)
    if found.probes and not Model(found, classifier).predicts(probe(found)):
        found = replace(found, probes=found.probes[:1])  # nulls that it takes only one at a time
    return found, [remark] if accepted or untried else []


def _without(rows: Table, columns: Sequence[int]) -> Table:
    found = [[*row] for row in rows]
    for row in found:
        for column in columns:
            row[column] = None
    return found


def _rows(envelope: Envelope, newest: Table) -> Table:
    """Return the probe and the newest records that would not be rejected for their nulls."""
    accepted = [row for row in newest if envelope.wrongly_null(row) is None]
    return [*probe(envelope), *accepted[: record_limit(envelope.features)]]


def _answers(model: Model, rows: Table, at_once: int = _ROWS) -> list[Answer]:
    """Return what a model answers within the time that there is."""
    end = time.monotonic() + SECONDS
    answers: list[Answer] = []
    for start in range(0, len(rows), at_once):
        if time.monotonic() > end:
            break
        answers += model.answers(rows[start : start + at_once], lambda: time.monotonic() > end)
    return answers
