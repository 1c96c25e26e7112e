"""Signs and publishes a model that was trained anywhere, checked as a predictor checks it.

``python -m modelgenerator.publish model.joblib``, or from Python::

    from modelgenerator.publish import publish

    version = publish(model, threshold=0.3)

The model is pinned: the modelgenerator publishes nothing after it until
``python -m modelgenerator.models unpin``; ``--no-pin`` lets the next one take its place.

Exit status: 0 when it is published, 1 when it is not, with one line that says why, 2 for a wrong
setting or option.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle as pickles
import pickletools
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import msgspec
import numpy as np
import sklearn
from kafka import KafkaConsumer
from sklearn.exceptions import InconsistentVersionWarning
from tqdm import tqdm

from modelgenerator import publication
from modelgenerator.backtest import Score, compared
from modelgenerator.by_hand import own_key
from modelgenerator.by_position import by_position
from modelgenerator.model_topic import serving, stored
from modelgenerator.newest import Found, newest_records, width
from modelgenerator.publication import describe, final_step, pickled
from modelgenerator.settings import Settings
from stream import classifier, clients
from stream.arguments import argument_parser
from stream.classifier import Model
from stream.command import command
from stream.models import PART_BYTES, Envelope, ModelError, pack, unpack
from stream.reading import newest_schema
from stream.records import Schema
from stream.service import Fatal, Stop
from stream.settings import read

BACKTEST_RECORDS = 2_000
LOOKED_AT = 200
"""Latest records of each partition whose commonest width is the stream's, and how many of all of
them a model is tried on at most."""

LACKED = 100
"""First features that a model is tried without, one at a time."""

MESSAGE_BYTES = 1_000_000
"""What a broker takes as one message by default, with some room."""

BATCH = 5_000


class Stream(NamedTuple):
    """What a model has to fit: the schema, and the newest records."""

    schema: Schema | None
    newest: list[Found]

    @property
    def width(self) -> int | None:
        """The commonest number of features."""
        return width(self.newest)


def publish(
    model: Any,
    *,
    threshold: float | None = None,
    recipe: str = "by_hand",
    reason: str = "by hand",
    trained_on: int = 0,
    trained_to: Mapping[int, int] | None = None,
    pin: bool = True,
    settings: Settings | None = None,
) -> int:
    """Check, sign and publish a fitted classifier.

    Parameters
    ----------
    model : object
        Any fitted scikit-learn classifier or pipeline with the classes 0 and 1 (or booleans). It
        takes the features of a record in the order of the stream.
    threshold : float, optional
        The label is 1 where the probability of label 1 is not below it; without one, where that
        is above one half. A model that carries a threshold of its own keeps it.
    recipe, reason : str
        What the model is called, and why it is published.
    trained_on : int
        Number of records it was trained on, if that should be on record.
    trained_to : mapping of int to int, optional
        Where it was trained on records of the data topic: partition to the highest offset. Those
        records are predicted, but not counted.
    pin : bool
        Whether the modelgenerator publishes nothing after it until it is unpinned.
    settings : Settings, optional
        Read from the environment where none are given.

    Returns
    -------
    int
        The version.

    Raises
    ------
    ModelError
        Saying which check it did not pass; nothing is published then.
    Fatal
        When there is no key to sign with, or a topic is missing.
    KafkaError
        When no broker answers.
    """
    settings, stop = settings or read(Settings), Stop()
    consumer = clients.consumer(settings)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of feature names, which arrays do not have
            checked = _checked(
                model,
                sklearn.__version__,
                _stream(consumer, settings, stop),
                settings,
                stop,
                threshold=threshold,
                recipe=recipe,
                reason=reason,
                trained_on=trained_on,
                trained_to={str(p): offset for p, offset in (trained_to or {}).items()},
                pinned=pin,
            )
    finally:
        clients.close(consumer)
    return publication.publish(settings, *checked, own_key(settings), stop)


def _stream(consumer: KafkaConsumer, settings: Settings, stop: Stop) -> Stream:
    topics = {settings.data_topic, settings.schema_topic, settings.model_topic}
    missing = topics - consumer.topics()
    if missing:
        raise Fatal(
            f"{settings.kafka_bootstrap_servers}: no topic {', '.join(sorted(missing))};"
            " start the services first"
        )
    schema = newest_schema(consumer, settings, stop)
    return Stream(schema, newest_records(consumer, settings, LOOKED_AT, stop))


def _checked(
    model: Any, made_with: str, stream: Stream, settings: Settings, stop: Stop, **said: Any
) -> tuple[Envelope, bytes]:
    """Return envelope and pickle of a model that predictors will serve, as far as one can tell.

    Raises
    ------
    ModelError
    """
    classifier.check_classes(model)
    model = by_position(model)
    names = stream.schema.feature_names if stream.schema else None
    features = getattr(model, "n_features_in_", len(names) if names else stream.width)
    if features is None:
        raise ModelError("the model does not say how many features it takes, nor does the stream")
    if said["threshold"] is None:
        said["threshold"] = _own_threshold(model)
    envelope = replace(describe(model, features=int(features), **said), sklearn=made_with)
    if not _answers(model, envelope):
        envelope = _tried_on_a_record(model, envelope, stream.newest)
    try:
        pickle = pickled(model)
        foreign = any(a == "__main__" for _, a, _ in pickletools.genops(pickles.dumps(model)))
    except Exception as error:  # noqa: BLE001 - a foreign model may raise anything
        raise ModelError(f"cannot be pickled: {type(error).__name__}: {error}"[:300]) from None
    if foreign:
        raise ModelError(
            "it uses a class or function of __main__, the notebook or script, which predictors do"
            " not have; put it in a package that is installed there"
        )
    (message,) = pack(replace(envelope, version=1), b"", None)
    unpack(message.value)  # what a reader demands of the fields
    if len(message.value) + 4 * PART_BYTES // 3 > MESSAGE_BYTES:  # the share is in base64
        raise ModelError(f"envelope: {len(message.value)} bytes, too many for a message")
    classifier.check(envelope, stream.schema, stream.width)
    classifier.load_within(settings, stop, envelope, pickle)
    return envelope, pickle


def _answers(model: Any, envelope: Envelope) -> bool:
    try:
        Model(envelope, model).predict(classifier.probe(envelope))
    except ModelError:
        return False
    return True


def _tried_on_a_record(model: Any, envelope: Envelope, newest: Sequence[Found]) -> Envelope:
    """Have the model tried on the newest record that it answers, if there is one.

    Nulls are accepted where it answers that record without one of its features.
    """
    rows = (each.record.features for each in reversed(newest))
    for row in islice((row for row in rows if len(row) == envelope.features), LOOKED_AT):
        tried = replace(envelope, probe=list(row))
        if _answers(model, tried):
            lacking = ([*row[:i], None, *row[i + 1 :]] for i in range(min(len(row), LACKED)))
            missing = any(_answers(model, replace(envelope, probe=each)) for each in lacking)
            return replace(tried, accepts_missing=missing)
    return envelope


def _own_threshold(model: Any) -> float | None:
    """Return the threshold that scikit-learn's threshold classifiers carry, as the stream uses it.

    Raises
    ------
    ModelError
        When it is one of another kind.
    """
    final = final_step(model)
    threshold = getattr(final, "best_threshold_", getattr(final, "threshold", None))
    if not isinstance(threshold, (float, int)) or not hasattr(model, "predict_proba"):
        return None
    if getattr(final, "response_method", "auto") == "decision_function" or final.pos_label == 0:
        raise ModelError(
            f"the threshold of a {type(final).__name__} has to be one of the probability of label 1"
        )
    return float(threshold)


def _read(path: Path) -> tuple[Any, str]:
    """Load a file of joblib or pickle; return the model and the scikit-learn it was made with.

    Raises
    ------
    ModelError
    OSError
    """
    with path.open("rb") as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(file)
        except Exception as error:  # noqa: BLE001 - unpickling may raise anything
            what = f"{type(error).__name__}: {error}"[:300]
            raise ModelError(f"cannot be unpickled: {what}") from None
    versions = [
        found.message.original_sklearn_version
        for found in caught
        if isinstance(found.message, InconsistentVersionWarning)
    ]
    return model, versions[0] if versions else sklearn.__version__


def _backtest(
    consumer: KafkaConsumer, candidate: Model, settings: Settings, count: int, stop: Stop
) -> list[str]:
    """Replay the newest labelled records that neither model was trained on; return what to say."""
    with tqdm(unit=" records", disable=not sys.stderr.isatty(), leave=False) as progress:
        found = newest_records(consumer, settings, count, stop, progress.update)
    labelled = [each for each in found if each.record.label is not None][-count:]
    lines, models = [], [("this model", candidate)]
    served = serving(consumer, settings, stop)
    if served is None:
        lines.append("no model is being served to compare with")
    else:
        try:
            classifier.check(served, None, None)
            loaded = classifier.load(*stored(consumer, settings, served.version, stop))
            models.append((f"model {served.version}", loaded))
        except (ModelError, Fatal) as error:
            lines.append(f"model {served.version} is being served, but not here: {error}")
    fresh = [
        each
        for each in labelled
        if not any(m.envelope.trained_on_record(each.partition, each.offset) for _, m in models)
    ]
    fit = [each for each in fresh if all(_fits(each, model.envelope) for _, model in models)]
    lines.append(
        f"backtest on {len(fit)} of the newest {len(labelled)} labelled records;"
        f" {len(labelled) - len(fresh)} left out as one of the models was trained on them,"
        f" {len(fresh) - len(fit)} as one of them does not take them"
    )
    if not fit:
        return [*lines, "nothing to compare on; try again when there are newer records"]
    rights = [(name, _right(model, fit)) for name, model in models]
    if len(rights) == 1:
        ((name, right),) = rights
        return [*lines, str(Score(name, sum(right), len(right)))]
    (name, right), (other, other_right) = rights
    return [*lines, *compared(name, right, other, other_right)]


def _fits(found: Found, envelope: Envelope) -> bool:
    features = found.record.features
    return len(features) == envelope.features and (envelope.accepts_missing or None not in features)


def _right(model: Model, found: Sequence[Found]) -> list[bool]:
    right: list[bool] = []
    for start in tqdm(range(0, len(found), BATCH), disable=not sys.stderr.isatty(), leave=False):
        batch = [each.record for each in found[start : start + BATCH]]
        labels, _ = model.predict(np.array([each.features for each in batch], dtype=np.float64))
        right += [a == each.label for a, each in zip(labels, batch, strict=True)]
    return right


def _run(options: argparse.Namespace, settings: Settings) -> int:
    stop = Stop()
    try:
        key = None if options.dry_run else own_key(settings)
        consumer = clients.consumer(settings)
        try:
            envelope, pickle = _prepared(options, settings, consumer, stop)
        finally:
            clients.close(consumer)
    except ModelError as error:
        raise Fatal(f"{options.model}: not published: {error}") from None
    if key is None:
        shown = msgspec.json.encode(_shown(envelope, pickle))
        print(msgspec.json.format(shown, indent=2).decode())
        return 0
    version = publication.publish(settings, envelope, pickle, key, stop)
    print(f"published {options.model} as model {version} ({envelope.algorithm})")
    if envelope.pinned:
        print("pinned: nothing else is published until python -m modelgenerator.models unpin")
    return 0


def _prepared(
    options: argparse.Namespace, settings: Settings, consumer: KafkaConsumer, stop: Stop
) -> tuple[Envelope, bytes]:
    model, made_with = _read(options.model)
    envelope, pickle = _checked(
        model,
        made_with,
        _stream(consumer, settings, stop),
        settings,
        stop,
        threshold=options.threshold,
        recipe=options.recipe,
        reason=options.reason,
        trained_on=options.trained_on,
        trained_to=dict(options.trained_to),
        pinned=not options.no_pin,
    )
    if options.backtest:
        candidate = classifier.load(envelope, pickle)
        # On stderr with --dry-run, whose envelope may go to a program.
        out = sys.stderr if options.dry_run else sys.stdout
        print(*_backtest(consumer, candidate, settings, options.backtest, stop), sep="\n", file=out)
    return envelope, pickle


def _shown(envelope: Envelope, pickle: bytes) -> dict[str, Any]:
    """Return the envelope as it would be published, with sizes in place of the bytes."""
    return {
        **asdict(envelope),
        "version": None,  # given within the transaction
        "sha256": hashlib.sha256(pickle).hexdigest(),
        "parts": -(-len(pickle) // PART_BYTES),
        "bytes": len(pickle),
    }


def _place(text: str) -> tuple[str, int]:
    partition, offset = text.split(":")
    return str(int(partition)), int(offset)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m modelgenerator.publish", __doc__)
    add = parser.add_argument
    add("model", type=Path, help="fitted classifier or pipeline, written by joblib or pickle")
    add("--threshold", type=float, help="label 1 from this probability on, 0 to 1")
    add("--recipe", default="by_hand", metavar="NAME", help="what the model is called")
    add("--reason", default="by hand", metavar="TEXT", help="why it is published")
    add("--trained-on", type=int, default=0, metavar="N", help="records it was trained on")
    add(
        "--trained-to",
        type=_place,
        nargs="+",
        default=[],
        metavar="PARTITION:OFFSET",
        help="the highest offsets of the data topic that it was trained on; up to them, records"
        " are predicted, but not counted",
    )
    add("--no-pin", action="store_true", help="let the modelgenerator's next model replace it")
    add("--dry-run", action="store_true", help="check it, show the envelope, publish nothing")
    add(
        "--backtest",
        type=int,
        nargs="?",
        const=BACKTEST_RECORDS,
        metavar="RECORDS",
        help=f"first compare it with the model being served, on the newest RECORDS"
        f" ({BACKTEST_RECORDS}) labelled records of the data topic",
    )
    options = parser.parse_args(arguments)
    return command(Settings, partial(_run, options))


if __name__ == "__main__":
    sys.exit(main())
