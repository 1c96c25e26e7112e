from __future__ import annotations

import random

import pytest

from modelgenerator import join
from modelgenerator.join import Join, Joined
from stream.records import Label


def filled(*ids: int | str, remembered: int = 100, partition: int = 0) -> Join:
    found = Join(remembered)
    for offset, id in enumerate(ids):
        add(found, offset, id, partition)
    return found


def add(to: Join, offset: int, id: int | str, partition: int = 0) -> Joined | None:
    to.read(partition, offset)
    return to.add(partition, offset, id, b"value %d" % offset, 1_000 * offset)


def test_a_label_by_id_is_of_the_record_of_that_id_in_its_partition() -> None:
    found = filled(17, "17", "a")
    assert found.match(0, Label(1, id="17")) == Joined(0, 1, "17", 1, b"value 1")
    assert found.match(1, Label(1, id=17)) is None
    assert found.match(0, Label(0, id=17)) == Joined(0, 0, 17, 0, b"value 0")
    assert (found.waiting, found.oldest) == (1, 2_000)


def test_a_label_by_source_is_of_the_record_at_that_place() -> None:
    found = filled("a", "a", "b")
    assert found.match(0, Label(1, source=(0, 0))) == Joined(0, 0, None, 1, b"value 0")
    assert found.match(0, Label(1, source=(1, 1))) is None
    assert found.match(0, Label(1, id="a", source=(0, 2))) is None
    assert found.match(0, Label(1, id="b", source=(0, 2))) == Joined(0, 2, "b", 1, b"value 2")


def test_of_an_id_that_repeats_the_newest_record_that_waits_is_meant() -> None:
    found = filled("a", "b", "a", "a")
    offsets = [found.match(0, Label(1, id="a")) for _ in range(3)]
    assert [each.offset for each in offsets if each] == [3, 2, 0]
    assert found.match(0, Label(1, id="a")) is None
    assert found.waiting == 1


def test_a_second_label_is_ignored_unless_it_revises_the_first() -> None:
    found = filled("a", "b")
    for source in (None, (0, 0)):
        assert bool(found.match(0, Label(1, "a", source))) == (source is None)
        assert found.match(0, Label(0, "a", source)) is None
        revised = found.match(0, Label(0, "a", source, revises=True))
        assert revised == Joined(0, 0, "a", 0, None, revises=True)


def test_a_second_label_is_not_taken_for_the_first_of_a_later_record_of_the_same_id() -> None:
    found = filled("a")
    assert found.match(0, Label(1, id="a"))
    assert found.match(0, Label(1, id="a")) is None
    assert add(found, 1, "a") is None


def test_a_correction_without_a_label_before_is_the_first_label() -> None:
    found = filled("a", "b")
    assert found.match(0, Label(1, id="a", revises=True)) == Joined(0, 0, "a", 1, b"value 0")
    assert found.match(0, Label(1, source=(0, 1), revises=True)) == Joined(
        0, 1, None, 1, b"value 1"
    )


def test_a_label_that_comes_before_its_record_waits_for_it() -> None:
    found = filled("a")
    assert found.match(0, Label(1, id="b")) is None
    assert found.match(0, Label(0, source=(0, 2))) is None
    assert add(found, 1, "b") == Joined(0, 1, "b", 1, b"value 1")
    assert add(found, 2, "c") == Joined(0, 2, None, 0, b"value 2")
    assert found.waiting == 1


def test_a_record_that_carried_its_label_has_one() -> None:
    found = Join(100)
    found.read(0, 0)
    found.remember(0, 0, "a")
    assert found.match(0, Label(1, id="a")) is None
    assert found.match(0, Label(1, source=(0, 0))) is None


def test_what_does_not_fit_into_memory_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "VALUES_BYTES", 10 * (join._OVERHEAD_BYTES + 7))
    found = filled(*range(10))
    add(found, 10, 10)
    assert found.oldest == 1_000 or found.oldest == 2_000
    assert found.match(0, Label(1, id=0)) == Joined(0, 0, 0, 1, None)
    assert found.match(0, Label(1, source=(0, 9))) == Joined(0, 9, None, 1, b"value 9")


def test_everything_that_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "WAITING", 50)
    monkeypatch.setattr(join, "EARLY", 20)
    monkeypatch.setattr(join, "VALUES_BYTES", 20_000)
    chance, found, offset = random.Random(0), Join(remembered=30), 0
    for _ in range(5_000):
        id: int | str = chance.randrange(300) if chance.random() < 0.5 else "x"
        if chance.random() < 0.6:
            add(found, offset, id)
            offset += 1
        elif chance.random() < 0.5:
            found.match(0, Label(1, id=id, revises=chance.random() < 0.1))
        else:
            found.match(0, Label(1, source=(0, chance.randrange(offset + 30))))
        sizes = {name: len(value) for name, value in vars(found).items() if isinstance(value, dict)}
        assert found.waiting <= 50
        assert sizes["_early"] <= 20
        assert max(sizes["_labelled"], sizes["_labelled_ids"]) <= 30
        assert found._bytes == sum(
            len(value) + join._OVERHEAD_BYTES for _, value, _ in found._values.values()
        )
        assert found._bytes <= 20_000
