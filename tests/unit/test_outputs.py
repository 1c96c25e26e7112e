from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from predictor.committed import Commit
from predictor.consumed import Consumed
from predictor.outputs import Message, last_own, messages, short_seal
from predictor.predictor import predict_unit
from predictor.result import Result
from predictor.settings import PredictorSettings
from predictor.tally import Tally
from stream.records import (
    Prediction,
    Record,
    decode_prediction,
    decode_rejected,
    encode_prediction,
    encode_record,
    reject,
)
from stream.seal import Seal
from tests.unit.classifiers import model
from tests.unit.states import states

SETTINGS = PredictorSettings.model_validate(
    {"group_id": "ours", "prediction_topic": "p", "data_topic": "d"}
)
OURS: list[tuple[str, bytes | None]] = [("group", b"ours"), ("incarnation", b"this")]
THEIRS: list[tuple[str, bytes | None]] = [("group", b"theirs")]
SEAL = Seal(b"a secret")
COMMITS = {0: Commit(3, Tally(tp=1, labels=8), (4, 7)), 1: Commit(5, Tally(fp=1))}


class Written(NamedTuple):
    """A record as it is read back."""

    value: bytes | None
    headers: list[tuple[str, bytes | None]] = []  # noqa: RUF012 - a NamedTuple's default
    topic: str = "p"


def result() -> Result:
    values = [encode_record(Record(i, [1.0, 0.0], 1)) for i in range(2)]
    records = [
        Consumed(partition, offset, b"k", value)
        for partition in (0, 1)
        for offset, value in enumerate([*values, b"not JSON"])
    ]
    return predict_unit(records, model(7), None, states(Tally(), Tally()))


def prediction(offset: int) -> bytes:
    return encode_prediction(Prediction(offset, 1, None, 1, offset, 0, 3, (0, offset)))


def test_each_output_goes_to_the_partition_of_its_record_and_a_prediction_keeps_the_key() -> None:
    found = messages(result(), COMMITS, SETTINGS, "this", None)
    assert [(m.topic, m.partition, m.key) for m in found] == [
        *[("p", 0, b"k")] * 2,
        *[("p", 1, b"k")] * 2,
        ("d.rejected", 0, None),
        ("d.rejected", 1, None),
    ]
    assert decode_prediction(found[3].value).source == (1, 1)
    assert decode_rejected(found[5].value).source == (1, 2)


@pytest.mark.parametrize(("incarnation", "headers"), [("this", OURS), (None, OURS[:1])])
def test_the_last_output_on_each_partition_says_whose_it_is_and_of_which_data_topic(
    incarnation: str | None, headers: Any
) -> None:
    found = messages(result(), COMMITS, SETTINGS, incarnation, None)
    last = [[*headers, ("position", COMMITS[partition].to_header())] for partition in (0, 1)]
    assert [m.headers for m in found] == [None, last[0], None, last[1], *last]


def test_each_prediction_has_a_short_seal_of_its_group_and_data_topic() -> None:
    found = messages(result(), COMMITS, SETTINGS, "this", SEAL)
    short = short_seal(SEAL, SETTINGS, "this")
    assert short
    assert all(short.holds(m.value, m.headers or []) for m in found[:4])
    assert [len(m.headers or []) for m in found] == [1, 5, 1, 5, 4, 4]
    for other in (short_seal(SEAL, SETTINGS, "that"), short_seal(Seal(b"x"), SETTINGS, "this")):
        assert other
        assert not any(other.holds(m.value, m.headers or []) for m in found)


def test_rejected_labels_go_to_a_topic_of_their_own() -> None:
    result = Result(rejected_labels=[reject((1, 9), b"x", "orphan")])
    (found,) = messages(result, COMMITS, SETTINGS, "this", SEAL)
    assert (found.topic, found.partition) == (SETTINGS.label_rejected_topic, 1)
    read = last_own(
        decode_rejected, "ours", SEAL, [Written(found.value, found.headers or [], found.topic)]
    )
    assert read is not None
    assert (read.commit, read.offset) == (COMMITS[1], 4)


def test_a_message_is_in_the_order_of_what_a_producer_sends() -> None:
    assert Message._fields == ("topic", "value", "key", "headers", "partition")


def test_the_last_own_output_is_found_with_the_data_topic_that_it_came_from() -> None:
    records = [Written(prediction(1)), Written(prediction(2), OURS)]
    found = last_own(decode_prediction, "ours", None, records)
    assert found is not None
    assert (found.offset, found.incarnation) == (2, "this")


def test_outputs_without_headers_belong_to_whose_come_next() -> None:
    records = [
        Written(prediction(1)),
        Written(prediction(2), OURS),
        Written(prediction(3)),
        Written(prediction(4), THEIRS),
    ]
    found = last_own(decode_prediction, "ours", None, records)
    assert found is not None
    assert found.offset == 2
    assert last_own(decode_prediction, "ours", None, records[2:]) is None


def test_what_no_predictor_wrote_is_passed_over() -> None:
    records = [Written(prediction(1), OURS), Written(b"garbage"), Written(None)]
    found = last_own(decode_prediction, "ours", None, records)
    assert found is not None
    assert found.offset == 1


def test_among_no_outputs_there_is_none_of_ours() -> None:
    assert last_own(decode_prediction, "ours", None, []) is None


def sealed(offset: int, headers: list[tuple[str, bytes | None]] = OURS) -> Written:
    value = prediction(offset)
    return Written(value, SEAL.headers("p", value, headers))


def test_a_sealed_output_of_ours_counts_whatever_others_write_behind_it() -> None:
    ours = messages(result(), COMMITS, SETTINGS, "this", SEAL)[1]
    assert SEAL.holds(ours.topic, ours.value, ours.headers or [])
    forged = [
        Written(prediction(50)),
        Written(prediction(51), OURS),
        Written(prediction(52), sealed(7).headers),
        Written(prediction(53)),
    ]
    found = last_own(decode_prediction, "ours", SEAL, [Written(prediction(6)), sealed(7), *forged])
    assert found is not None
    assert (found.offset, found.incarnation) == (7, "this")
    assert last_own(decode_prediction, "ours", SEAL, forged) is None
    assert last_own(decode_prediction, "ours", SEAL, [sealed(7, THEIRS)]) is None
