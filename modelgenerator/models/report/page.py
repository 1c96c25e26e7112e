"""A model's report as a page: what it is, how good it is, what served before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from estimators.vote import Vote
from modelgenerator.models.catalogue import Row
from modelgenerator.models.report.charts import calibration, over_time
from modelgenerator.models.report.figures import VALUES, Figures
from modelgenerator.models.report.markup import Markup, more, table, tag
from modelgenerator.models.table import described, size
from quality.scores import Scores, wilson
from stream.classifier import Model
from stream.models import Envelope
from stream.times import instant

BEFORE = 5
"""Models that served before it, which stand beside it."""

NAMED = 200
"""Features whose names are shown, at most."""

REASONS = {
    "first": "the first one since the modelgenerator started",
    "cadence": "enough labelled records had come since the model before",
    "alarm": "errors rose, perhaps a drift",
    "weights": "another recipe leads the vote",
    "archive": "a model of a former concept came back, or handed back to the vote",
    "rollback": "a person restored an older model",
    "unpin": "a person ended a pin",
}
"""What the first word of a reason says."""

METRICS = {
    "accuracy": "Accuracy", "majority": "Always the more frequent label",
    "no_change": "Always the label before", "precision": "Precision", "recall": "Recall",
    "f1": "F1", "mcc": "Matthews correlation", "roc_auc": "ROC AUC", "log_loss": "Log loss",
    "brier": "Brier score", "ece": "Calibration error (ECE)", "positive": "Rate of label 1",
    "predicted_positive": "Rate of predictions of 1",
}  # fmt: skip

STYLE = Markup("""
:root { color-scheme: light dark; --text: #1c2024; --soft: #5b6470; --line: #d5dae0;
  --page: #fff; --accent: #0b62c4; --band: #0b62c430; --mark: #b3400e }
@media screen and (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --soft: #a2abb5;
  --line: #3a424b; --page: #14181c; --accent: #6db3ff; --band: #6db3ff38; --mark: #ff9a66 } }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: auto; padding: 1rem }
h1 { margin: 0; line-height: 1.2 }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line) }
h1, p, td, th, li { overflow-wrap: anywhere }
.key { font-size: 1.15rem } .soft, caption, desc { color: var(--soft) }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .25rem }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600 } th[scope=row] { font-weight: normal; min-width: 6rem }
td, th { min-width: 9rem }
.number { text-align: right; white-space: nowrap; min-width: 4rem;
  padding-left: 1rem; padding-right: 0 }
strong { color: var(--mark) }
figure { margin: 1rem 0 } svg { width: 100%; max-width: 30rem; display: block }
svg text { font-size: 11px; fill: var(--soft) }
.grid { stroke: var(--line) } .dashed { stroke: var(--soft); stroke-dasharray: 4 3 }
.line { fill: none; stroke: var(--accent); stroke-width: 2 } .band { fill: var(--band) }
.dot { fill: var(--accent) } .interval { stroke: var(--accent) }
summary { cursor: pointer; color: var(--accent) }
@media print { main { max-width: none; padding: 0 } .wide { overflow: visible }
  h2, caption { break-after: avoid } figure, tr { break-inside: avoid } }
""")


def page(
    title: str,
    row: Row,
    model: Model | str,
    found: Figures,
    served: Sequence[Row] = (),
) -> str:
    """Return the report as one HTML file, without script and without addresses.

    Parameters
    ----------
    title : str
        What the model is called.
    row : Row
        What the topics say of it, with its envelope.
    model : Model or str
        The model itself, or why it was not loaded.
    served : sequence of Row
        All versions that predicted, by rising version.
    """
    assert row.envelope
    body = tag(
        "main",
        tag("h1", title),
        tag("p", *_summary(row), class_="soft"),
        tag("p", *_verdict(found.scores), class_="key"),
        tag("h2", "What it is"),
        *_what(row, row.envelope, model),
        tag("h2", "How good it is"),
        *_quality(found),
        *_before(row.version, served),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        tag("title", title),
        tag("style", STYLE),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _summary(row: Row) -> Iterator[object]:
    assert row.envelope
    pinned = ", pinned" if row.pinned else ""
    yield f"{row.envelope.algorithm}, {row.status}{pinned}"
    if row.why:
        yield f": {row.why}"


def _verdict(scores: Scores) -> Iterator[object]:
    if scores.accuracy is None:
        yield "No prediction of it was counted yet, so nothing is known of its quality."
        return
    yield f"Accuracy {_number(scores.accuracy)} (95 %: {_interval(scores.interval)})"
    yield f" on {scores.n:,} records; the better baseline has {_number(scores.baseline)}."


def _what(row: Row, envelope: Envelope, model: Model | str) -> Iterator[Markup]:
    vote = None
    if isinstance(model, Model) and isinstance(model.classifier, Vote):
        vote = model.classifier
    by_partition = sorted(envelope.trained_to.items(), key=lambda item: (len(item[0]), item[0]))
    to = ", ".join(f"{offset:,} of partition {number}" for number, offset in by_partition[:20])
    texts = envelope.negative, envelope.positive
    facts = {
        "Version": row.version,
        "Algorithm": envelope.algorithm,
        "Recipe": envelope.recipe,
        "Reason": _reason(envelope.reason),
        "Restores": envelope.restores and f"model {envelope.restores}",
        "Created": _clock(envelope.created),
        "Trained on": f"{envelope.trained_on:,} records" + (f", up to offset {to}" if to else ""),
        "Signed by": row.key,
        "Size": size(row.size),
        "SHA-256": envelope.sha256,
        "Label": _rule(envelope),
        "Labels": None if None in texts else f"0 is {texts[0]}, 1 is {texts[1]}",
        "Calibration": vote and _calibrated(vote),
        "Features": f"{envelope.features:,}: {described(envelope) or 'all numbers'}",
        "Missing features": _missing(envelope),
        "Made with": f"scikit-learn {envelope.sklearn}, numpy {envelope.numpy},"
        f" Python {envelope.python}",
    }
    rows = [(name, value) for name, value in facts.items() if value]
    yield table("Its envelope, and who signed it", ("What", "Is"), rows)
    yield from _members(envelope.standings or {}, vote)
    if isinstance(model, str):
        yield tag("p", f"It was not loaded, so what it holds is not known: {model}", class_="soft")
    if names := (envelope.feature_names or [])[:NAMED]:
        types = envelope.types or ["number"] * envelope.features
        named = zip(range(NAMED), names, types, strict=False)
        caption = f"{len(names):,} of {envelope.features:,}"
        yield more("Names of the features", table(caption, ("Position", "Name", "Type"), named))


def _members(standings: Mapping[str, float | None], vote: Vote | None) -> Iterator[Markup]:
    """Yield a table of those that vote, by falling weight, and of the other recipes."""
    weights = vote.weights if vote else {}
    names = dict.fromkeys([*sorted(weights, key=weights.__getitem__, reverse=True), *standings])
    rows = [
        (
            name,
            _kind(vote.members[name]) if vote and name in weights else "",
            _number(weights.get(name)),
            _number(standings.get(name)),
        )
        for name in names
    ]
    if rows:
        heads = ("Recipe", "Classifier", "Weight", "Standing")
        yield table("The recipes when it was published, test-then-train", heads, rows, numbers=2)


def _quality(found: Figures) -> Iterator[Markup]:
    scores = found.scores
    yield tag("ul", *(tag("li", line) for line in found.about))
    if not scores.n:
        return
    values = scores.as_json()
    rows = [
        (
            words,
            _number(values[name]),
            _interval(values[f"{name}_interval"]) if f"{name}_interval" in values else "",
        )
        for name, words in METRICS.items()
    ]
    caption = "Metrics, and the accuracy of two baselines on the same records"
    yield table(caption, ("Metric", "Value", "95 % interval"), rows, numbers=2)
    tn, fp, fn, tp = (f"{count:,}" for count in scores.confusion)
    matrix = [("0", tn, fp), ("1", fn, tp)]
    heads = ("Real label", "Predicted 0", "Predicted 1")
    yield table("Confusion matrix", heads, matrix, numbers=2)
    if bins := scores.calibration:
        yield tag("h2", "Calibration")
        yield tag("figure", calibration(bins))
        numbers = [
            (_number(bin.probability), _number(bin.positive), f"{bin.records:,}") for bin in bins
        ]
        heads = ("Probability", "Rate of label 1", "Records")
        yield more("As numbers", table("Bins of the probability", heads, numbers, numbers=2))
    yield tag("h2", "Over time")
    accuracy = scores.accuracy or 0.0
    if len(found.parts) > 1:
        yield tag("figure", over_time(found.parts, accuracy))
    in_time = [
        (_clock(instant(p.first_ms)), _clock(instant(p.last_ms)), *_rated(p.n, p.correct))
        for p in found.parts
    ]
    yield more(
        "As numbers",
        table(
            "By the time of the records",
            ("From", "To", "Records", "Accuracy", "95 % interval"),
            in_time,
            numbers=3,
        ),
    )
    yield tag("h2", "By category")
    yield tag("p", found.of_slices)
    if found.slices:
        yield table(
            f"The {VALUES} commonest values of each category; those first whose accuracy differs"
            " from that of all other records by more than chance",
            ("Category", "Value", "Accuracy is", "Records", "Accuracy", "95 % interval"),
            [
                (
                    each.feature,
                    tag("em", "missing") if each.value is None else each.value,
                    tag("strong", "different") if each.differs else "",
                    *_rated(each.n, each.correct),
                )
                for each in found.slices
            ],
            numbers=3,
        )


def _before(version: int, served: Sequence[Row]) -> Iterator[Markup]:
    after = {row.version: follower for row, follower in pairwise(served)}
    beside = [row for row in served if row.version <= version][-BEFORE - 1 :]
    yield tag("h2", "The models before it")
    if not any(row.version < version for row in beside):
        yield tag("p", "None that served is known.")
        return
    yield table(
        "Those that served last, and what ended them",
        ("Version", "Algorithm", "Ended by", "Predictions", "Counted", "Accuracy", "95 % interval"),
        [
            (
                f"{row.version}, this one" if row.version == version else row.version,
                row.envelope.algorithm if row.envelope else "not on the topic",
                _ended(row, after.get(row.version)),
                f"{row.records:,}",
                *_rated(row.counted, row.correct),
            )
            for row in beside
        ],
        numbers=4,
    )


def _ended(row: Row, follower: Row | None) -> str:
    if row.barred:
        return f"barred: {row.barred}"
    if follower is None:
        return row.status
    reason = follower.envelope.reason if follower.envelope else ""
    return f"model {follower.version}" + (f": {_reason(reason)}" if reason else "")


def _reason(reason: str) -> str:
    words = REASONS.get(reason.partition(" ")[0])
    return f"{words}: {reason}" if words else reason


def _rule(envelope: Envelope) -> str:
    if envelope.threshold is not None:
        return f"1 from a probability of {envelope.threshold:.6g} on"
    if envelope.rule:
        return "what its own predict says"
    return "1 above a probability of 0.5; of a model without probabilities, its own predict"


def _calibrated(vote: Vote) -> str:
    given = np.array([0.1, 0.5, 0.9])
    pairs = zip(given, vote.calibration(given), strict=True)
    became = ", ".join(f"{was:g} becomes {now:.3f}" for was, now in pairs)
    return f"a line through {len(vote.calibration.votes)} points: of the vote, {became}"


def _missing(envelope: Envelope) -> str:
    if envelope.accepts_missing:
        return "accepted in all features"
    return f"accepted in {len(envelope.accepts_missing_in or ()):,} of {envelope.features:,}"


def _kind(classifier: Any) -> str:
    while hasattr(classifier, "steps"):
        classifier = classifier.steps[-1][1]
    return type(classifier).__name__


def _rated(n: int, correct: int) -> tuple[str, str, str]:
    return f"{n:,}", _number(correct / n if n else None), _interval(wilson(correct, n))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(found: Sequence[float] | None) -> str:
    return "–" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"


def _clock(time: str) -> str:
    return f"{time[:19].replace('T', ' ')} UTC"
