"""The modelgenerator alone, on labels that come later; outcomes are written by hand."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterable

import joblib
import pytest
from msgspec.structs import replace

from modelgenerator import join
from modelgenerator.data_feed import DataFeed
from modelgenerator.intake import Intake
from modelgenerator.join import Join
from modelgenerator.label_feed import LabelFeed
from modelgenerator.training.recipes import recipes
from modelgenerator.training.trainer import Trainer
from stream import reading
from stream.layout import Layout
from stream.records import Label, Prediction, decode_record, encode_label, encode_prediction
from stream.service import Stop
from tests.services import Services, assert_ends, await_line, eventually
from tests.topics import Topics

NUMBERS = Layout()


def labels(topics: Topics, partition: int = 0) -> list[Label]:
    """The labels of the records of a partition, by id."""
    found = topics.records(topics.settings.data_topic, partition)
    read = (NUMBERS.read(decode_record(record.value)) for record in found)
    return [Label(int(float(record.features[0] or 0) > 0), id=record.id) for record in read]


def write(topics: Topics, found: Iterable[Label], partition: int = 0) -> None:
    for label in found:
        topics.producer.send(topics.settings.label_topic, encode_label(label), partition=partition)
    topics.producer.flush(30)


def test_models_are_trained_on_labels_that_come_later_in_any_order_and_twice(
    three: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    three.write(900, label=False)
    await_line(process, "partition=2 from offset=")
    for partition in range(3):
        found, chance = labels(three, partition), random.Random(partition)
        late = [*found[:150], *found[:150], Label(1, id="nobody")]
        chance.shuffle(late)
        write(three, [*late, *found[150:]], partition)

    def trained_to_the_second_half() -> bool:
        reached = three.assembled()[-1][0].trained_to if three.versions() else {}
        return len(reached) == 3 and min(reached.values()) > 150

    eventually(trained_to_the_second_half)
    (first, _), *_, (newest, pickle) = three.assembled()
    assert first.trained_on == 200
    assert 450 < newest.trained_on <= 900  # with those that came twice, it would be more
    assert max(newest.trained_to.values()) <= 299
    model = joblib.load(io.BytesIO(pickle))
    assert model.predict([[1.0, 0.5], [-1.0, 0.5]]).tolist() == [1, 0]
    assert_ends(process)
    assert "Traceback" not in process.log()


def test_labels_that_were_there_before_their_records_are_trained_on(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator")
    await_line(process, "partition=0 from offset=0")
    write(topics, [Label(n % 2, source=(0, n)) for n in range(200)])
    topics.write(200, label=False)
    ((envelope, _),) = eventually(topics.assembled)
    assert (envelope.trained_on, envelope.trained_to) == (200, {"0": 199})


def test_after_a_restart_training_goes_on_with_what_predictions_have_met(
    topics: Topics, start: Services
) -> None:
    topics.write(1_000, label=False)
    found, now = labels(topics), int(1_000 * time.time())
    write(topics, found[:300])
    # The newest labels are of no record: without the outcomes, there would be no label to train on.
    write(topics, [Label(1, id=f"nobody-{n}") for n in range(700)])
    outcomes = []
    for offset, label in enumerate(found[:300]):
        assert label.id is not None
        zero_or_one = int(label.label)
        made = Prediction(
            *(label.id, 0, 0.5, zero_or_one, 0, 0, 1, (0, offset)),
            time=now,
            outcome="labelled",
            labelled=(0, offset),
            delay=1.0,
        )
        forged = replace(made, id=offset + 300, label=1 - zero_or_one, source=(0, offset + 300))
        outcomes += [made, forged]
    # The last 50 are of a data topic that was recreated since, with the same ids.
    for outcome in [replace(o, time=now - 10**8) for o in outcomes[500:]] + outcomes[:500]:
        topics.producer.send(
            topics.settings.prediction_topic, encode_prediction(outcome), partition=0
        )
    topics.producer.flush(30)
    process = start("modelgenerator", WINDOW="600")
    ((envelope, _),) = eventually(topics.assembled)
    assert (envelope.trained_on, envelope.trained_to) == (200, {"0": 199})
    write(topics, found[300:400])
    (_, (newer, _)) = eventually(lambda: topics.assembled()[1:] and topics.assembled())
    assert newer.trained_to["0"] > 300
    assert_ends(process)


def test_records_that_do_not_fit_into_memory_are_read_again_when_their_label_comes(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "VALUES_BYTES", 10_000)
    monkeypatch.setattr(reading, "NEAR", 5)
    topics.write(500, label=False)
    stop, settings = Stop(), topics.settings
    intake = Intake(Trainer(recipes(), 200, 100), Join(200), has_model=False)
    data = DataFeed(settings, intake, stop)
    feed = LabelFeed(settings, intake, data, stop)
    eventually(lambda: not list(data.poll()) and intake.read == 500)
    assert data.caught_up
    assert len(intake.join._values) < 50
    found = labels(topics)
    wanted = [found[n] for n in (400, 7, 9, 8, 250, 499)]
    write(topics, wanted)
    got = eventually(lambda: list(feed.poll()))
    assert [(r.offset, r.label) for r in got] == [(label.id, label.label) for label in wanted]
    written = [decode_record(r.value) for r in topics.records(settings.data_topic)]
    assert [r.features for r in got] == [written[r.offset].features for r in got]
    data.close()
    feed.close()


def test_a_label_topic_that_was_deleted_is_read_from_its_beginning(
    topics: Topics, start: Services
) -> None:
    topics.write(1_000, label=False)
    found = labels(topics)
    process = start("modelgenerator")
    write(topics, found[:200])
    eventually(lambda: topics.versions() == [1])
    topics.delete(topics.settings.label_topic)
    await_line(process, f"created topic {topics.settings.label_topic}")
    write(topics, found[200:300])
    eventually(lambda: topics.versions() == [1, 2])
    assert_ends(process)
