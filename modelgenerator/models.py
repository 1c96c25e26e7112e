"""The models on the topics: list them, show, export or restore one, end a pin.

Run without a command, it lists them. Exit status: 0 when it is done, 1 when it cannot be done or no
broker answers, 2 for a wrong setting or option.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from tqdm import tqdm

from modelgenerator.by_hand import publish_again, unpin
from modelgenerator.catalogue import Catalogue, Row
from modelgenerator.model_topic import stored
from modelgenerator.settings import Settings
from modelgenerator.table import table
from stream import classifier, clients, reading
from stream.arguments import argument_parser
from stream.classifier import Model
from stream.command import command
from stream.deadlines import DeadlineExceeded
from stream.keys import KeyFileError, SigningKey, TrustedKeys, signing_key
from stream.models import ModelError
from stream.reading import newest_schema
from stream.records import RecordError, decode_prediction, decode_status
from stream.service import Fatal, Stop
from stream.topics import partition_counts

PUBLISH_SECONDS = 120.0
VALUE_CHARACTERS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = read_options(sys.argv[1:] if arguments is None else arguments)
    return command(Settings, partial(options.work, options))


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with status 2."""
    given = list(arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "list")
    return _parser().parse_args(given)


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser("python -m modelgenerator.models", __doc__)
    commands = parser.add_subparsers(required=True)

    def add(name: str, work: Any, help: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=help, description=help)
        found.set_defaults(work=work)
        if name not in ("list", "unpin"):
            found.add_argument("version", type=_count, help="as `list` shows it")
        return found

    listing = add("list", _list, "list the models (default)")
    listing.add_argument("--json", action="store_true", help="one array, a model an object")
    listing.add_argument("--last", type=_count, metavar="N", help="the N newest versions only")
    listing.add_argument(
        "--predictions",
        type=_count,
        metavar="N",
        help="count those among the N newest offsets of each partition, 0 for none; all by default",
    )
    add("show", _show, "print what a model is, and its parameters")
    export = add("export", _export, "write a model to a file, for joblib.load")
    export.add_argument("file", type=Path)
    export.add_argument("--force", action="store_true", help="overwrite the file")
    rollback = add("rollback", _rollback, "publish an older model again, and pin it")
    rollback.add_argument(
        "--force", action="store_true", help="even if predictors refused or barred it"
    )
    add("unpin", _unpin, "let the modelgenerator publish again")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


def _list(options: argparse.Namespace, settings: Settings) -> int:
    rows = catalogue(settings, options.predictions).rows()
    if options.last is not None:
        rows = rows[len(rows) - min(len(rows), options.last) :]
    if options.json:
        print(json.dumps([row.fields() for row in rows], indent=1))
        return 0
    print(table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int:
    row = _row(settings, options.version)
    fields = {name: value for name, value in row.fields().items() if value is not None}
    for name in ("on_topic", "records", "counted", "correct", "accuracy"):
        fields.pop(name, None)
    _print(fields)
    # Nothing of it has been unpickled so far.
    model = _load(settings, options.version)
    print()
    _print(parameters(model.classifier))
    return 0


def _export(options: argparse.Namespace, settings: Settings) -> int:
    path: Path = options.file
    if path.exists() and not options.force:
        raise Fatal(f"{path}: exists already; --force overwrites it")
    envelope, pickle = _stored(settings, options.version)
    write(path, pickle, options.force)
    print(f"wrote model {envelope.version} to {path}, bytes={len(pickle)} sha256={envelope.sha256}")
    print(f"it was made with scikit-learn {envelope.sklearn}; to load it runs code: joblib.load")
    return 0


def _rollback(options: argparse.Namespace, settings: Settings) -> int:
    row = _row(settings, options.version)
    if row.status in ("refused", "barred") and row.entry.whole and not options.force:
        raise Fatal(f"model {options.version} is {row.status}: {row.why}; --force takes it anyway")
    _load(settings, options.version)  # what a predictor would refuse is not published
    version = _published(
        lambda key, stop: publish_again(settings, options.version, key, stop), settings
    )
    print(f"model {version} restores {options.version} and is pinned until `unpin`")
    return 0


def _unpin(options: argparse.Namespace, settings: Settings) -> int:
    version = _published(lambda key, stop: unpin(settings, key, stop), settings)
    print(f"not pinned any more: model {version} is the one served so far")
    return 0


def catalogue(settings: Settings, predictions: int | None = None) -> Catalogue:
    """Read the catalogue from the topics; no model is unpickled.

    Parameters
    ----------
    settings : Settings
    predictions : int, optional
        How many of the newest predictions of each partition are read; all by default.

    Raises
    ------
    Fatal
        When there is no model topic.
    KafkaError
    """
    found = Catalogue(TrustedKeys(settings.trusted_keys), settings.model_max_bytes)
    topics = [settings.model_topic, settings.status_topic, settings.prediction_topic]
    with clients.admin(settings) as admin:
        counts = partition_counts(admin, topics)
    if settings.model_topic not in counts:
        raise Fatal(f"{settings.kafka_bootstrap_servers}: no topic {settings.model_topic}")
    with _consumer(settings) as consumer:
        for record in _records(consumer, settings.model_topic, 1):
            found.add_model(record.value, record.headers)
        for record in _records(consumer, settings.status_topic, counts.get(topics[1], 0)):
            with suppress(RecordError):
                found.add_status(decode_status(record.value))
        if predictions != 0:
            topic = settings.prediction_topic
            for record in _records(consumer, topic, counts.get(topic, 0), predictions):
                with suppress(RecordError):
                    found.add_prediction(decode_prediction(record.value))
    return found


def _records(
    consumer: KafkaConsumer, topic: str, partitions: int, last: int | None = None
) -> Iterator[Any]:
    """Yield the records of a topic, with a progress bar if this is a terminal."""
    places = [TopicPartition(topic, number) for number in range(partitions)]
    bounds = {place: reading.bounds(consumer, place) for place in places}
    if last is not None:
        bounds = {place: (max(start, end - last), end) for place, (start, end) in bounds.items()}
    total = sum(end - start for start, end in bounds.values())
    with tqdm(total=total, desc=topic, unit=" records", disable=None, leave=False) as progress:
        for place, (start, end) in bounds.items():
            before = start
            for record in reading.read_range(consumer, place, start, end, Stop()):
                yield record
                progress.update(record.offset + 1 - before)
                before = record.offset + 1


def _consumer(settings: Settings) -> KafkaConsumer:
    return clients.consumer(settings, max_poll_records=5_000)


def _row(settings: Settings, version: int) -> Row:
    """Return a version that is on the model topic; its predictions are not read."""
    rows = catalogue(settings, predictions=0).rows()
    for row in rows:
        if row.entry.version == version and row.entry.envelope is not None:
            return row
    there = [row.entry.version for row in rows if row.entry.envelope is not None]
    known = f"it has {there[0]} to {there[-1]}" if there else "it is empty"
    raise Fatal(f"{settings.model_topic}: no model {version}; {known}")


def _stored(settings: Settings, version: int) -> Any:
    _row(settings, version)
    with _consumer(settings) as consumer:
        return stored(consumer, settings, version, Stop())


def _load(settings: Settings, version: int) -> Model:
    """Return a model after every check that a predictor makes."""
    with _consumer(settings) as consumer:
        envelope, pickle = stored(consumer, settings, version, Stop())
        schema = newest_schema(consumer, settings, Stop())
    try:
        classifier.check(envelope, schema, None)
        return classifier.load(envelope, pickle)
    except ModelError as error:
        raise Fatal(f"model {version} cannot be loaded: {error}") from None


def _published(publish: Any, settings: Settings) -> Any:
    """Publish, but not for ever: a command is no service."""
    try:
        key: SigningKey = signing_key(settings.signing_key)
        stop = Stop()
        return stop.deadline(PUBLISH_SECONDS, lambda: publish(key, stop))
    except KeyFileError as error:
        raise Fatal(f"SIGNING_KEY: {error}") from None
    except DeadlineExceeded as error:
        raise Fatal(f"{error}; look at the list before you try again") from None


def write(path: Path, content: bytes, overwrite: bool) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    Fatal
        When it exists and is not to be overwritten.
    OSError
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if overwrite:
            Path(temporary).replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError:
        raise Fatal(f"{path}: exists already; --force overwrites it") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def parameters(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters, those of its steps included, as scikit-learn names them."""
    if not hasattr(estimator, "get_params"):
        return {}
    steps = estimator.get_params(deep=True)
    return {
        name: type(value).__name__ if hasattr(value, "get_params") else value
        for name, value in sorted(steps.items())
        if not _holds_estimators(value)
    }


def _holds_estimators(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(item, tuple) and any(hasattr(part, "get_params") for part in item)
        for item in value
    )


def _print(fields: dict[str, Any]) -> None:
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        text = value if isinstance(value, str) else " ".join(repr(value).split())
        if len(text) > VALUE_CHARACTERS:
            text = f"{text[: VALUE_CHARACTERS - 1]}…"
        print(f"{name:{width}}  {text}")


if __name__ == "__main__":
    sys.exit(main())
