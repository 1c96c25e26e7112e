from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.adaptation import metrics, report
from benchmarks.adaptation.__main__ import planned
from benchmarks.adaptation.loop import found as found_through_kafka
from benchmarks.adaptation.offline import LEARNERS
from benchmarks.adaptation.runs import Result, Results, Run, figures
from benchmarks.adaptation.streams import STREAMS, Stream, make
from stream.models import Envelope
from stream.records import Prediction, Schema
from tests.unit.classifiers import envelope


def two_concepts(records: int = 20_000, drift: int = 10_000) -> Stream:
    """Return a stream whose one feature is the label, and its contrary after a drift."""
    labels = [i % 2 for i in range(records)]
    rows: list[list[Any]] = [
        [float(label if i < drift else 1 - label)] for i, label in enumerate(labels)
    ]
    return Stream(Schema(["x"]), rows, labels, [(0, "same"), (drift, "contrary")])


def result(learner: str, right: np.ndarray[Any, Any], stream: Stream, **run: Any) -> Result:
    predictions = {
        i: stream.labels[i] if right[i] else 1 - stream.labels[i]
        for i in range(len(right))
        if np.isfinite(right[i])
    }
    found = figures(stream, predictions) | {"cpu": {"all": 0.25}}
    return Result(Run(learner, "sea", 42, **run), found)


def test_extra_errors_are_those_above_what_the_best_learner_makes_at_the_end() -> None:
    right = np.ones(20_000)
    right[10_000:10_300] = 0
    assert metrics.extra_errors(right, 10_000, best=0.0) == 300
    assert metrics.extra_errors(right, 10_000, best=0.02) == 200


def test_extra_errors_leave_out_what_does_not_count() -> None:
    right = np.ones(20_000)
    right[10_000:10_300] = 0
    right[10_100:12_600] = np.nan
    assert metrics.extra_errors(right, 10_000, best=0.02) == 100 - 0.02 * 2_500


def test_a_run_that_ends_soon_after_a_drift_says_nothing_of_it() -> None:
    assert metrics.extra_errors(np.ones(14_999), 10_000, best=0.0) is None


def test_the_best_learner_of_each_concept_is_what_extra_errors_are_measured_against() -> None:
    stream, slow, never = two_concepts(), np.ones(20_000), np.zeros(20_000)
    slow[10_000:11_000] = 0  # and right at the end of the concept
    never[:10_000] = 1
    results = [result("offline", slow, stream), result("majority", never, stream)]
    best = report.Best(results)
    assert [best.extra_errors(each, revisits=False) for each in results] == [1_000, 5_000]
    assert best.extra_errors(results[0], revisits=True) is None


def test_only_a_drift_to_a_former_concept_is_a_revisit() -> None:
    stream = replace(two_concepts(30_000), concepts=[(0, "a"), (10_000, "b"), (20_000, "a")])
    right = np.ones(30_000)
    right[10_000:10_400] = right[20_000:20_100] = 0
    run = result("offline", right, stream)
    best = report.Best([run])
    assert best.extra_errors(run, revisits=False) == 250
    assert best.extra_errors(run, revisits=True) == 100


def test_lateness_is_the_records_between_the_last_trained_on_and_the_first_predicted() -> None:
    assert metrics.lateness({1: 200, 3: 500}, {1: 199, 2: 299, 3: 449}) == [0, 50]


@pytest.mark.parametrize(
    ("probabilities", "labels", "error"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], 0.0),
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1], 0.5),
        ([0.7, 0.7, 0.7, 0.7], [1, 0, 0, 1], 0.2),
        ([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 1], 0.25),  # gaps of 0.1 and 0.4, two records each
        ([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 0], 0.1),  # too low and too high do not cancel
        ([0.02, 0.04], [1, 0], 0.47),  # one bin: half of them are 1, 0.03 was said
    ],
)
def test_the_calibration_error_is_the_mean_gap_of_the_bins(
    probabilities: list[float], labels: list[int], error: float
) -> None:
    assert metrics.calibration_error(np.array(probabilities), labels) == pytest.approx(error)


def test_the_brier_score_is_the_mean_squared_difference() -> None:
    assert metrics.brier(np.array([1.0, 0.5, 0.0, 0.8]), [1, 1, 1, 0]) == pytest.approx(
        (0 + 0.25 + 1 + 0.64) / 4
    )


def test_records_near_the_beginning_of_a_concept_are_not_away_from_drifts() -> None:
    away = metrics.settled(20_000, [10_000])
    assert np.flatnonzero(away).tolist() == [*range(5_000, 10_000), *range(15_000, 20_000)]


def test_the_rolling_accuracy_is_over_the_latest_records_that_count() -> None:
    right = np.array([np.nan, 1, 1, 0, 0, np.nan, np.nan])
    shown = metrics.rolling(right, 2)
    assert np.isnan(shown[[0, 6]]).all()
    assert shown[1:6].tolist() == [1, 1, 0.5, 0, 0]


def said(id: int, prediction: int, label: int, model: int, seen: bool = False) -> Prediction:
    return Prediction(id, prediction, float(prediction), label, 0, 0, model, (0, id), seen)


def test_the_figures_of_the_loop_are_those_of_its_predictions_and_envelopes() -> None:
    stream = two_concepts(8)
    predictions = {
        id: said(id, 1 - label if id in (5, 6) else label, label, 1 + id // 4, seen=id < 2)
        for id, label in enumerate(stream.labels)
    }
    published: Mapping[int, Envelope] = {
        version: envelope(version, trained_to={"0": trained_to}, reason=reason)
        for version, trained_to, reason in ((1, 1, "first"), (2, 2, "cadence"), (3, 7, "alarm x"))
    }
    found = found_through_kafka(stream, predictions, dict(published))
    assert found["right"] == "..111001"
    assert found["accuracy"] == 4 / 6
    assert found["cold_start"] == found["not_counted"] == 2
    assert found["published"] == 3
    assert found["reasons"] == {"first": 1, "cadence": 1, "alarm": 1}
    assert [swap[:2] for swap in found["swaps"]] == [[4, 2]]
    assert found["lateness"] == 1


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_for_its_seed_alone(name: str) -> None:
    stream = make(name, 42, 2_000)
    assert stream == make(name, 42, 2_000)
    assert stream.rows != make(name, 43, 2_000).rows
    assert {*stream.labels} == {0, 1}
    assert {len(row) for row in stream.rows} == {len(stream.schema.feature_names)}
    assert stream.concepts[0][0] == 0


def test_drifts_are_where_a_stream_says() -> None:
    stream = make("customers", 42)
    assert stream.drifts == [15_000, 30_000, 45_000]
    assert make("customers", 42, 30_000).drifts == [15_000]


@pytest.mark.parametrize("learner", ["offline", "no_change", "majority", "river_logistic"])
def test_a_learner_is_tested_on_a_record_before_its_label_is_known(learner: str) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=1_500).tolist()
    rows: list[list[Any]] = [[value] for value in draw.normal(size=1_500).tolist()]
    noise = Stream(Schema(["x"]), rows, labels, [(0, "")])
    found = LEARNERS[learner](noise, Run(learner, "noise", 0))
    assert 0.44 < found["accuracy"] < 0.56  # nothing can be learnt of it


def test_a_label_that_comes_late_is_not_known_before() -> None:
    stream = two_concepts(4_000, drift=2_000)
    found = LEARNERS["no_change"](stream, Run("no_change", "sea", 0, delay=1))
    assert found["accuracy"] == pytest.approx(1.0, abs=0.001)  # 0, 1, 0, 1: the last but one
    slow = LEARNERS["river_logistic"](stream, Run("river_logistic", "sea", 0, delay=500))
    assert slow["right"][2_000:2_500] == "0" * 500


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    stream, results = two_concepts(100), Results(tmp_path)
    run = Run("kafka", "sea", 42, rate=200.0, settings={"WINDOW": "500"})
    assert results.get(run) is None
    results.put(run, figures(stream, dict.fromkeys(range(50), 0)))
    kept = results.get(run)
    assert kept is not None
    assert kept.right[:4].tolist() == [1, 0, 1, 0]
    assert np.isnan(kept.right[50:]).all()
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["run"]["settings"] == {"WINDOW": "500"}


def test_a_run_with_other_settings_is_another_run(tmp_path: Path) -> None:
    results, run = Results(tmp_path), Run("kafka", "sea", 42, rate=200.0)
    results.put(run, figures(two_concepts(100), {0: 0}))
    for other in ({"rate": 1_000.0}, {"seed": 43}, {"delay": 1_000}, {"settings": {"WINDOW": "9"}}):
        assert results.get(replace(run, **other)) is None


def test_the_plan_has_late_labels_for_two_streams_and_two_seeds() -> None:
    options = argparse.Namespace(
        streams=[*STREAMS], learners=["kafka", "offline"], seeds=4, rate=200, records=None
    )
    late = [run for run in planned(options) if run.delay and run.learner == "kafka"]
    assert {(run.stream, run.seed, run.delay) for run in late} == {
        (stream, seed, delay)
        for stream in ("sea", "agrawal")
        for seed in (42, 1_042)
        for delay in (1_000, 10_000)
    }
    at_once = [run for run in planned(options) if not run.delay]
    assert len(at_once) == 2 * 4 * len(STREAMS)


def test_the_tables_compare_the_learners_seed_by_seed() -> None:
    stream = two_concepts(100, drift=50)
    half, all_right = np.tile([0.0, 1.0], 50), np.ones(100)
    own = replace(
        result("kafka", half, stream),
        figures={
            **result("kafka", half, stream).figures,
            "cpu": {"modelgenerator": 0.2, "predictor": 0.1},
            "lateness": 40,
            "lateness_95": 60,
            "seconds_95": 0.25,
            "published": 3,
            "swaps": [[50, 2, "vote", "alarm"]],
        },
    )
    shown = report.tables([own, result("offline", all_right, stream)])
    assert "| this project, through Kafka | 50.00 | 0.300 |" in shown
    assert "sea -50.00 (1 seeds)" in shown
    assert "| sea | 1 | 40 | 60 | 0.25 | 1 | 3 | 0.200 | 0.100 | – | – | – | 0 | 0 |" in shown
