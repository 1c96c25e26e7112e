"""The models on the topics: list them, show, report, export or restore one, end a pin.

Run without a command, it lists them. Exit status: 0 when it is done, 1 when it cannot be done, a
predictor has refused what was published, or no broker answers, 2 for a wrong setting or option.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from modelgenerator.models.table import described, silence, table
from modelgenerator.models.topics import Topics
from modelgenerator.publisher import NotPublished, Publisher
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from modelgenerator.verdicts import add_wait_options, print_verdict
from modelgenerator.whole_file import whole_file
from stream import clients
from stream.arguments import argument_parser, whole_number
from stream.command import command
from stream.deadlines import DeadlineExceeded
from stream.models import ModelError
from stream.quoting import one_line
from stream.service import Fatal, Stop

PUBLISH_SECONDS = 120.0
REPORTED = 1_000_000
"""Newest offsets of each partition among which a report looks for predictions, by default."""
VALUE_CHARACTERS = 200

Work = Callable[[argparse.Namespace, Topics], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = read_options(sys.argv[1:] if arguments is None else arguments)
    return command(Settings, partial(_run, options))


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with status 2."""
    parser = argument_parser("python -m modelgenerator.models", __doc__, Settings)
    commands = parser.add_subparsers(required=True)

    def add(name: str, work: Work, help: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=help, description=help)
        found.set_defaults(work=work)
        if name not in ("list", "report", "unpin"):
            found.add_argument("version", type=whole_number(0), help="as `list` shows it")
        return found

    listing = add("list", _list, "list the models (default)")
    listing.add_argument("--json", action="store_true", help="one array, a model an object")
    listing.add_argument(
        "--last", type=whole_number(0), metavar="N", help="the N newest versions only"
    )
    listing.add_argument(
        "--predictions",
        type=whole_number(0),
        metavar="N",
        help="count those among the N newest offsets of each partition, 0 for none; all by default",
    )
    add("show", _show, "print what a model is, and its parameters")
    report = add("report", _report, "write one HTML file: what a model is, and how good")
    report.add_argument(
        "version", type=_version_or_file, metavar="VERSION|FILE", help="or a model's file"
    )
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="by default model-VERSION.html, - for stdout"
    )
    report.add_argument("--force", action="store_true", help="overwrite the file")
    report.add_argument(
        "--on",
        type=whole_number(1),
        metavar="N",
        help="how good it is on the newest N labelled records; of a file, by default 2,000",
    )
    report.add_argument(
        "--predictions",
        type=whole_number(0),
        default=REPORTED,
        metavar="N",
        help=f"look among the N newest offsets of each partition ({REPORTED:,})",
    )
    export = add("export", _export, "write a model to a file, for joblib.load")
    export.add_argument("file", type=Path)
    export.add_argument("--force", action="store_true", help="overwrite the file")
    rollback = add("rollback", _rollback, "publish an older model again, and pin it")
    rollback.add_argument(
        "--force", action="store_true", help="even if predictors refused or barred it"
    )
    add_wait_options(rollback)
    add_wait_options(add("unpin", _unpin, "let the modelgenerator publish again"))
    given = list(arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "list")
    return parser.parse_args(given)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    work: Work = options.work
    with clients.closing(clients.consumer(settings, max_poll_records=5_000)) as consumer:
        try:
            work(options, Topics(settings, consumer, Stop()))
        except ModelError as error:
            raise Fatal(f"model {options.version} cannot be loaded: {error}") from None
    return 0


def _list(options: argparse.Namespace, topics: Topics) -> None:
    topics.listen()
    if options.predictions != 0:
        topics.count_predictions(options.predictions)
    rows = topics.catalogue.rows()
    if options.last is not None:
        rows = rows[len(rows) - min(len(rows), options.last) :]
    if options.json:
        print(json.dumps([row.as_json() for row in rows], indent=1))
    else:
        print(table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
        if rows and (line := silence(topics.catalogue.heard, time.time())):
            print(line)


def _show(options: argparse.Namespace, topics: Topics) -> None:
    row = topics.row(options.version)
    fields = {name: value for name, value in row.as_json().items() if value is not None}
    for name in ("on_topic", "records", "counted", "correct", "accuracy"):
        fields.pop(name, None)
    if types := described(row.envelope):
        fields["types"] = types
    _print(fields)
    # Nothing of it has been unpickled so far.
    model = topics.load(options.version)
    print()
    _print(parameters(model.classifier))


def _report(options: argparse.Namespace, topics: Topics) -> None:
    of_a_file = isinstance(options.version, Path)
    name = options.version.stem if of_a_file else f"model-{options.version}"
    path: Path = options.output or Path(f"{name}.html")
    if str(path) == "-":
        print(_reported(options, topics), end="")
        return
    with whole_file(path, options.force) as written:
        written.write_text(_reported(options, topics), encoding="utf-8")
    print(f"wrote the report of {options.version} to {path}")


def _reported(options: argparse.Namespace, topics: Topics) -> str:
    # It takes half a second, which the list need not wait for.
    from modelgenerator.models.report.reading import of_file, of_version

    if isinstance(options.version, Path):
        return of_file(topics, options.version, options.on)
    return of_version(topics, options.version, options.predictions, options.on)


def _version_or_file(text: str) -> int | Path:
    return whole_number(0)(text) if text.isdecimal() else Path(text)


def _export(options: argparse.Namespace, topics: Topics) -> None:
    path: Path = options.file
    with whole_file(path, options.force) as written:
        topics.row(options.version)
        envelope, pickle = topics.models.get(options.version)
        written.write_bytes(pickle)
    print(f"wrote model {envelope.version} to {path}, bytes={len(pickle)} sha256={envelope.sha256}")
    print(f"it was made with scikit-learn {envelope.sklearn}; to load it runs code: joblib.load")


def _rollback(options: argparse.Namespace, topics: Topics) -> None:
    row = topics.row(options.version)
    if row.status in ("refused", "barred") and row.whole and not options.force:
        raise Fatal(f"model {options.version} is {row.status}: {row.why}; --force takes it anyway")
    version = _published(topics, lambda publisher: publisher.rollback(options.version))
    print(f"model {version} restores {options.version} and is pinned until `unpin`")
    print_verdict(topics.consumer, topics.settings, version, options.wait)


def _unpin(options: argparse.Namespace, topics: Topics) -> None:
    version = _published(topics, Publisher.unpin)
    print(f"model {version} is not pinned: the modelgenerator's next model replaces it")
    print_verdict(topics.consumer, topics.settings, version, options.wait)


def _published(topics: Topics, publish: Callable[[Publisher], int]) -> int:
    """Publish within a time limit, unlike a service; return the version."""
    settings, stop = topics.settings, Stop()
    key = own_key(settings, make=False)
    publisher = Publisher(settings, key, stop, topics.consumer, topics.models)
    try:
        with closing(publisher):
            return stop.deadline(PUBLISH_SECONDS, lambda: publish(publisher))
    except NotPublished as error:
        raise Fatal(str(error)) from None
    except ModelError as error:
        raise Fatal(f"{settings.model_topic}: not published: {error}") from None
    except DeadlineExceeded as error:
        raise Fatal(f"{error}; look at the list before you try again") from None


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
        print(f"{name:{width}}  {one_line(text, VALUE_CHARACTERS)}")


if __name__ == "__main__":
    sys.exit(main())
