from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from local.figures import Figures
from local.process import Process, leashed, stop
from modelgenerator.training import trainer
from quality.first_model import FIRST_MODEL
from stream.records import Label, Prediction, Record, encode_label, encode_record
from tests.services import ROOT, eventually, gone


def prediction(offset: int, **fields: object) -> Prediction:
    record = Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (0, offset))
    return replace(record, **fields)


def test_the_running_accuracy_is_that_of_all_partitions_together() -> None:
    figures = Figures()
    figures.predicted(prediction(0, n=10, correct=9))
    figures.predicted(prediction(0, n=30, correct=15, source=(1, 0)))
    assert figures.accuracy == pytest.approx(24 / 40)


def test_the_recent_accuracy_leaves_out_what_is_not_counted() -> None:
    figures = Figures()
    figures.predicted(prediction(0))
    figures.predicted(prediction(1, prediction=0))
    figures.predicted(prediction(2, prediction=0, seen=True))
    figures.predicted(prediction(3, label=None))
    assert figures.recent_accuracy == 0.5


def test_the_recent_accuracy_forgets_what_is_1000_predictions_ago() -> None:
    figures = Figures()
    for offset in range(500):
        figures.predicted(prediction(offset, prediction=0))
    for offset in range(500, 1_500):
        figures.predicted(prediction(offset))
    assert figures.recent_accuracy == 1.0


def test_a_version_that_takes_over_on_two_partitions_is_one_swap() -> None:
    figures = Figures()
    for partition, version in ((0, 3), (1, 3), (0, 4), (1, 3), (1, 4)):
        figures.predicted(prediction(0, model=version, source=(partition, 0)))
    assert (list(figures.first_ids), figures.swaps) == ([3, 4], 1)


def test_the_lag_counts_what_was_neither_predicted_nor_rejected() -> None:
    figures = Figures()
    figures.predicted(prediction(6))
    figures.reject((0, 7), "no reason")
    assert figures.lag({0: 10, 1: 5}) == 2 + 5


def test_the_rate_is_that_of_the_last_five_seconds() -> None:
    figures = Figures()
    figures.rate(0.0)
    for second in range(1, 11):
        for _ in range(100 if second <= 5 else 20):
            figures.predicted(prediction(0))
        rate = figures.rate(float(second))
    assert rate == pytest.approx(20.0)


def test_before_the_first_model_the_line_says_how_many_labelled_records_it_still_needs() -> None:
    figures = Figures()
    assert FIRST_MODEL == trainer.FIRST_MODEL
    assert figures.line(0.0, {0: 0}) == (
        "waiting for the first model, 0 of 200 labelled records so far, 0 rejected"
    )
    for number in range(57):
        figures.written(encode_record(Record(number, [1.0], 1)))
    figures.written(encode_record(Record(57, [1.0])))
    figures.written(b"not json")
    figures.reject((0, 58), "value: not JSON")
    assert figures.line(0.0, {0: 59}) == (
        "waiting for the first model, 57 of 200 labelled records so far, none labelled 0,"
        " 1 without a label, 1 rejected"
    )
    figures.written(encode_record(Record(59, [1.0], 0)))
    assert "58 of 200 labelled records so far, 1 without" in figures.line(0.0, {0: 60})


def test_labels_that_are_texts_count_before_the_first_model_whatever_they_mean() -> None:
    figures = Figures()
    figures.written(encode_record(Record(0, ["pro"], "yes")))
    figures.written(encode_record(Record(1, {"plan": "pro"}, True)))
    figures.written(encode_record(Record(2, ["pro"])))
    assert figures.line(0.0, {0: 3}) == (
        "waiting for the first model, 2 of 200 labelled records so far, 1 without a label,"
        " 0 rejected"
    )
    figures.labelled(encode_label(Label("no", 2)))
    assert figures.line(0.0, {0: 3}) == (
        "waiting for the first model, 3 of 200 labelled records so far, 0 rejected"
    )


def test_the_line_says_why_nothing_is_counted_and_why_nothing_comes() -> None:
    figures = Figures()
    figures.rate(0.0)
    figures.predicted(prediction(0, seen=True, n=0, correct=0))
    assert figures.line(1.0, {0: 1}) == (
        "1/s, accuracy –, last 1,000 –, model 1, 0 swaps, 0 rejected, lag 0,"
        " 1 not counted: their model was trained on the record"
    )
    figures.predicted(prediction(1))
    assert figures.line(10.0, {0: 2}).startswith("0.1/s, accuracy 1.0000, last 1,000 1.0000")
    figures.line(20.0, {0: 2})
    assert figures.line(30.0, {0: 2}).endswith("lag 0, no new records")
    assert figures.line(40.0, {0: 5}).startswith("0.0/s, ")
    assert figures.line(50.0, {0: 5}).endswith("lag 3, no new predictions")


def test_the_line_shows_what_would_be_right_without_a_model_beside_the_recent_accuracy() -> None:
    figures = Figures()
    for offset in range(10):
        figures.predicted(prediction(offset, label=int(offset < 6)))
    assert ", last 1,000 0.6000 (baseline 0.8889), model 1" in figures.line(0.0, {0: 10})


def test_on_a_terminal_the_line_has_a_curve_of_the_accuracy_of_the_last_minute() -> None:
    figures = Figures()
    figures.predicted(prediction(0, prediction=0), int(1_000 * time.time()) - 30_000)
    figures.predicted(prediction(1))
    (curve,) = re.findall(r" \(baseline 1.0000\) ([ ▁█]{16}), ", figures.line(0.0, {0: 2}, True))
    assert curve.split() == ["▁", "█"]
    assert "▁" not in figures.line(0.0, {0: 2})


def test_the_report_says_where_models_swapped_and_drifts_were() -> None:
    figures = Figures()
    for offset in range(25):
        figures.predicted(prediction(offset, model=1 + offset // 10))
    figures.reject((0, 25), "label: expected 0 or 1")
    assert figures.report(drift_every=8) == [
        "25 predictions, 25 of them counted",
        "accuracy 1.0000, last 1,000 1.0000",
        "without a model: the commoner label 1.0000, the label before 1.0000",
        "1 rejected, 1 of them: label: expected 0 or 1",
        "first model: 1 at id 0; 2 swaps: 2 at id 10, 3 at id 20",
        "3 drifts: at id 8, at id 16, at id 24",
    ]


def test_the_report_says_why_nothing_was_counted() -> None:
    figures = Figures()
    figures.predicted(prediction(0, seen=True, n=0, correct=0))
    figures.predicted(prediction(1, label=None, n=0, correct=0))
    assert figures.report()[:4] == [
        "2 predictions, 0 of them counted",
        "1 not counted: their model was trained on the record",
        "1 not counted: the record has no label",
        "accuracy –, last 1,000 – (nothing was counted)",
    ]


def late(offset: int, **fields: object) -> Prediction:
    return prediction(offset, outcome="labelled", labelled=(0, offset), delay=5.0, **fields)


def test_labels_that_come_later_are_counted_when_they_come_and_give_coverage_and_delay() -> None:
    figures = Figures()
    for offset in range(10):
        figures.predicted(prediction(offset, label=None, n=0, correct=0, seen=offset < 2))
    assert "coverage" not in figures.line(0.0, {0: 10})
    figures.predicted(late(0, n=0, correct=0, seen=True))
    for offset in range(2, 6):
        figures.predicted(late(offset, n=offset - 1, correct=offset - 2, prediction=offset > 2))
    figures.predicted(prediction(2, outcome="revised", labelled=(0, 9), n=4, correct=4, label=0))
    figures.predicted(prediction(6, outcome="assumed", label=0, n=4, correct=4))
    assert figures.predictions == 10
    assert figures.lag({0: 10}) == 0
    assert ", coverage 0.5000, label delay 5.0 s (95 %: 5.0 s)" in figures.line(0.0, {0: 10})
    assert figures.report() == [
        "10 predictions, 4 of them counted",
        "2 not counted: their model was trained on the record",
        "4 not counted: the record has no label",
        "accuracy 1.0000, last 1,000 0.7500",
        "without a model: the commoner label 1.0000, the label before 1.0000",
        "coverage 0.5000: 5 of 10 predictions have met their label, after 5.0 s (95 %: 5.0 s)",
        "assumed labels: 1, counted apart",
        "first model: 1 at id 0; 0 swaps",
    ]


def test_before_the_first_model_labels_that_come_later_count_too() -> None:
    figures = Figures()
    for number in range(57):
        figures.written(encode_record(Record(number, [1.0])))
        figures.labelled(encode_label(Label(number % 2, id=number)))
    figures.labelled(b"not json")
    assert "57 of 200 labelled records so far, 0 rejected" in figures.line(0.0, {0: 57})


def test_the_report_names_the_latest_20_swaps() -> None:
    figures = Figures()
    for offset in range(30):
        figures.predicted(prediction(offset, model=offset))
    line = next(line for line in figures.report() if "swaps" in line)
    assert line.startswith("first model: 0 at id 0; 29 swaps: …, 10 at id 10, 11 at id 11")


def test_a_process_that_handles_sigterm_ends_with_it(tmp_path: Path) -> None:
    process = Process("sleep", ["sleep", "60"], tmp_path / "log")
    assert process.stop() == -signal.SIGTERM


def test_processes_that_ignore_sigterm_are_killed_together(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, lambda *_: None); print(1, flush=True)\n"
    code += "while True: time.sleep(1)"
    processes = [
        Process(str(n), [sys.executable, "-c", code], tmp_path / f"{n}.log") for n in range(2)
    ]
    eventually(lambda: all(process.log() for process in processes))
    assert stop(processes, seconds=0.2) == [-signal.SIGKILL] * 2


def test_a_command_does_not_outlive_an_owner_that_is_killed() -> None:
    code = (
        "import subprocess, sys, time; from local.process import leashed\n"
        "child = subprocess.Popen(leashed(['sleep', '60']), stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        leashed([sys.executable, "-c", code]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        assert not gone(pid)
        owner.kill()
        eventually(lambda: gone(pid), 60, f"process {pid} is still there")
