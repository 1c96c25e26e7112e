"""Show how the stream does: quality in the last hour, lag, the model, what was refused.

It reads the topics alone, so it works wherever they can be reached. With ``--check``, it says for
each check whether it holds. Exit status: 0 when all do, 1 when one does not or the topics cannot be
read, 2 for a wrong setting or option.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from predictor.settings import PredictorSettings
from predictor.status import report
from predictor.status.checks import Check, check, seconds
from predictor.status.topics import Topics
from quality.report import window
from stream.arguments import argument_parser
from stream.command import command

WATCH_SECONDS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the status; return the exit status."""
    options = read_options(arguments)
    return command(PredictorSettings, partial(_run, options))


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with status 2."""
    parser = argument_parser("python -m predictor.status", __doc__, PredictorSettings)
    parser.add_argument(
        "--since",
        "--window",
        type=seconds,
        default="1h",
        metavar="TIME",
        help="how far back it looks, such as 30s, 10m, 1h or 7d (default: 1h)",
    )
    parser.add_argument(
        "--check",
        type=check,
        action="append",
        default=[],
        metavar="'accuracy>=0.8'",
        help="a metric, one of >=, <=, > and <, and a number; it may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--watch", action="store_true", help="show it again every two seconds")
    options = parser.parse_args(arguments)
    if options.watch and options.check:
        parser.error("argument --watch: not allowed with argument --check")
    return options


def _run(options: argparse.Namespace, settings: PredictorSettings) -> int:
    with ExitStack() as stack:
        topics = Topics(settings, options.since, stack)
        if options.check and not options.json:
            return _check(options.check, topics)
        while True:
            status = _status(topics, options.check)
            print(_shown(status, options), flush=True)
            if not options.watch:
                return 0 if all(each["holds"] for each in status["checks"]) else 1
            time.sleep(WATCH_SECONDS)


def _shown(status: dict[str, Any], options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(status)
    text = report.screen(status)
    if not options.watch:
        return text
    return f"\x1b[H\x1b[2J{text}" if sys.stdout.isatty() else f"{text}\n"


def _check(checks: Sequence[Check], topics: Topics) -> int:
    values = _values(topics)
    for each in checks:
        print(each.line(values))
    return 0 if all(each.holds(values) for each in checks) else 1


def _values(topics: Topics) -> dict[str, Any]:
    """Return what can be checked."""
    topics.update()
    found = window(topics.window, 1_000 * time.time(), topics.limited)
    return found | {"lag": report.counts(topics.standings())["lag"]}


def _status(topics: Topics, checks: Sequence[Check]) -> dict[str, Any]:
    topics.update()
    refusals, standings = topics.refusals(), topics.standings()
    topics.describe()
    return report.status(
        topics.quality,
        standings,
        1_000 * time.time(),
        topics.limited,
        refusals,
        topics.rejections,
        checks,
    )


if __name__ == "__main__":
    sys.exit(main())
