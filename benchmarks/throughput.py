"""Throughput of a predictor on numbers, in this tree and in an older commit, and on categories.

All are measured in one run, in turns, on the same broker: the records and a logistic regression are
on their topics before a predictor starts. It is timed from its first to its last commit.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from benchmarks.late_labels import PARTITIONS, speed
from local.kafka import LocalKafka
from local.process import Process
from local.services import settings_in
from stream.arguments import argument_parser
from stream.records import Record, encode_record
from tests.services import ROOT
from tests.topics import Topics

FEATURES = 10
CATEGORIES = 3
PLANS = ["free", "basic", "pro", "team"]
NAMES = [f"x{index}" for index in range(FEATURES)]
TYPES = ["category"] * CATEGORIES + ["number"] * (FEATURES - CATEGORIES)

Row = list[Any]


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """Check out a commit into a folder of its own, and remove it afterwards."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "-q", "--detach", str(folder), commit], check=True)  # noqa: S603
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)  # noqa: S603


def rows(count: int, categories: bool) -> Iterator[Row]:
    """Yield the features of records; the same ones each time."""
    draw = random.Random(1)
    for _ in range(count):
        row: Row = [draw.gauss(0, 1) for _ in range(FEATURES)]
        if categories:
            row[:CATEGORIES] = draw.choices(PLANS, k=CATEGORIES)
        yield row


def write(topics: Topics, records: int, categories: bool) -> None:
    """Write records and a model of them."""
    for id, row in enumerate(rows(records, categories)):
        value = encode_record(Record(id, row, int(row[-1] > 0)))
        topics.producer.send(topics.settings.data_topic, value, partition=id % PARTITIONS)
    topics.producer.flush(60)
    sample = pd.DataFrame(rows(1_000, categories), columns=NAMES)
    said: dict[str, Any] = {"features": FEATURES}
    classifier: Any = LogisticRegression()
    if categories:
        encoder = (OneHotEncoder(handle_unknown="ignore"), NAMES[:CATEGORIES])
        columns = make_column_transformer(encoder, remainder="passthrough")
        classifier = make_pipeline(columns, classifier)
        probes = [*rows(4, categories)]
        said |= {"feature_names": NAMES, "types": TYPES, "probes": probes}
    else:
        sample = sample.to_numpy()
    classifier.fit(sample, [int(row[-1] > 0) for row in rows(1_000, categories)])
    topics.publish(1, classifier, **said)


def measure(tree: Path, topics: Topics, folder: Path, records: int) -> tuple[float, float]:
    """Return the records a second and µs a record of a predictor of a tree, in its own group."""
    group = f"bench{time.time_ns()}"
    env = topics.env | {"GROUP_ID": group, "PREDICTION_TOPIC": f"{group}.prediction"}
    env |= {"PATH": os.environ["PATH"], "LOG_FILE": str(folder / f"{group}.log")}
    command = [sys.executable, "-m", "predictor.app"]
    process = Process("predictor", command, folder / f"{group}.out", env, tree)
    try:
        return speed(topics.admin, group, process, records)
    finally:
        process.stop()


def main() -> None:
    """Measure all three in turns, and print the ratios of the medians."""
    parser = argument_parser("python -m benchmarks.throughput", __doc__)
    parser.add_argument("before", help="the older commit")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable()
    with (
        tempfile.TemporaryDirectory() as name,
        worktree(options.before, Path(name) / "before") as before,
        LocalKafka(Path(name) / "kafka") as broker,
        Topics(settings(Path(name), broker.bootstrap_servers, "numbers"), PARTITIONS) as numbers,
        Topics(settings(Path(name), broker.bootstrap_servers, "plans"), PARTITIONS) as plans,
    ):
        write(numbers, options.records, categories=False)
        write(plans, options.records, categories=True)
        runs = {
            f"numbers, {options.before}": (before, numbers),
            "numbers, this tree": (ROOT, numbers),
            "categories, this tree": (ROOT, plans),
        }
        found: dict[str, list[tuple[float, float]]] = {run: [] for run in runs}
        for _ in range(options.rounds):
            for run, (tree, topics) in runs.items():
                speed, cpu = measure(tree, topics, Path(name), options.records)
                found[run].append((speed, cpu))
                print(f"{run}: {speed:,.0f} records/s, {cpu:.0f} µs of CPU each", flush=True)
    old, new, mixed = (
        [median(each) for each in zip(*pairs, strict=True)] for pairs in found.values()
    )
    print(f"{options.before}: {told(old, old)}")
    print(f"this tree: {told(new, old)}")
    print(f"this tree, {CATEGORIES} of {FEATURES} features categories: {told(mixed, old)}")


def told(found: Sequence[float], before: Sequence[float]) -> str:
    """Say medians, and how many times those of before they are."""
    (speed, cpu), (speed_before, cpu_before) = found, before
    return (
        f"{speed:,.0f} records/s ({speed / speed_before:.2f}),"
        f" {cpu:.0f} µs of CPU each ({cpu / cpu_before:.2f})"
    )


def settings(folder: Path, servers: str, name: str) -> dict[str, str]:
    """Return the settings of a stream with topics of its own."""
    return settings_in(folder, servers) | {
        "DATA_TOPIC": f"{name}.data",
        "MODEL_TOPIC": f"{name}.model",
        "PREDICTION_TOPIC": f"{name}.prediction",
        "GROUP_ID": name,
    }


if __name__ == "__main__":
    main()
