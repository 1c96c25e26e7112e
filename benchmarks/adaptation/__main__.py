"""How well the models adapt: through Kafka, without it, and beside other stream learners.

Each run is one learner on one stream and seed. Runs through Kafka are two at a time, on topics of
their own, each at its rate; one at 200 records a second takes about half a core. A run that is done
has a file in build/adaptation/; a second start goes on with those that are missing. At the end,
report.md and a plot of each stream stand there too.

Settings of the modelgenerator and the predictor, such as RETRAIN_EVERY, are taken from the
environment.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.adaptation import report
from benchmarks.adaptation.loop import through_kafka
from benchmarks.adaptation.offline import LEARNERS, make_moa, without_kafka
from benchmarks.adaptation.runs import Result, Results, Run
from benchmarks.adaptation.streams import STREAMS
from local.kafka import LocalKafka
from modelgenerator.settings import Settings
from predictor.settings import PredictorSettings
from stream.arguments import argument_parser, whole_number
from stream.settings import StreamSettings
from tests.services import ROOT

FOLDER = ROOT / "build" / "adaptation"
FIRST_SEED, NEXT_SEED = 42, 1_000
LATE_STREAMS, LATE_SEEDS, DELAYS = ("sea", "agrawal"), 2, (1_000, 10_000)
OWN_FILES = {"signing_key", "trusted_keys", "predictor_secret", "log_file", "group_id"}


def main() -> int:
    """Run what is missing, then write the report; return the exit status."""
    options = arguments()
    runs = list(planned(options))
    if any(run.learner.startswith("moa") for run in runs) and (why := make_moa()):
        print(f"MOA's learners are left out, pip installs no capymoa: {why}", flush=True)
        runs = [run for run in runs if not run.learner.startswith("moa")]
    results = Results(FOLDER)
    missing = [run for run in runs if results.get(run) is None]
    print(f"{len(runs)} runs, {len(missing)} of them to do", flush=True)
    logging.disable()  # what matters of it is said here
    failed = complete(missing, options.side_by_side, results)
    write_report([found for run in runs if (found := results.get(run))])
    return int(failed > 0)


def arguments() -> argparse.Namespace:
    """Read the command line."""

    def names(known: Iterable[str]) -> Callable[[str], list[str]]:
        def read(text: str) -> list[str]:
            given = text.replace(",", " ").split()
            if not given or {*given} - {*known}:
                allowed = f"expected some of {', '.join(known)}, got {text!r}"
                raise argparse.ArgumentTypeError(allowed)
            return given

        return read

    learners = ["kafka", *LEARNERS]
    parser = argument_parser("python -m benchmarks.adaptation", __doc__)
    parser.add_argument("--streams", type=names(STREAMS), default=[*STREAMS], help="all by default")
    parser.add_argument("--learners", type=names(learners), default=learners, help="the same")
    parser.add_argument("--seeds", type=whole_number(1), default=4, help="how many; 4 by default")
    parser.add_argument("--rate", type=whole_number(1), default=200, help="records a second; 200")
    parser.add_argument("--side-by-side", type=whole_number(1), default=2, help="through Kafka; 2")
    parser.add_argument("--records", type=whole_number(1_000), help="only so many of each stream")
    return parser.parse_args()


def planned(options: argparse.Namespace) -> Iterator[Run]:
    """Yield all runs that are asked for."""
    fields = {*Settings.model_fields, *PredictorSettings.model_fields}
    own = fields - StreamSettings.model_fields.keys() - OWN_FILES
    settings = {
        name.upper(): os.environ[name.upper()] for name in own if name.upper() in os.environ
    }
    for number in range(options.seeds):
        for stream in options.streams:
            delays = DELAYS if stream in LATE_STREAMS and number < LATE_SEEDS else ()
            for delay in (0, *delays):
                for learner in options.learners:
                    seed = FIRST_SEED + number * NEXT_SEED
                    run = Run(learner, stream, seed, delay, options.records)
                    if learner == "kafka":
                        run = replace(run, rate=float(options.rate))
                    if learner in ("kafka", "offline", "six_windows"):
                        run = replace(run, settings=settings)
                    if delay < (options.records or sys.maxsize):
                        yield run


def complete(runs: Sequence[Run], side_by_side: int, results: Results) -> int:
    """Do the runs, those through Kafka while nothing else runs; return how many failed."""
    failed = 0
    kafka = [run for run in runs if run.learner == "kafka"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kafka:
            with LocalKafka(folder / "kafka") as broker:
                jobs = [
                    (run, through_kafka, (run, broker.bootstrap_servers, folder / str(run)))
                    for run in kafka
                ]
                for run in kafka:
                    (folder / str(run)).mkdir()
                failed += do(jobs, side_by_side, results)
    others = [run for run in runs if run.learner != "kafka"]
    return failed + do(
        [(run, without_kafka, (run,)) for run in others], os.cpu_count() or 1, results
    )


def do(
    jobs: Sequence[tuple[Run, Callable[..., dict[str, Any]], tuple[Any, ...]]],
    side_by_side: int,
    results: Results,
) -> int:
    """Do so many jobs at a time, each in a process of its own, and keep what comes of them."""
    failed = 0
    spawn = get_context("spawn")
    with ProcessPoolExecutor(side_by_side, spawn, max_tasks_per_child=1) as pool:
        futures = {pool.submit(work, *given): run for run, work, given in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            run = futures[future]
            if error := future.exception():
                failed += 1
                line = f"failed: {type(error).__name__}: {error}"
            else:
                results.put(run, future.result())
                line = f"accuracy {100 * future.result()['accuracy']:.2f}"
            print(f"{number} of {len(futures)}: {run} {line}", flush=True)
    return failed


def write_report(results: Sequence[Result]) -> None:
    """Write tables and plots of the results."""
    if not results:
        return
    (FOLDER / "report.md").write_text(report.tables(results))
    first = [each for each in results if not each.run.delay and each.run.seed == FIRST_SEED]
    for stream in dict.fromkeys(each.run.stream for each in first):
        path = FOLDER / f"{stream}.png"
        report.plot([each for each in first if each.run.stream == stream], path)
    print((FOLDER / "report.md").read_text(), f"written to {FOLDER}", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
