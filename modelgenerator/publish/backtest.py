"""Two models on the same records: their accuracies, and whether they differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from kafka import KafkaConsumer
from tqdm import tqdm

from modelgenerator.late_labels import with_late_labels
from modelgenerator.publish.newest import Found, newest_records
from modelgenerator.settings import Settings
from modelgenerator.verdicts import served_model
from quality.scores import Outcome, mcnemar, wilson
from stream import classifier
from stream.classifier import Model
from stream.model_topic import ModelTopic
from stream.models import ModelError
from stream.records import ModelInput, RecordError
from stream.service import Stop

BATCH = 5_000
BACKTEST_RECORDS = 2_000
"""How many labelled records are taken by default."""


class Backtest(NamedTuple):
    """What came of a backtest: in words, a line each, and each record with the model's outcome."""

    lines: list[str]
    records: list[tuple[Found, Outcome]]


def backtest(
    consumer: KafkaConsumer, candidate: Model, settings: Settings, count: int, stop: Stop
) -> Backtest:
    """Compare a model with the one being served, on records that neither was trained on.

    Parameters
    ----------
    count : int
        How many of the newest labelled records are taken, at most.
    """
    found = newest_records(consumer, settings, count, stop)
    found = with_late_labels(consumer, settings, found, stop)
    labelled = [each for each in found if each.record.label is not None][-count:]
    lines, models = [], [("this model", candidate)]
    topic = ModelTopic(settings, consumer, stop, settings.trusted_keys)
    served = served_model(topic, consumer, settings, stop)
    if served is None:
        lines.append("no model is being served to compare with")
    elif served.version == candidate.version:
        lines.append("this model is the one that is being served")
    else:
        try:
            classifier.check(served.envelope, None, None)
            loaded = classifier.load(*topic.get(served.version))
            models.append((f"model {served.version}", loaded))
        except ModelError as error:
            lines.append(f"model {served.version} is being served, but not here: {error}")
    fresh = [
        each
        for each in labelled
        if not any(m.envelope.trained_on_record(each.partition, each.offset) for _, m in models)
    ]
    given = zip(fresh, *(outcomes(model, fresh) for _, model in models), strict=True)
    answered = [each for each in given if None not in each]
    lines.append(
        f"backtest on {len(answered)} of the newest {len(labelled)} labelled records;"
        f" {len(labelled) - len(fresh)} left out as one of the models was trained on them,"
        f" {len(fresh) - len(answered)} as one of them does not take them"
    )
    lines += [may_flatter(name) for name, model in models if not model.envelope.trained_to]
    if not answered:
        lines.append("nothing to compare on; try again when there are newer records")
        return Backtest(lines, [])
    records, *of_models = zip(*answered, strict=True)
    rights = [[outcome.right for outcome in each] for each in of_models]
    names = [name for name, _ in models]
    lines += map(score, names, rights)
    if len(rights) == 2:
        lines.append(difference(names[0], rights[0], names[1], rights[1]))
    return Backtest(lines, [*zip(records, of_models[0], strict=True)])


def may_flatter(name: str) -> str:
    """Say of a model that it is not known what it was trained on, and what to do."""
    return (
        f"{name} does not say what it was trained on: if these records are among it, its figures"
        " are too high; name them with --trained-to (see python -m modelgenerator.labelled)"
    )


def outcomes(model: Model, found: Sequence[Found]) -> list[Outcome | None]:
    """Return what a model predicts of labelled records, ``None`` where it rejects one."""
    given: list[Outcome | None] = []
    before: dict[int, int] = {}  # partition to the label before
    for start in tqdm(range(0, len(found), BATCH), disable=not sys.stderr.isatty(), leave=False):
        part = found[start : start + BATCH]
        records = [_read(model, each) for each in part]
        answers = iter(model.answers([each.features for each in records if each]))
        for each, record in zip(part, records, strict=True):
            answer = next(answers) if record else "rejected"
            if not record or record.label is None or isinstance(answer, str):
                given.append(None)
                continue
            last, before[each.partition] = before.get(each.partition), record.label
            repeats = None if last is None else last == record.label
            given.append(Outcome(answer[0], record.label, answer[1], repeats))
    return given


def _read(model: Model, found: Found) -> ModelInput | None:
    """Return a record as the model takes it; ``None`` if that rejects it."""
    try:
        record = model.layout.read(found.record)
    except RecordError:
        return None
    return record if model.envelope.wrongly_null(record.features) is None else None


def score(name: str, right: Sequence[bool]) -> str:
    """Return the accuracy of a model with its 95 % interval."""
    correct, n = sum(right), len(right)
    low, high = wilson(correct, n) or (0.0, 1.0)
    return f"{name:<12} accuracy {correct / n:.4f}  95 % interval {low:.4f} to {high:.4f}"


def difference(name: str, right: Sequence[bool], other: str, other_right: Sequence[bool]) -> str:
    """Return on how many records only one of two models is right, and how likely by chance."""
    only = sum(a and not b for a, b in zip(right, other_right, strict=True))
    only_other = sum(b and not a for a, b in zip(right, other_right, strict=True))
    p = mcnemar(only, only_other)
    return f"only {name} has {only} right, only {other} {only_other}: McNemar's exact p = {p:.4g}"
