"""What the page of the dashboard says of a stream, and when it says that all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from dashboard.health import Facts, health
from dashboard.state import Described, State
from quality.history import POINTS, History
from quality.quality import Quality
from quality.report import window
from quality.windows import TimeWindow
from stream.follower import Said
from stream.records import Prediction, Record, Rejected, Status

NOW = 1_795_000_000_000


def prediction(offset: int, **fields: object) -> Prediction:
    made = Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (0, offset))
    return msgspec.structs.replace(made, **fields)


def scores(**changes: Any) -> dict[str, Any]:
    found = Quality([TimeWindow(60.0)])
    for offset in range(200):
        label = offset % 2
        made = prediction(offset, prediction=label, label=label, probability=float(label))
        found.predicted(made, NOW - 1_000, NOW)
    return window(found.times[60.0], NOW) | changes


WELL = Facts(
    now=NOW / 1_000,
    lost_since=None,
    trouble="",
    missing=[],
    unread=0,
    serving=3,
    needs="0 of 200 labelled records so far",
    predicted=NOW / 1_000 - 1,
    lag=0,
    partitions=1,
    minute=scores(),
    hour=scores(),
    day=scores(),
    newest=scores(),
    refused=[],
)


def said_of(**changes: Any) -> tuple[str, str, str]:
    found = health(replace(WELL, **changes))
    return found.state, found.words, "; ".join(found.why)


def test_a_stream_with_nothing_wrong_is_healthy_and_the_baseline_stands_beside_the_accuracy() -> (
    None
):
    assert said_of() == ("well", "Healthy", "accuracy 1.000 in the last 200, baseline 0.500")
    few = said_of(newest=scores(n=7))
    assert few == ("well", "Running", "7 predictions counted: too few to say how good they are")


@pytest.mark.parametrize(
    ("changes", "state", "words", "why"),
    [
        ({"lost_since": NOW / 1_000 - 90}, "broken", "Kafka is unreachable",
         "since 2026-11-18 11:05:10 UTC; everything below is from before"),
        ({"missing": ["queueing.data"]}, "waiting", "Waiting for the topics",
         "no topic queueing.data"),
        ({"unread": 1_234}, "waiting", "Reading what is on the topics", "1,234 records left"),
        ({"serving": None, "refused": ["model 1 was refused: too large"]}, "waiting",
         "Waiting for the first model",
         "0 of 200 labelled records so far; model 1 was refused: too large"),
        ({"predicted": NOW / 1_000 - 60}, "idle", "Idle",
         "no new record since 2026-11-18 11:05:40 UTC; none waits"),
        ({"predicted": NOW / 1_000 - 60, "lag": 1}, "idle", "Idle", "none waits"),
        ({"predicted": NOW / 1_000 - 60, "lag": 500}, "broken", "Nothing is predicted",
         "since 2026-11-18 11:05:40 UTC; 500 records wait"),
        ({"minute": scores(labelled=0)}, "waiting", "Waiting for labels",
         "200 predictions in the last minute, none has met its label"),
        ({"newest": scores(accuracy=0.4, accuracy_interval=(0.3, 0.49))}, "look", "Needs a look",
         "accuracy 0.400 in the last 200 is below the baseline 0.500"),
        ({"lag": 100_000}, "look", "Needs a look", "100,000 records wait, those of "),
        ({"minute": scores(rejected=50, reasons={"label: missing": 50})}, "look", "Needs a look",
         "50 of 250 records of the last minute rejected: label: missing"),
        ({"hour": scores(coverage=0.2)}, "look", "Needs a look",
         "label coverage 0.20 in the last hour, 1.00 in the last day"),
        ({"refused": ["model 4 was barred: raises"]}, "look", "Needs a look",
         "model 4 was barred: raises"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(
    changes: dict[str, Any], state: str, words: str, why: str
) -> None:
    found = said_of(**changes)
    assert found[:2] == (state, words)
    assert why in found[2]


def test_an_accuracy_whose_interval_reaches_the_baseline_is_not_below_it() -> None:
    near = scores(accuracy=0.48, accuracy_interval=(0.41, 0.55))
    assert said_of(newest=near)[0] == "well"


def filled() -> State:
    state = State(lambda: NOW / 1_000 + 40)
    for version in (1, 2):
        reason = "alarm" if version == 2 else "first"
        state.described(Described(version, "Forest", reason), NOW + version)
    for offset in range(400):
        model, right = 1 + offset // 200, int(offset % 4 > 0)
        made = prediction(offset, model=model, prediction=right, correct=offset - offset // 4)
        state.quality.predicted(made, NOW + 100 * offset, NOW + 100 * offset)
    state.status(Said(NOW + 40_000, Status(3, "refused", {}, "no fit", "r1")))
    state.rejected(Said(NOW + 40_000, Rejected((0, 400), "bad", 3, "x" * 900)), NOW + 40_000)
    state.followed({0: 403}, [], 0, False)
    return state


@pytest.mark.parametrize(
    ("reasons", "newest"),
    [
        (["first", "alarm (wrong on 0.4)", "cadence", "weights (knn leads)"], 2),
        (["first", "cadence", "cadence", "cadence"], 4),
        (["first", "cadence", "rollback", "cadence"], 3),
    ],
)
def test_models_that_nothing_but_time_asked_for_hide_no_other_change(
    reasons: list[str], newest: int
) -> None:
    state = State(lambda: NOW / 1_000)
    for version, reason in enumerate(reasons, start=1):
        state.described(Described(version, "Vote", reason), NOW - 60_000)
        time_ms = NOW - 10_000 + version
        state.quality.predicted(prediction(version, model=version), time_ms, NOW)
    changed = state.parts(NOW)["changed"]
    assert changed["what"] == f"model {newest} took over from {newest - 1}"


def test_the_page_says_what_the_topics_say() -> None:
    found = filled().parts(NOW + 40_000)
    assert found["windows"]["1000"]["accuracy"] == 0.75
    assert found["windows"]["60"]["predictions"] == 400
    assert (found["lag"], found["partitions"][0]["end"]) == (2, 403)
    assert found["serving"]["version"] == 2
    assert (found["serving"]["algorithm"], found["serving"]["reason"]) == ("Forest", "alarm")
    newest, oldest = found["models"]
    assert (newest["version"], newest["status"], newest["next"]) == (2, "serving", None)
    assert (oldest["predictions"], oldest["counted"], oldest["next"]) == (200, 200, 2)
    assert found["alarms"] == [{"time": NOW + 2, "version": 2}]
    assert found["refusals"][0]["reason"] == "no fit"
    assert len(found["rejections"][0]["value"]) == 300
    assert found["changed"] == {
        "time": "2026-11-18T11:07:20.000Z", "what": "model 3 was refused",
    }  # fmt: skip
    curve = found["histories"]["600"]
    assert curve["running"][-1] == pytest.approx(300 / 400)
    assert curve["recent"][-1] == 0.75
    assert [b > a for a, b in zip(curve["model"], curve["model"][1:], strict=False)].count(
        True
    ) == 1
    assert msgspec.json.decode(msgspec.json.encode(found)) is not None


def test_a_state_that_begins_anew_has_forgotten_everything() -> None:
    state = filled()
    state.begin()
    assert msgspec.json.decode(state.shown["models"]) == []
    assert state.model(1) is None


def test_before_the_first_model_the_page_says_what_it_needs() -> None:
    state = State()
    state.first_model.written(Record(1, [0.5], 1))
    state.followed({0: 1}, [], 0, False)
    found = msgspec.json.decode(state.shown["health"])
    assert found["words"] == "Waiting for the first model"
    assert found["why"] == ["1 of 200 labelled records so far, none labelled 0"]


def test_no_broker_is_unreachable_from_when_it_was_first_missed() -> None:
    times = iter(range(NOW // 1_000, NOW))
    state = State(lambda: next(times))
    state.lost("no answer")
    first = msgspec.json.decode(state.shown["health"])
    state.lost("no answer")
    assert msgspec.json.decode(state.shown["health"]) == first
    assert first["words"] == "Kafka is unreachable"
    assert first["why"][1] == "no answer"


def test_a_history_is_the_same_in_any_order_and_keeps_so_many_points() -> None:
    forward, backward = History(600.0), History(600.0)
    times = [(NOW + 250 * number, number % 3 > 0, 1 + number // 1_000) for number in range(4_000)]
    now = times[-1][0]
    for time_ms, right, model in times:
        forward.count(time_ms, now, right, model)
    for time_ms, right, model in reversed(times):
        backward.count(time_ms, now, right, model)
    points = list(forward.points(4_000, 2_666, 1_000, now))
    assert points == list(backward.points(4_000, 2_666, 1_000, now))
    assert len(points) == POINTS + 1
    assert points[-1].running == pytest.approx(2_666 / 4_000)
    assert points[-1].recent == pytest.approx(2 / 3, abs=0.01)
    assert points[-1].time_ms == now
    for second in range(POINTS + 10):
        forward.count(NOW - 10_000_000 + 1_000 * second, now, True, 1)
    assert len(forward._stretches) <= POINTS + 1
    assert list(forward.points(4_000, 2_666, 1_000, now + 700_000)) == []


def test_a_point_is_of_the_last_outcomes_or_of_all_that_came_with_it() -> None:
    history = History(600.0)
    for second, right in enumerate([True] * 5 + [False] * 5):
        for _ in range(100):
            history.count(NOW + 1_000 * second, NOW + 10_000, right, 1)
    few, many = (
        [point.recent for point in history.points(1_000, 500, recent, NOW + 10_000)]
        for recent in (50, 250)
    )
    assert few == [1.0] * 5 + [0.0] * 5
    assert many[5:8] == [pytest.approx(2 / 3), pytest.approx(1 / 3), 0.0]
