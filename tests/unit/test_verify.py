from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predictor import predictor
from predictor.tally import Tally
from predictor.verify.log_file import Line, LogFile
from predictor.verify.partition import Committed, Output, Partition, Records, Row
from predictor.verify.recreated import answers_since, recreated_at
from predictor.verify.report import Findings, Violation, report, summary
from predictor.verify.walk import check_partition
from stream.classifier import Model
from stream.layout import Rows
from stream.models import Envelope
from stream.records import RecordError
from tests.histories import (
    BATCH_TO,
    BROKEN,
    BROKEN_BATCHES,
    BROKEN_LOGS,
    RECORDS,
    Broken,
    Made,
    by_its_own_predict,
    classifier,
    correct_history,
    history_with_a_batch,
)
from tests.late_histories import (
    BROKEN_LATE,
    late_history,
    outcome,
    place,
    with_texts,
    without_times,
)


class Library:
    """The models of a history, without a topic."""

    def __init__(self, made: Made) -> None:
        self._models = made.models
        self._barred = {status["version"] for status in made.statuses}
        self.loaded: list[int] = []

    def envelope(self, version: int) -> Envelope | str:
        fields = self._models.get(version)
        return Envelope(**fields) if fields else "not on the model topic"

    def model(self, version: int) -> Model | str:
        self.loaded.append(version)
        envelope = self.envelope(version)
        if isinstance(envelope, str):
            return envelope
        return Model(envelope, classifier(version))

    def label(self, text: str) -> set[int | None]:
        found: set[int | None] = set()
        for fields in self._models.values():
            with suppress(RecordError):
                found.add(Envelope(**fields).layout.label(text))
        return found

    def barred(self, version: int) -> bool:
        return version in self._barred


def rows(records: list[dict[str, Any]]) -> list[Row]:
    return [(offset, json.dumps(record).encode(), 0) for offset, record in enumerate(records)]


def timed(values: dict[int, bytes | None], times: dict[int, int], end: int) -> list[Row]:
    return [(at, value, times.get(at, 0)) for at, value in values.items() if at < end]


def committed_by(made: Made) -> Committed:
    try:
        tally: Tally | str = Tally.from_metadata(made.metadata)
    except RecordError as error:
        tally = str(error)
    return Committed(made.committed, tally, made.labels_committed, made.held)


def partition_of(made: Made) -> Partition:
    return Partition(
        0,
        Records("data", timed(made.data, made.times, made.committed)),
        Records("prediction", rows(made.predictions)),
        Records("rejected", rows(made.rejected)),
        Records("label", timed(made.labels, made.label_times, made.labels_committed or 0)),
        Records("label.rejected", rows(made.rejected_labels)),
        committed_by(made),
    )


def verified(
    made: Made, partition: Partition | None = None, logs: tuple[Iterator[Line], ...] = ()
) -> Findings:
    findings = Findings()
    beyond = check_partition(partition or partition_of(made), Library(made), findings, logs)
    assert not beyond
    return findings


def cut(records: Records, start: int) -> Records:
    """What retention leaves."""
    return replace(records, rows=[row for row in records.rows if row[0] >= start], start=start)


def test_a_correct_history_is_checked_whole_and_holds() -> None:
    findings = verified(correct_history())
    assert findings.checked == {
        "I1": RECORDS,
        "I2": RECORDS - 1,
        "I3": 1,
        "I5": RECORDS - 1,
        "I6": RECORDS - 1,
        "I7": RECORDS - 1,
    }
    assert not findings.not_checked
    assert (findings.predictions, findings.rejected) == (RECORDS - 1, 1)
    assert (findings.models, findings.swapped_to) == ({1, 2, 3}, {2, 3})


def test_a_correct_history_with_late_labels_is_checked_whole_and_holds() -> None:
    findings = verified(late_history())
    answered_one_by_one = 51 + 1 + 2 + 2  # by labelled and revised outcomes, rejected, and held
    assert findings.checked == {
        **dict.fromkeys(("I5", "I6", "I7"), RECORDS - 1),
        **{"I1": RECORDS, "I2": RECORDS - 1 + 54, "I3": 1},
        **{"I8": answered_one_by_one + 3, "I9": 54},
    }
    assert not findings.not_checked
    assert findings.outcomes == {"labelled": 51, "revised": 1, "assumed": 2}
    assert (findings.rejected_labels, findings.held, findings.n) == (3, 2, 56)


def test_labels_that_are_texts_are_what_a_model_says_they_are() -> None:
    findings = verified(with_texts(late_history()))
    assert not findings.not_checked
    assert findings.checked == verified(late_history()).checked


def test_a_text_whose_models_are_gone_is_not_checked() -> None:
    made = with_texts(late_history())
    made.models.clear()
    assert "I9: a label is a text, and models are gone" in verified(made).not_checked


def test_records_with_many_features_are_predicted_again_in_batches_that_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, sizes, predict = correct_history(), [], Model.predict

    def counted(model: Model, rows: Rows) -> tuple[list[int], list[float | None]]:
        sizes.append(sum(map(len, rows)))
        return predict(model, rows)

    monkeypatch.setattr(Model, "predict", counted)
    monkeypatch.setattr(predictor, "MAX_CELLS", 10)
    assert verified(made).checked["I6"] == RECORDS - 1
    assert max(sizes) == 12  # two features each


def test_the_rule_of_the_envelope_decides_how_a_label_is_checked() -> None:
    assert verified(by_its_own_predict(correct_history())).checked["I6"] == RECORDS - 1


def test_each_offset_of_a_batch_that_cannot_be_decoded_counts_in_I1() -> None:  # noqa: N802 - the invariant's name
    findings = verified(history_with_a_batch())
    assert findings.checked["I1"] == BATCH_TO + 1
    assert findings.rejected == 2


@pytest.mark.parametrize(("name", "breaks"), BROKEN_BATCHES)
def test_a_batch_that_is_rejected_wrongly_violates_I1(  # noqa: N802 - as above
    name: str, breaks: Callable[[Made], object]
) -> None:
    made = history_with_a_batch()
    breaks(made)
    with pytest.raises(Violation, match=r"^I1 "):
        verified(made)


def test_a_batch_of_which_retention_left_the_end_is_checked() -> None:
    made = history_with_a_batch()
    partition = partition_of(made)
    findings = verified(made, replace(partition, data=cut(partition.data, BATCH_TO - 1)))
    assert findings.checked["I1"] == 5


@pytest.mark.parametrize(
    ("make", "broken"),
    [(correct_history, broken) for broken in BROKEN]
    + [(late_history, broken) for broken in BROKEN_LATE],
    ids=[broken.name for broken in BROKEN + BROKEN_LATE],
)
def test_a_violation_is_found_where_it_is(make: Callable[[], Made], broken: Broken) -> None:
    made = make()
    broken.breaks(made)
    with pytest.raises(Violation) as raised:
        verified(made)
    found = raised.value
    assert (found.invariant, found.topic, found.offset) == broken[1:4]
    assert str(found).startswith(
        f"{found.invariant} {found.topic} partition 0 offset {found.offset}"
    )


def test_a_source_at_which_no_record_is_violates_I1() -> None:  # noqa: N802 - the invariant's name
    made = correct_history()
    del made.data[40]
    with pytest.raises(Violation, match=r"I1 prediction partition 0 offset 39: .* 40, where no"):
        verified(made)


def test_a_source_that_goes_back_violates_I1() -> None:  # noqa: N802 - as above
    made = correct_history()
    made.predictions[20:] = [p | {"source": [0, p["source"][1] - 5]} for p in made.predictions[20:]]
    with pytest.raises(Violation, match=r"I1 prediction partition 0 offset 20: .* above 20"):
        verified(made)


def test_a_predicted_record_that_had_to_be_rejected_violates_I6() -> None:  # noqa: N802 - as above
    made = correct_history()
    made.data[40] = b'{"id": 40, "label": 1}'
    with pytest.raises(
        Violation, match=r"I6 prediction partition 0 offset 39: .*features: missing"
    ):
        verified(made)


def test_a_record_with_more_features_than_its_model_violates_I6() -> None:  # noqa: N802 - as above
    made = correct_history()
    made.models[1]["features"] = 1
    with pytest.raises(Violation, match=r"I6 prediction partition 0 offset 0: .*expected 1 num"):
        verified(made)


def test_the_first_of_two_violations_is_the_one_named_even_if_models_come_last() -> None:
    made = correct_history()
    made.at(20)["probability"] += 0.001
    made.at(22)["n"] += 1
    with pytest.raises(Violation, match="I6 prediction partition 0 offset 19"):
        verified(made)


def test_what_is_not_a_prediction_violates_I1() -> None:  # noqa: N802 - as above
    made = correct_history()
    made.predictions[12] = {"id": 1}
    with pytest.raises(Violation, match=r"I1 prediction partition 0 offset 12: .*a valid record"):
        verified(made)


def test_a_label_that_is_none_violates_I1() -> None:  # noqa: N802 - as above
    made = correct_history()
    made.at(20)["label"] = "1"
    with pytest.raises(Violation, match=r"I1 prediction partition 0 offset 19: .*expected 0 or 1"):
        verified(made)


def test_the_first_output_beyond_the_committed_offset_ends_the_check_and_is_returned() -> None:
    made = correct_history()
    findings = Findings()
    made.committed = 40
    last = made.at(39)
    tally = Tally(rejected=1, model=2, carried=(last["n"], last["correct"]))
    partition = replace(partition_of(made), committed=Committed(40, tally))
    (beyond,) = check_partition(partition, Library(made), findings)
    assert (beyond.topic, beyond.source) == ("prediction", 40)
    assert findings.checked["I1"] == 40


def test_retention_of_the_data_leaves_the_counts_checked_and_is_counted() -> None:
    made = correct_history()
    partition = partition_of(made)
    findings = verified(made, replace(partition, data=cut(partition.data, 30)))
    assert findings.not_checked == {"I1, I6: retention has deleted the record": 30}
    assert (findings.checked["I1"], findings.checked["I2"]) == (50, 79)


def test_a_record_predicted_and_rejected_is_found_even_if_retention_has_deleted_it() -> None:
    made = correct_history()
    made.rejected.insert(0, made.rejected[0] | {"source": [0, 5]})
    partition = partition_of(made)
    with pytest.raises(
        Violation, match="I1 rejected partition 0 offset 0: expected a source above"
    ):
        verified(made, replace(partition, data=cut(partition.data, 30)))


def test_where_retention_has_deleted_predictions_the_counts_start_at_the_first_that_is_left() -> (
    None
):
    made = correct_history()
    partition = partition_of(made)
    findings = verified(made, replace(partition, predictions=cut(partition.predictions, 30)))
    assert findings.checked["I2"] == 49
    assert findings.not_checked == {
        "I1: retention may have deleted the record's output": 30,
        "I3: only the sums, as the topics do not hold all history": 1,
    }


def test_retention_excuses_no_gap_after_the_first_prediction_that_is_left() -> None:
    made = correct_history()
    del made.predictions[made.offset(UNPREDICTED)]
    for prediction in made.predictions[UNPREDICTED - 1 :]:
        assert prediction["source"][1] > UNPREDICTED
    partition = partition_of(made)
    with pytest.raises(Violation, match=f"I1 data partition 0 offset {UNPREDICTED}"):
        verified(made, replace(partition, predictions=cut(partition.predictions, 5)))


UNPREDICTED = 11  # the unlabelled one: the counts do not show that it is missing


def test_labels_and_outcomes_whose_counterparts_retention_has_deleted_are_no_violations() -> None:
    made = late_history()
    whole = partition_of(made)
    found = verified(made, replace(whole, predictions=cut(whole.predictions, 60))).not_checked
    answers = [p["source"][1] for p in made.predictions[:60] if "labelled" in p]
    assert found["I8: retention may have deleted the answer to the label"] == len(answers)
    gone = {p["source"][1] for p in made.predictions[:60]}
    later = [p for p in made.predictions[60:] if "outcome" in p and p["source"][1] in gone]
    assert found["I9: retention has deleted the prediction"] == len(later)
    found = verified(made, replace(whole, labels=cut(whole.labels, 20))).not_checked
    assert found == {"I8, I9: retention has deleted the label": 20 - 1}
    rejected = cut(whole.rejected_labels, 2)
    found = verified(made, replace(whole, rejected_labels=rejected)).not_checked
    assert found == {"I8: retention may have deleted the answer to the label": 2}


def test_answers_to_a_label_topic_that_was_deleted_are_compared_with_their_predictions_only() -> (
    None
):
    made = late_history()
    whole = partition_of(made)
    last = replace(whole.rejected_labels, since=len(made.rejected_labels))
    partition = replace(
        whole,
        labels=Records("label", []),
        rejected_labels=last,
        labels_since=len(made.predictions),
        committed=replace(whole.committed, labels=None, held=()),
    )
    findings = verified(made, partition)
    assert findings.not_checked == {"I8, I9: from before the label topic was recreated": 52 + 3}
    assert (findings.checked["I8"], findings.checked["I9"]) == (0, 54)


def test_predictions_of_the_version_before_were_waited_for_by_nobody() -> None:
    made = without_times(late_history())
    assert verified(made).checked["I3"] == 1
    made.tally["expired"] = 3
    with pytest.raises(Violation, match=r"I3 data .* expired=2, found expired=3"):
        verified(made)


@pytest.mark.parametrize(("current", "since"), [(0, 0), (7, 7), (10, 10)])
def test_answers_to_the_label_topic_as_it_is_now_begin_at_the_first_unit_that_names_it(
    current: int, since: int
) -> None:
    assert answers_since(0, 10, lambda offset: offset >= current) == since


def test_the_first_outcome_that_is_not_committed_ends_its_topic_and_no_other() -> None:
    made = late_history()
    partition = partition_of(made)
    label = outcome(made, 71)["labelled"][1]
    held = replace(partition.committed, held=(*made.held, label))
    beyond: list[Output] = []
    outputs = list(replace(partition, committed=held).outputs(beyond))
    assert [output.offset for output in beyond] == [place(made, 71)]
    assert {output.topic for output in outputs} == {"prediction", "rejected"}


def test_a_model_that_is_gone_is_named_as_not_checked() -> None:
    made = correct_history()
    del made.models[3]
    findings = verified(made)
    assert findings.not_checked == {"I6, I7: model 3: not on the model topic": 10}
    assert findings.checked["I6"] == RECORDS - 1 - 10


def test_where_retention_has_deleted_rejected_records_only_the_sums_are_compared() -> None:
    made = correct_history()
    made.rejected.clear()
    partition = partition_of(made)
    findings = verified(made, replace(partition, rejected=Records("rejected", [], start=1)))
    assert findings.not_checked == {
        "I1: retention may have deleted the record's output": 1,
        "I3: only the sums, as the topics do not hold all history": 1,
    }


def test_counts_carried_over_are_compared_without_their_cells() -> None:
    made = correct_history()
    last = made.predictions[-1]
    made.tally = dict.fromkeys(made.tally, 0) | {
        "model": 2,
        "carried": [last["n"], last["correct"]],
    }
    assert verified(made).not_checked == {
        "I3: only the sums, as the topics do not hold all history": 1
    }


def test_a_recreated_data_topic_is_checked_from_there_on_and_counts_go_on() -> None:
    made = correct_history()
    before = len(made.predictions)
    again = correct_history()
    last = made.predictions[-1]
    for prediction in again.predictions:
        prediction["n"] += last["n"]
        prediction["correct"] += last["correct"]
        prediction["accuracy"] = prediction["correct"] / prediction["n"]
        made.predictions.append(prediction)
    made.statuses.append({"version": 2, "status": "barred"})
    made.rejected += again.rejected
    made.tally["carried"] = [last["n"], last["correct"]]
    partition = partition_of(made)
    findings = verified(
        made,
        replace(
            partition,
            predictions=replace(partition.predictions, since=before),
            rejected=replace(partition.rejected, since=1),
        ),
    )
    assert findings.not_checked["I1, I6, I7: from before the data topic was recreated"] == RECORDS
    assert findings.checked["I1"] == RECORDS
    assert findings.checked["I2"] == 2 * (RECORDS - 1)


@pytest.mark.parametrize(
    ("sources", "times", "since"),
    [
        ([0, 1, 2, 3], [5, 6, 7, 8], 0),
        ([0, 1, 2, 0, 1], [1, 2, 3, 5, 6], 3),
        ([0, 1, 0, 1, 0, 1], [1, 1, 2, 2, 6, 7], 4),
        ([0, 1, 2, 1, 2], [5, 6, 7, 8, 9], 0),
    ],
    ids=["never", "once", "twice", "predicted twice: younger than the data"],
)
def test_sources_go_back_where_the_data_topic_was_recreated(
    sources: list[int], times: list[int], since: int
) -> None:
    template = correct_history().predictions[0]
    rows = [
        (offset, time, json.dumps(template | {"source": [0, source]}).encode())
        for offset, (source, time) in enumerate(zip(sources, times, strict=True))
    ]
    assert recreated_at(rows, first_data_ms=5) == since


def read(path: Path) -> Findings:
    """Check a log as `predictor.verify` does."""
    made = correct_history()
    with ExitStack() as files:
        log = LogFile(path, files)
        log.check_lines(partitions=1)
        return verified(made, logs=(log.lines(0),))


def test_a_correct_log_is_checked_line_by_line(tmp_path: Path) -> None:
    made = correct_history()
    assert read(made.write_log(tmp_path / "log")).checked["I4"] == len(made.log) == 7


@pytest.mark.parametrize(
    ("name", "line", "breaks"), BROKEN_LOGS, ids=[name for name, *_ in BROKEN_LOGS]
)
def test_a_wrong_log_is_found_at_its_line(
    name: str, line: int, breaks: Any, tmp_path: Path
) -> None:
    made = correct_history()
    breaks(made)
    with pytest.raises(Violation) as raised:
        read(made.write_log(tmp_path / "log"))
    assert (raised.value.invariant, raised.value.offset) == ("I4", line), name


def test_a_torn_last_line_is_no_violation(tmp_path: Path) -> None:
    made = correct_history()
    path = made.write_log(tmp_path / "log")
    path.write_text(path.read_text()[:-10])
    assert read(path).checked["I4"] == len(made.log) - 1


def test_a_line_written_after_the_log_was_opened_is_left_out(tmp_path: Path) -> None:
    made = correct_history()
    path = made.write_log(tmp_path / "log")
    with ExitStack() as files:
        log = LogFile(path, files)
        path.write_text(path.read_text() + "not a line\n")
        log.check_lines(partitions=1)
        assert len(list(log.lines())) == len(made.log)


def test_rotated_logs_are_read_before_the_newest(tmp_path: Path) -> None:
    made = correct_history()
    lines = [f"{line}\n" for line in made.log]
    (tmp_path / "log.2").write_text("".join(lines[:2]))
    (tmp_path / "log.1").write_text("".join(lines[2:5]))
    (tmp_path / "log").write_text("".join(lines[5:]))
    assert read(tmp_path / "log").checked["I4"] == len(lines)


def test_lines_whose_predictions_are_gone_are_counted(tmp_path: Path) -> None:
    made = correct_history()
    path = made.write_log(tmp_path / "log")
    partition = partition_of(made)
    with ExitStack() as files:
        findings = verified(
            made,
            replace(partition, predictions=cut(partition.predictions, 30)),
            logs=(LogFile(path, files).lines(0),),
        )
    assert findings.not_checked["I4: retention has deleted the line's prediction"] == 2
    assert findings.checked["I4"] == 5


def test_the_report_says_what_a_run_came_to() -> None:
    found = report(verified(correct_history()), None)
    assert found["verified"] is True
    assert (found["predictions"], found["rejected"], found["swaps"]) == (79, 1, 2)
    assert found["models"] == [1, 2, 3]
    assert found["accuracy"] == found["correct"] / found["n"]
    assert summary(found).startswith("verified: 79 predictions, 1 rejected, accuracy 0.")
