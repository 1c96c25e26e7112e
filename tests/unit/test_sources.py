from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import MessageSizeTooLargeError
from kafka.future import Future
from river.datasets.synth import Agrawal

from datagenerator.outbox import MAX_UNACKNOWLEDGED, Outbox
from datagenerator.pace import BURST, Pace, Progress, Replay, due
from datagenerator.resume import Tail, mismatch, next_ids, own_ids
from datagenerator.rows import Source, Timed
from datagenerator.settings import Settings
from datagenerator.sources import SYNTHETIC, Synthetic, open_source
from examples.make_example import write
from stream.records import ModelInput, Schema, decode_record, encode_record
from stream.refusals import TopicError
from stream.service import Stop, Stopped
from stream.settings import SettingsError, read
from tests.services import ROOT

EXAMPLE = ROOT / "examples" / "digits.csv"


def opened(**settings: object) -> Source:
    return open_source(Settings.model_validate(settings), lambda line: None)


def synthetic(stream: str, drift_every: int = 50, seed: int = 1) -> Source:
    return opened(stream=stream, seed=seed, drift_every=drift_every)


def take(source: Source, first_id: int, number: int | None = None) -> list[ModelInput]:
    return [timed.record for timed in islice(source.records(first_id), number)]


@pytest.mark.parametrize("stream", SYNTHETIC)
@pytest.mark.parametrize("drift_every", [0, 50])
def test_the_same_seed_and_id_give_the_same_record_whichever_run_sends_it(
    stream: str, drift_every: int
) -> None:
    whole = take(synthetic(stream, drift_every), 0, 130)
    assert [r.id for r in whole] == list(range(130))
    for first in (0, 49, 50, 77):
        assert take(synthetic(stream, drift_every), first, 130 - first) == whole[first:]
    assert take(synthetic(stream, drift_every, seed=2), 0, 130) != whole


@pytest.mark.parametrize("stream", SYNTHETIC)
def test_a_synthetic_record_keeps_the_contract_and_both_labels_occur(stream: str) -> None:
    source = synthetic(stream)
    records = take(source, 0, 300)
    for record in records:
        again = decode_record(encode_record(record))
        assert (again.id, again.features, again.label) == (
            *(record.id, record.features, record.label),
        )
        assert len(record.features) == len(source.schema.feature_names)
    assert {r.label for r in records} == {0, 1}


def test_agrawals_features_have_the_generators_own_names() -> None:
    assert synthetic("agrawal").schema.feature_names == Agrawal().feature_names


def test_the_features_of_a_phase_are_not_those_of_another() -> None:
    records = take(synthetic("sea"), 0, 200)
    assert len({tuple(r.features) for r in records}) == 200


def total(record: ModelInput) -> float:
    """Return the sum that the concepts of SEA look at."""
    return sum(f for f in record.features[:2] if isinstance(f, float))


def test_sea_changes_its_threshold_at_each_drift_and_flips_a_tenth_of_the_labels() -> None:
    records = take(synthetic("sea", drift_every=2000), 0, 8000)
    for phase, threshold in enumerate((8, 9, 7, 9.5)):
        part = records[phase * 2000 : (phase + 1) * 2000]
        agree = sum((total(r) > threshold) == r.label for r in part)
        assert 0.87 < agree / len(part) < 0.93


def test_the_concept_of_a_run_is_that_of_its_ids_not_of_its_start() -> None:
    phases: list[int] = []

    def concept(phase: int, seed: int, length: int) -> list[tuple[dict[int, float], int]]:
        phases.append(phase)
        return [({0: float(seed)}, 0)] * length

    source = Synthetic(Schema(["x"], "label", "1"), concept, seed=1, drift_every=10)
    take(source, 25, 16)
    assert phases == [2, 3, 4]


def test_without_drift_a_stream_keeps_one_concept() -> None:
    records = take(synthetic("sea", drift_every=0), 0, 6000)[4000:]
    agree = sum((total(r) > 8) == r.label for r in records)
    assert agree / len(records) > 0.87


def test_a_data_set_is_sent_once_in_random_order_and_goes_on_where_it_stopped() -> None:
    source = opened(stream="breast_cancer")
    whole = take(source, 0)
    assert [r.id for r in whole] == list(range(569))
    assert len({tuple(r.features) for r in whole}) == 569
    assert sum(r.label or 0 for r in whole) == 357
    labels = [r.label for r in whole]
    assert labels != sorted(labels, key=str)
    assert take(source, 200) == whole[200:]
    assert take(source, 569) == take(source, 5000) == []


def test_a_repeated_data_set_comes_in_another_order_each_pass_and_ids_go_on() -> None:
    source = opened(stream="breast_cancer", repeat=True)
    records = take(source, 0, 3 * 569)
    assert [r.id for r in records] == list(range(3 * 569))
    passes = [[tuple(r.features) for r in records[i * 569 : (i + 1) * 569]] for i in range(3)]
    assert sorted(passes[0], key=str) == sorted(passes[1], key=str) == sorted(passes[2], key=str)
    assert passes[0] != passes[1] != passes[2]
    assert take(source, 1000, 500) == records[1000:1500]


def test_the_example_file_is_what_its_script_makes() -> None:
    made = io.StringIO()
    write(made)
    assert EXAMPLE.read_bytes() == made.getvalue().encode()


def test_the_example_file_is_sent_whole() -> None:
    source = opened(stream=str(EXAMPLE), label="parity", positive="odd")
    records = take(source, 0)
    assert len(records) == source.size == 1797
    assert sum(r.label or 0 for r in records) == 906
    assert source.schema.positive == "odd"
    assert len(source.schema.feature_names) == 61  # the other three pixels are 0 in each row
    assert "parity" not in source.schema.feature_names


def test_a_stream_that_is_neither_name_nor_file_is_refused_with_the_names() -> None:
    with pytest.raises(SettingsError, match=r"STREAM=see: .*sea, agrawal, .*breast_cancer, a file"):
        opened(stream="see")


def test_only_a_file_has_a_column_of_the_times_of_labels() -> None:
    for stream in ("sea", "breast_cancer"):
        with pytest.raises(SettingsError, match=f"LABEL_TIME=known: {stream} has no such column"):
            opened(stream=stream, time="t", label_time="known")


def left_by_a_kill(sent: list[int], partitions: int) -> list[Tail]:
    """The tails of a topic whose partition p holds the first ``sent[p]`` of its ids."""
    return [
        Tail(n, (n - 1) * partitions + p if n else None, 3 if n else None)
        for p, n in enumerate(sent)
    ]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_whatever_a_kill_left_out_the_next_run_sends_each_id_once(sent: list[int]) -> None:
    count = len(sent)
    there = {i * count + p for p, n in enumerate(sent) for i in range(n)}
    following = next_ids(left_by_a_kill(sent, count))
    last = 31 * count
    added = [i for i in range(min(following), last) if i >= following[i % count]]
    assert len(added) == len(set(added))
    assert there.isdisjoint(added)
    assert there.union(added) == set(range(last))


class Killable:
    """A data topic, and a datagenerator that is killed and resumes."""

    def __init__(self, partitions: int) -> None:
        self.partitions: list[list[int]] = [[] for _ in range(partitions)]

    def grow(self, more: int) -> None:
        self.partitions += [[] for _ in range(more)]

    def following(self) -> list[int]:
        tails = [
            Tail(len(ids), ids[-1] if ids else None, 3, ids[-2] if len(ids) > 1 else None)
            for ids in self.partitions
        ]
        count = len(tails)
        misplaced = [id for p, ids in enumerate(self.partitions) for id in ids if id % count != p]
        return next_ids(tails, lambda: max(misplaced, default=-1))

    def run(self, records: int, lost: Sequence[int] = ()) -> None:
        """Resume and send so many records; of each partition, the last `lost` do not arrive."""
        end = min(self.following()) + records
        while True:
            following = self.following()
            to = len(following)
            # It goes over to all partitions as soon as those that there were have caught up.
            until = end if to == len(self.partitions) else min(end, max(following))
            sent: list[list[int]] = [[] for _ in range(to)]
            for id in range(min(following), until):
                if id >= following[id % to]:
                    sent[id % to].append(id)
            if until == end:
                break
            for p, ids in enumerate(sent):
                self.partitions[p] += ids
        for p, ids in enumerate(sent):
            self.partitions[p] += ids[: max(0, len(ids) - (lost[p] if p < len(lost) else 0))]


LOST = st.lists(st.integers(0, 4), max_size=8)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 40), LOST, st.integers(0, 20), LOST)
def test_whatever_kills_left_out_before_and_after_the_topic_grew_each_id_is_sent_once(
    before: int, more: int, records: int, lost: list[int], after: int, lost_later: list[int]
) -> None:
    topic = Killable(before)
    topic.run(records, lost)
    topic.grow(more)
    topic.run(after, lost_later)
    topic.run(100)
    topic.run(20)
    there = [id for ids in topic.partitions for id in ids]
    assert sorted(there) == list(range(len(there)))
    assert all(
        id % (before + more) == p for p, ids in enumerate(topic.partitions) for id in ids[-2:]
    )


def test_a_run_starts_at_0_on_new_topics() -> None:
    assert next_ids([Tail(0), Tail(0), Tail(0)]) == [0, 1, 2]


def test_a_partition_that_retention_shortened_goes_on_after_its_newest_id() -> None:
    assert next_ids([Tail(900, 1798), Tail(850, 1699)]) == [1800, 1701]


def test_above_somebody_elses_records_a_run_starts_at_the_highest_id_and_one() -> None:
    assert next_ids([Tail(7, 40), Tail(3, None)]) == [42, 41]
    assert next_ids([Tail(5, None), Tail(3, None)]) == [0, 1]


@pytest.mark.parametrize("foreign", [[10**6], [0], [1, 10**6], [7, 8, 9], [-1], [2**64 - 1]])
def test_ids_that_do_not_run_on_are_somebody_elses(foreign: list[int]) -> None:
    own = list(range(400, 430, 3))
    assert own_ids([*own, *foreign], 3, 10_000) == own
    assert own_ids([*own[:4], *foreign, *own[4:]], 3, 10_000) == own


def test_ids_run_on_over_the_growth_of_a_topic() -> None:
    assert own_ids([16, 18, 20, 21, 24], 3, 0) == [16, 18, 20, 21, 24]
    assert own_ids([17, 19, 22], 3, 0) == [17, 19, 22]


def test_an_id_with_none_beside_it_counts_where_so_many_records_can_have_been_sent() -> None:
    assert own_ids([41], 1, 42) == [41]
    assert own_ids([41], 1, 41) == own_ids([-1], 1, 41) == own_ids([], 1, 41) == []
    assert own_ids([0, 1796], 1, 2) == [0]


def test_where_there_is_a_schema_a_record_of_another_width_is_no_mismatch() -> None:
    schema = Schema(["a", "b"])
    assert mismatch("d", "d.schema", schema, schema, [Tail(1, 0, 5)]) is None


def test_a_source_of_another_width_or_schema_is_a_mismatch_and_the_line_says_what_to_do() -> None:
    schema = Schema(["a", "b"], "y", "1")
    assert mismatch("d", "d.schema", schema, None, [Tail(0)]) is None
    assert mismatch("d", "d.schema", schema, schema, [Tail(4, 3, 2)]) is None
    assert mismatch("d", "d.schema", schema, None, [Tail(0), Tail(1, None, 5)]) == (
        "d, partition 1 has records of 5 features; the source has 2;"
        " to start over, delete the topics or choose another DATA_TOPIC"
    )
    for other in (Schema(["b", "a"], "y", "1"), Schema(["a", "b"], "y", "0")):
        line = mismatch("d", "d.schema", schema, other, [Tail(0)])
        assert line is not None
        assert line.startswith("d.schema has 2 features (")


def test_only_breast_cancer_is_slower_where_no_rate_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read(Settings).records_per_second == 100
    monkeypatch.setenv("STREAM", "breast_cancer")
    assert read(Settings).records_per_second == 20
    monkeypatch.setenv("RATE", "0")
    assert read(Settings).records_per_second == 0


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RATE", "-1", "allowed is a number, 0 or more"),
        ("RATE", "nan", "allowed is a number, 0 or more"),
        ("COUNT", "x", "allowed is a whole number, 0 or more"),
        ("SPEED", "0", "allowed is a number, more than 0"),
        ("SEPARATOR", "ab", "allowed is one character, or comma, semicolon, tab, pipe, space"),
        ("SEPARATOR", '"', "allowed is one character, or comma"),
        ("DECIMAL", ";", "allowed is . or ,"),
        ("ENCODING", "cp1252", "allowed is utf-8, utf-16 or latin-1"),
        ("REPEAT", "2", "allowed is 1, true, yes or on, and 0, false, no or off"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        read(Settings)
    assert str(error.value).startswith(f"{name}={value}: {allowed}")


@pytest.mark.parametrize(
    ("name", "value", "read_as"),
    [
        ("SEPARATOR", "Tab", "\t"),
        ("SEPARATOR", r"\t", "\t"),
        ("SEPARATOR", ";", ";"),
        ("ENCODING", "UTF8", "utf-8"),
        ("ENCODING", "ISO-8859-1", "latin-1"),
    ],
)
def test_a_setting_may_be_written_as_people_do(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read_as: str
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(read(Settings), name.lower()) == read_as


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_records_are_due_at_the_rate_and_lost_time_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    due = []
    for now in (0.02, 0.04, 0.05, 0.055, 1000.0):
        clock.now = now
        due.append(pace.take())
    assert due == [2, 2, 1, 0, 50]


def test_a_rate_of_a_record_in_ten_seconds_is_kept() -> None:
    clock = Clock()
    pace = Pace(0.125, clock)
    due = 0
    for tick in range(1, 401):
        clock.now = tick / 4
        due += pace.take()
    assert due == 12


def test_no_burst_is_larger_than_allowed_and_an_unlimited_rate_always_gives_one() -> None:
    clock = Clock()
    fast = Pace(1e9, clock)
    clock.now = 1.0
    assert fast.take() == BURST
    assert Pace(0, clock).take() == BURST


def replayed(clock: Clock, replay: Replay, records: Iterator[Timed], *times: float) -> list[int]:
    """Return how many records are due at each time."""
    found = []
    for clock.now in times:
        batch, _ = due(replay, records)
        found.append(len(batch))
    return found


def at(*times: float) -> Iterator[Timed]:
    return (Timed(ModelInput(id, [1.0]), time) for id, time in enumerate(times))


def test_rows_are_replayed_as_far_apart_as_their_times_are() -> None:
    clock = Clock()
    replay = Replay(at(1000, 1000, 1001, 1001.2, 1010, 1011), 1, clock)
    assert replayed(clock, replay, iter(replay), 0, 0.9, 1, 1.25, 9.9, 10, 11) == [
        2,
        0,
        1,
        1,
        0,
        1,
        1,
    ]


def test_speed_shortens_the_pauses_and_the_end_is_told() -> None:
    clock = Clock()
    replay = Replay(at(0, 3600, 7200), 3600, clock)
    records = iter(replay)
    assert replayed(clock, replay, records, 0, 0.5, 1) == [1, 0, 1]
    clock.now = 2.0
    batch, ended = due(replay, records)
    assert (len(batch), ended) == (1, True)


def test_lost_time_moves_the_rows_that_follow_and_a_time_that_goes_back_does_not_wait() -> None:
    clock = Clock()
    replay = Replay(at(0, 1, 2, 3, 0, 1), 1, clock)
    # The pause until 100 leaves one row late; the next is a second after the half that is made up.
    assert replayed(clock, replay, iter(replay), 0, 100, 100.4, 100.5, 101.5, 102.5) == [
        *(1, 1, 0, 1, 2, 1)
    ]


def test_a_burst_of_rows_of_the_same_time_is_sent_in_parts() -> None:
    clock = Clock()
    replay = Replay(at(*[5.0] * (BURST + 10)), 1, clock)
    records = iter(replay)
    assert due(replay, records)[0][-1].record.id == BURST - 1
    batch, ended = due(replay, records)
    assert (len(batch), ended) == (10, True)


def test_a_line_a_minute_tells_how_fast_records_went() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now = 59.0
    assert progress.line(50) is None
    clock.now = 60.0
    assert progress.line(600) == "sent=600 rate=10.0/s"
    assert progress.line(700) is None
    clock.now = 120.0
    assert progress.line(1800) == "sent=1800 rate=20.0/s"


class Broker:
    """A producer whose futures are settled by the test."""

    def __init__(self) -> None:
        self.futures: list[Future] = []
        self.offset = 0

    def send(self, topic: str, value: bytes, **_: object) -> Future:
        self.futures.append(Future())
        return self.futures[-1]

    def acknowledge(self, number: int) -> None:
        for future in [f for f in self.futures if not f.is_done][:number]:
            future.success(SimpleNamespace(topic="t", partition=0, offset=self.offset))
            self.offset += 1


def test_no_more_than_the_bound_is_unacknowledged() -> None:
    broker, stop = Broker(), Stop()
    outbox = Outbox(broker, stop, logging.getLogger("test"))
    for _ in range(MAX_UNACKNOWLEDGED):
        outbox.send("t", b"", 0)
    stop.request()
    with pytest.raises(Stopped):
        outbox.send("t", b"", 0)
    assert len(broker.futures) == MAX_UNACKNOWLEDGED
    broker.acknowledge(MAX_UNACKNOWLEDGED // 2)
    outbox.send("t", b"", 0)
    assert outbox.acknowledged == MAX_UNACKNOWLEDGED // 2


def test_a_record_that_cannot_be_delivered_is_raised() -> None:
    broker = Broker()
    outbox = Outbox(broker, Stop(), logging.getLogger("test"))
    outbox.send("t", b"abc", 0)
    broker.futures[0].failure(MessageSizeTooLargeError("too large"))
    with pytest.raises(TopicError, match="t: a record of 3 bytes: MessageSizeTooLargeError"):
        outbox.flush()


def test_a_broker_that_is_away_is_warned_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, clock = Broker(), Clock()
    outbox = Outbox(broker, Stop(), logging.getLogger("test"), clock=clock)
    clock.now = 100.0
    outbox.poll()
    outbox.send("t", b"", 0)
    for second in range(100, 200):
        clock.now = second
        outbox.poll()
    assert [r.message.partition(";")[0] for r in caplog.records] == [
        "no record acknowledged for 11 s",
        "no record acknowledged for 71 s",
    ]
    broker.acknowledge(1)
    outbox.flush()
    assert outbox.acknowledged == 1


def test_records_of_somebody_else_between_its_own_are_warned_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    outbox = Outbox(broker, Stop(), logging.getLogger("test"), clock=Clock())
    broker.offset = 40
    for _ in range(3):
        for _ in range(10):
            outbox.send("t", b"", 0)
        broker.acknowledge(10)
        outbox.flush()
        broker.offset += 2
    (warning,) = caplog.records
    assert warning.message.startswith("t partition 0 offset 50: 2 records of another producer")
