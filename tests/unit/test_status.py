"""The checks of `predictor.status`, and its screen."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from predictor.status import report
from predictor.status.__main__ import read_options
from predictor.status.checks import CHECKED, Check, check, seconds
from predictor.status.topics import Standing
from predictor.tally import Tally
from quality.quality import Quality
from quality.report import window
from quality.windows import Bucket, TimeWindow
from stream.follower import Said
from stream.records import Prediction, Rejected, Status
from stream.times import instant

NOW = 1_795_000_000_000.0


def prediction(offset: int, **fields: object) -> Prediction:
    return replace(Prediction(offset, 1, 0.9, 1, offset + 1, offset + 1, 1, (0, offset)), **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy>=0.8", Check("accuracy", ">=", 0.8)),
        (" lag < 1e3 ", Check("lag", "<", 1_000.0)),
        ("above_baseline>-0.01", Check("above_baseline", ">", -0.01)),
        ("rejected_per_second<=0", Check("rejected_per_second", "<=", 0.0)),
    ],
)
def test_a_check_is_a_metric_a_relation_and_a_number(text: str, expected: Check) -> None:
    assert check(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acuracy>=0.8", "no metric is called 'acuracy'; allowed are n, accuracy, precision, "),
        ("accuracy", "expected a metric, one of >=, <=, > and <, and a number, like accuracy>=0.8"),
        ("accuracy=0.8", "like accuracy>=0.8, got 'accuracy=0.8'"),
        ("accuracy>=high", "accuracy: expected a number, got 'high'"),
        ("accuracy>=nan", "accuracy: expected a number, got 'nan'"),
        ("", "like accuracy>=0.8, got ''"),
    ],
)
def test_a_wrong_check_is_a_wrong_option_and_the_line_says_what_is_allowed(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_options(["--check", text])
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("text", "expected"), [("30s", 30), ("10m", 600), ("1h", 3_600), ("7d", 604_800)]
)
def test_a_window_is_a_time(text: str, expected: int) -> None:
    assert seconds(text) == expected
    assert read_options(["--since", text]).since == expected
    assert read_options(["--window", text]).since == expected
    assert read_options([]).since == 3_600


@pytest.mark.parametrize("text", ["0s", "1", "h", "-1h", "1.5h", "1y", "367d", "1h30m", ""])
def test_a_window_that_is_no_time_is_a_wrong_option(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_options([f"--since={text}"])
    assert f"expected a time like 30s, 10m, 1h or 7d, at most 366d, got '{text}'" in (
        capsys.readouterr().err
    )


def test_watch_goes_with_no_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_options(["--watch", "--check", "lag<10"])
    assert "argument --watch: not allowed with argument --check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("relation", "holds"),
    [(">=", [False, True, True]), (">", [False, False, True]),
     ("<=", [True, True, False]), ("<", [True, False, False])],
)  # fmt: skip
def test_a_check_compares_the_metric_with_the_limit(relation: str, holds: list[bool]) -> None:
    values = (0.7, 0.8, 0.9)
    found = [Check("accuracy", relation, 0.8).holds({"accuracy": value}) for value in values]
    assert found == holds


def test_a_check_of_what_is_not_known_does_not_hold() -> None:
    for relation in (">=", "<"):
        each = Check("accuracy", relation, 0.8)
        assert not each.holds({"accuracy": None})
        assert "does not hold: accuracy is not known" in each.line({"accuracy": None})


def test_all_that_can_be_checked_is_in_the_window_or_the_lag() -> None:
    (found,) = Quality([TimeWindow(60.0)]).times.values()
    assert set(CHECKED) - {"lag"} <= window(found, NOW).keys()
    assert set(CHECKED) & Bucket().as_json().keys() == set(CHECKED) - {
        "lag", "predictions_per_second", "rejected_per_second",
    }  # fmt: skip


def test_rates_are_of_the_time_that_was_read() -> None:
    quality = Quality([TimeWindow(60.0)])
    for offset in range(120):
        quality.predicted(prediction(offset), int(NOW) - 5_000, NOW)
    (found,) = quality.times.values()
    whole = window(found, NOW)
    assert whole["predictions_per_second"] == 24.0
    assert whole["since"] == instant(found.start(NOW))
    limited = window(found, NOW, limited=True)
    assert limited["since"] == instant(NOW - 5_000)


def test_the_screen_says_everything_in_lines_that_a_terminal_can_show() -> None:
    quality = Quality([TimeWindow(3_600.0)])
    for offset in range(100):
        made = prediction(offset, model=1 + offset // 50, prediction=int(offset % 4 > 0), label=1)
        quality.predicted(made, int(NOW) - 100_000 + 1_000 * offset, NOW)
    quality.rejected((0, 100), "label: \x1b[31m\n", int(NOW), NOW)
    quality.model(2).algorithm, quality.model(2).reason = "Forest\x1b[0m", "cadence"
    tally = Tally(tp=75, fn=25, rejected=1, model=2)
    text = report.screen(
        report.status(
            quality,
            [Standing(0, 101, 103, 2, tally), Standing(1, None, 7, 7, None)],
            NOW,
            refusals=[Said(int(NOW), Status(3, "refused", {}, "no\nfit", "r1"))],
            rejections=[Said(int(NOW), Rejected((0, 100), "bad", 3, "x"))],
        )
    )
    lines = text.splitlines()
    assert all(line.isprintable() for line in lines)
    shown = "\n".join(lines)
    for part in (
        "model 2 (Forest\\x1b[0m, reason cadence) serves since ",
        "1 swaps in the window; the last one: 1 to 2 at ",
        "predictions 100, 1.0/s, 100 counted; rejected 1",
        "accuracy 0.7500 (95 %: 0.6570 to 0.8245), baselines: majority 1.0000, no change 1.0000",
        "tp 75, fp 0, tn 0, fn 25",
        "1 rejected: label: \\x1b[31m\\n",
        "since the beginning: n 100, accuracy 0.7500, 1 rejected, 0 wait for a label, lag 9",
        "model 3 refused by r1: no\\nfit",
        "partition 0 offset 100: bad",
    ):
        assert part in shown
    assert "coverage" not in shown
    rows = [line.split() for line in lines]
    assert ["0", "101", "2", "100", "0.7500", "1", "0", "2"] in rows
    assert ["1", "–", "7", "–", "–", "–", "–", "–"] in rows


def test_the_screen_says_how_late_labels_come() -> None:
    quality = Quality([TimeWindow(3_600.0)])
    for offset in range(4):
        quality.predicted(prediction(offset, label=None), int(NOW), NOW)
    late = prediction(0, outcome="labelled", labelled=(0, 0), delay=90.0)
    quality.predicted(late, int(NOW), NOW)
    text = report.screen(report.status(quality, [], NOW))
    assert "coverage 0.2500, label delay 90.0 s (95 %: 90.0 s)" in text


def test_of_a_stream_without_predictions_the_screen_says_so() -> None:
    text = report.screen(report.status(Quality([TimeWindow(3_600.0)]), [], NOW))
    assert "no model serves" in text
    assert "accuracy –, baselines: majority –, no change –" in text


def test_a_barred_model_says_so() -> None:
    quality = Quality([TimeWindow(3_600.0)])
    for second, version in enumerate((1, 2, 1)):
        quality.predicted(prediction(second, model=version), int(NOW) + second, NOW)
    quality.model(2).barred = "raises"
    found = report.status(quality, [], NOW)["models"]
    assert [row["status"] for row in found] == ["serving", "barred"]
