"""Check the invariants on the topics: ``python -m predictor.verify [--log FILE …] [--json]``.

Exit status: 0 when all hold, 1 when one does not or the topics cannot be read, 2 for a wrong
setting. A running system can be verified too: everything that is committed at the start is
checked, and what is written later is left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from predictor.settings import PredictorSettings
from predictor.verify.log_file import LogFile
from predictor.verify.report import Findings, Violation, report, summary, table
from predictor.verify.topics import Topics
from predictor.verify.walk import check_partition
from stream.arguments import argument_parser
from stream.command import command
from stream.quoting import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, print the result, and return the exit status."""
    parser = argument_parser("python -m predictor.verify", __doc__, PredictorSettings)
    parser.add_argument(
        "--log",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE",
        help="log files of predictors, to check too",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    return command(PredictorSettings, partial(_verify, options.log, options.json))


def _verify(paths: Sequence[Path], as_json: bool, settings: PredictorSettings) -> int:
    findings, violation = Findings(), None
    try:
        with ExitStack() as stack:
            logs = [LogFile(path, stack) for path in paths]
            progress = tqdm(unit=" records", disable=as_json or not sys.stderr.isatty())
            stack.enter_context(progress)
            topics = Topics(settings, stack, progress.update)
            progress.reset(total=sum(commit.offset for commit in topics.commits if commit))
            _check(topics, logs, findings)
    except Violation as first:
        violation = first
    found = report(findings, violation)
    if as_json:
        print(json.dumps(found))
    else:
        print(table(findings))
        print(one_line(f"not verified: {violation}") if violation else summary(found))
    return 0 if violation is None else 1


def _check(topics: Topics, logs: Sequence[LogFile], findings: Findings) -> None:
    for log in logs:
        log.check_lines(len(topics.commits))
    for number in range(len(topics.commits)):
        pending, pending_labels = (topics.pending(topic, number) for topic in topics.inputs)
        findings.pending += pending
        findings.pending_labels += pending_labels
        for topic in topics.inputs:
            findings.open += topics.open_transactions(topic, number)
        partition = topics.partition(number)
        if partition is None:
            continue
        lines = [log.lines(number) for log in logs]
        for output in check_partition(partition, topics.models, findings, lines):
            # Beside a running predictor, outputs go on to be written, and are committed by now.
            commit = topics.commit(number)
            if commit is None or not replace(partition, committed=commit).is_committed(output):
                expected = f"no output beyond the committed offset {partition.committed.offset}"
                found = f"one at offset {output.offset} of {output.topic}"
                raise Violation("I3", partition.data.topic, number, output.last, expected, found)


if __name__ == "__main__":
    sys.exit(main())
