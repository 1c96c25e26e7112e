"""Two models on the same records: their accuracies, and whether they differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kafka import KafkaConsumer
from scipy.stats import binomtest
from tqdm import tqdm

from modelgenerator.late_labels import with_late_labels
from modelgenerator.publish.newest import Found, newest_records
from modelgenerator.settings import Settings
from modelgenerator.verdicts import served_model
from stream import classifier
from stream.classifier import Model
from stream.model_topic import ModelTopic
from stream.models import ModelError
from stream.records import ModelInput, RecordError
from stream.service import Stop

BATCH = 5_000


def backtest(
    consumer: KafkaConsumer, candidate: Model, settings: Settings, count: int, stop: Stop
) -> list[str]:
    """Compare a model with the one being served, on records that neither was trained on.

    Parameters
    ----------
    count : int
        How many of the newest labelled records are taken, at most.

    Returns
    -------
    list of str
        The result, a line each.
    """
    found = newest_records(consumer, settings, count, stop)
    found = with_late_labels(consumer, settings, found, stop)
    labelled = [each for each in found if each.record.label is not None][-count:]
    lines, models = [], [("this model", candidate)]
    topic = ModelTopic(settings, consumer, stop, settings.trusted_keys)
    served = served_model(topic, consumer, settings, stop)
    if served is None:
        lines.append("no model is being served to compare with")
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
    marks = zip(*(marked(model, fresh) for _, model in models), strict=True)
    answered = [each for each in marks if None not in each]
    lines.append(
        f"backtest on {len(answered)} of the newest {len(labelled)} labelled records;"
        f" {len(labelled) - len(fresh)} left out as one of the models was trained on them,"
        f" {len(fresh) - len(answered)} as one of them does not take them"
    )
    lines += [may_flatter(name) for name, model in models if not model.envelope.trained_to]
    if not answered:
        return [*lines, "nothing to compare on; try again when there are newer records"]
    names, rights = [name for name, _ in models], [*zip(*answered, strict=True)]
    lines += map(score, names, rights)
    if len(rights) == 2:
        lines.append(difference(names[0], rights[0], names[1], rights[1]))
    return lines


def may_flatter(name: str) -> str:
    """Say of a model that it is not known what it was trained on, and what to do."""
    return (
        f"{name} does not say what it was trained on: if these records are among it, its figures"
        " are too high; name them with --trained-to (see python -m modelgenerator.labelled)"
    )


def marked(model: Model, found: Sequence[Found]) -> list[bool | None]:
    """Tell of each record whether the model predicts its label, ``None`` where it rejects it."""
    marks: list[bool | None] = []
    for start in tqdm(range(0, len(found), BATCH), disable=not sys.stderr.isatty(), leave=False):
        records = [_read(model, each) for each in found[start : start + BATCH]]
        answers = iter(model.answers([each.features for each in records if each]))
        for each in records:
            answer = next(answers) if each else "rejected"
            marks.append(None if not each or isinstance(answer, str) else answer[0] == each.label)
    return marks


def _read(model: Model, found: Found) -> ModelInput | None:
    """Return a record as the model takes it; ``None`` if that rejects it."""
    try:
        record = model.layout.read(found.record)
    except RecordError:
        return None
    return record if model.envelope.wrongly_null(record.features) is None else None


def score(name: str, right: Sequence[bool]) -> str:
    """Return the accuracy of a model with its 95 % interval.

    The interval is Wilson's, "Probable inference, the law of succession, and statistical
    inference", Journal of the American Statistical Association 22 (1927).
    """
    correct, n = sum(right), len(right)
    low, high = binomtest(correct, n).proportion_ci(method="wilson")
    return f"{name:<12} accuracy {correct / n:.4f}  95 % interval {low:.4f} to {high:.4f}"


def difference(name: str, right: Sequence[bool], other: str, other_right: Sequence[bool]) -> str:
    """Return on how many records only one of two models is right, and how likely by chance.

    The test is McNemar's, exact, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12 (1947): if the models are equally accurate, each
    of these records is as likely to be the one's as the other's.
    """
    only = sum(a and not b for a, b in zip(right, other_right, strict=True))
    only_other = sum(b and not a for a, b in zip(right, other_right, strict=True))
    p = binomtest(only, only + only_other).pvalue if only or only_other else 1.0
    return f"only {name} has {only} right, only {other} {only_other}: McNemar's exact p = {p:.4g}"
