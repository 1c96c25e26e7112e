"""Signs and publishes a model from a file, after the checks that a predictor makes.

Then waits until a predictor says what it does with the model.

Exit status: 0 when it is published, 1 when it is not, or a predictor has refused it, with one line
that says why, 2 for a wrong setting or option.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from modelgenerator.envelope import check, highest_offsets
from modelgenerator.labelled.tables import TableError, trained_to
from modelgenerator.publish.backtest import BACKTEST_RECORDS, backtest
from modelgenerator.publish.checks import prepared
from modelgenerator.publish.model_files import load
from modelgenerator.publish.newest import read_stream
from modelgenerator.publisher import NotPublished, Publisher
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from modelgenerator.verdicts import add_wait_options, print_verdict
from stream import clients
from stream.arguments import argument_parser, whole_number
from stream.command import command
from stream.models import PART_BYTES, Envelope, ModelError
from stream.service import Fatal, Stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m modelgenerator.publish", __doc__, Settings)
    add = parser.add_argument
    add("model", type=Path, help="fitted classifier or pipeline, written by joblib or pickle")
    add("--threshold", type=_threshold, help="label 1 from this probability on, 0 to 1")
    add("--recipe", default="by_hand", metavar="NAME", help="what the model is called")
    add("--reason", default="by hand", metavar="TEXT", help="why it is published")
    add(
        "--trained-on",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="records it was trained on",
    )
    add(
        "--trained-to",
        type=_trained_to,
        nargs="+",
        default=[],
        metavar="FILE or PARTITION:OFFSET",
        help="what it was trained on: a file of python -m modelgenerator.labelled, or the highest"
        " offsets of the data topic; up to them, records are predicted, but not counted",
    )
    add("--no-pin", action="store_true", help="let the modelgenerator's next model replace it")
    add("--dry-run", action="store_true", help="check it, show the envelope, publish nothing")
    add(
        "--backtest",
        type=whole_number(1),
        nargs="?",
        const=BACKTEST_RECORDS,
        metavar="RECORDS",
        help=f"first compare it with the model being served, on the newest RECORDS"
        f" ({BACKTEST_RECORDS}) labelled records of the data topic",
    )
    add_wait_options(parser)
    options = parser.parse_args(arguments)
    return command(Settings, partial(_run, options))


def _threshold(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (number := float(text)) <= 1:
            return number
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")


def _trained_to(text: str) -> dict[str, int]:
    if place := re.fullmatch(r"(\d+):(\d+)", text, re.ASCII):
        return {str(int(place[1])): int(place[2])}
    try:
        return trained_to(Path(text))
    except (TableError, OSError) as error:
        raise argparse.ArgumentTypeError(
            f"neither PARTITION:OFFSET nor a table of records: {error}"
        ) from None


def _run(options: argparse.Namespace, settings: Settings) -> int:
    try:
        _publish(options, settings)
    except (ModelError, NotPublished) as error:
        raise Fatal(f"{options.model}: not published: {error}") from None
    return 0


def _publish(options: argparse.Namespace, settings: Settings) -> None:
    stop = Stop()
    key = None if options.dry_run else own_key(settings, make=False)
    with clients.closing(clients.consumer(settings)) as consumer:
        model, made_with = load(options.model)
        stream = read_stream(consumer, settings, stop)
        envelope, pickle, remarks = prepared(
            model,
            made_with,
            stream,
            threshold=options.threshold,
            recipe=options.recipe,
            reason=options.reason,
            trained_on=options.trained_on,
            trained_to=highest_offsets(
                item for each in options.trained_to for item in each.items()
            ),
            pinned=not options.no_pin,
        )
        # On stderr with --dry-run, whose envelope may go to a program.
        out = sys.stderr if options.dry_run else sys.stdout
        print(*remarks, sep="\n", end="\n" * bool(remarks), file=out)
        if options.backtest or options.dry_run:
            candidate = check(settings, envelope, pickle, stream.schema, stop)
        if options.backtest:
            found = backtest(consumer, candidate, settings, options.backtest, stop)
            print(*found.lines, sep="\n", file=out)
        if key is None:
            shown = msgspec.json.encode(_shown(envelope, pickle))
            print(msgspec.json.format(shown, indent=2).decode())
            return
        with closing(Publisher(settings, key, stop, consumer)) as publisher:
            version = publisher.publish(envelope, pickle)
        print(f"published {options.model} as model {version} ({envelope.algorithm})")
        if envelope.pinned:
            print("pinned: nothing else is published until python -m modelgenerator.models unpin")
        print_verdict(consumer, settings, version, options.wait)


def _shown(envelope: Envelope, pickle: bytes) -> dict[str, Any]:
    """Return the envelope as it would be published, with sizes in place of the bytes."""
    return {
        **asdict(envelope),
        "version": None,  # given within the transaction
        "sha256": hashlib.sha256(pickle).hexdigest(),
        "parts": -(-len(pickle) // PART_BYTES),
        "bytes": len(pickle),
    }


if __name__ == "__main__":
    sys.exit(main())
