"""What a report is made of: read from the topics, or found out about a model file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from modelgenerator.envelope import check
from modelgenerator.models.catalogue import Row
from modelgenerator.models.report.figures import Answered, Figures, Newest, figures
from modelgenerator.models.report.page import page
from modelgenerator.models.topics import Topics
from modelgenerator.publish.backtest import BACKTEST_RECORDS, backtest
from modelgenerator.publish.checks import prepared
from modelgenerator.publish.model_files import load
from modelgenerator.publish.newest import read_stream
from stream.classifier import Model
from stream.models import ModelError
from stream.records import Cell, RecordError, decode_record


def of_version(topics: Topics, version: int, last: int, on: int | None) -> str:
    """Return the report of a model on the model topic.

    Parameters
    ----------
    last : int
        How many of the newest offsets of each partition of the prediction topic are read.
    on : int or None
        Tell its quality on so many of the newest labelled records, not on what it predicted.

    Raises
    ------
    Fatal
        When there is no such version.
    ModelError
        When it is not signed by a trusted key, not whole, or its digest is wrong; also when it
        cannot be loaded, and has to predict.
    KafkaError
    """
    row = topics.row(version)
    if not row.whole:
        raise ModelError(row.problem)
    topics.models.get(version)  # its digest is checked
    newest = Newest(version)
    if last:
        newest = Newest(version, topics.partitions(topics.settings.prediction_topic))
        topics.count_predictions(last, newest.add)
    served = [each for each in topics.catalogue.rows() if each.since]
    model: Model | str
    try:
        model = topics.load(version)
    except ModelError as error:
        if on:
            raise
        model = str(error)
    if on and isinstance(model, Model):
        found = _on_newest(topics, model, on)
    else:
        found = _on_stream(topics, row, newest, last)
    return page(f"Model {version}", row, model, found, served)


def of_file(topics: Topics, path: Path, on: int | None) -> str:
    """Return the report of a model file, which is unpickled, as `publish` does.

    Raises
    ------
    ModelError
        When predictors would refuse it.
    KafkaError, OSError
    """
    model, made_with = load(path)
    stream = read_stream(topics.consumer, topics.settings, topics.stop)
    said = {"recipe": "by_hand", "reason": "by hand", "trained_on": 0, "trained_to": {}}
    envelope, pickle, remarks = prepared(model, made_with, stream, **said)
    checked = check(topics.settings, envelope, pickle, stream.schema, topics.stop)
    found = _on_newest(topics, checked, on or BACKTEST_RECORDS)
    row = Row(0, envelope, len(pickle), status="not published")
    return page(path.name, row, checked, found._replace(about=[*remarks, *found.about]))


def _on_newest(topics: Topics, model: Model, count: int) -> Figures:
    found = backtest(topics.consumer, model, topics.settings, count, topics.stop)
    answered = [
        Answered(each.record.id, each.offset, each.timestamp, outcome)
        for each, outcome in found.records
    ]
    rows = (
        (model.layout.read(each.record).features, outcome.right) for each, outcome in found.records
    )
    return figures(found.lines, answered, rows, model.layout)


def _on_stream(topics: Topics, row: Row, newest: Newest, last: int) -> Figures:
    assert row.envelope
    answered = newest.all()
    about = [
        f"It made {row.records:,} predictions among the newest {last:,} offsets of each partition"
        f" of {topics.settings.prediction_topic}, and {row.counted:,} of them were counted: the"
        " label is known, and the model was not trained on the record."
    ]
    if not row.records:
        about.append(
            "To see its quality on the newest labelled records, give --on 2000. If it served long"
            " ago, a larger number of --predictions reads further back."
        )
    if len(answered) < row.counted:
        about.append(f"All figures below are of the newest {len(answered):,} of these.")
    rows: Iterable[tuple[Sequence[Cell], bool]] = ()
    if row.envelope.layout.categories:
        rows = _records(topics, row, newest)
    return figures(about, answered, rows, row.envelope.layout)


def _records(topics: Topics, row: Row, newest: Newest) -> Iterator[tuple[Sequence[Cell], bool]]:
    """Yield the records that were predicted, those that the data topic still has."""
    assert row.envelope
    for partition, some in newest.by_partition.items():
        wanted = {each.offset: each for each in some}
        for record in topics.records_at(partition, wanted):
            answered = wanted[record.offset]
            with suppress(RecordError):
                found = decode_record(record.value)
                if found.id == answered.id:  # else the topic was recreated
                    yield row.envelope.layout.read(found).features, answered.outcome.right
