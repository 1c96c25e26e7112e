from __future__ import annotations

from modelgenerator.training.pace import Pace

COSTS = {"sgd": 1.0, "knn": 5.0, "hgb": 3.0}


class Stream:
    """A pace that is looked at once a second; half of it goes into 1,000 records."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pace = Pace(lambda: self.now)
        self.costs = dict(COSTS)

    def seconds(self, count: int, unread: int) -> list[str]:
        said = []
        for _ in range(count):
            self.now += 1.0
            self.costs = {n: spent + COSTS[n] for n, spent in self.costs.items()}
            self.pace.took(0.5, 1_000)
            if what := self.pace.look(unread, self.costs):
                said.append(what)
        return said


def test_a_stream_that_is_kept_up_with_is_trained_on_as_often_as_usual() -> None:
    one = Stream()
    assert one.seconds(100, unread=1_000) == []
    assert (one.pace.stretch, one.pace.left_out) == (1, [])


def test_while_training_is_behind_it_trains_more_and_more_seldom() -> None:
    one = Stream()
    assert one.seconds(2, unread=2_000) == [
        "training is 1.5 s behind: recipes are trained 2 times more seldom",
        "training is 1.5 s behind: recipes are trained 4 times more seldom",
    ]
    assert one.pace.stretch == 4


def test_the_further_behind_the_larger_the_first_step() -> None:
    one = Stream()
    assert one.seconds(1, unread=20_000) == [
        "training is 10.5 s behind: recipes are trained 16 times more seldom"
    ]


def test_a_batch_that_takes_long_is_behind_though_nothing_else_waits() -> None:
    one = Stream()
    one.pace.took(3.2, 640)
    assert one.seconds(1, unread=0) == [
        "training is 3.2 s behind: recipes are trained 4 times more seldom"
    ]
    one.seconds(5, unread=0)
    assert one.pace.stretch == 1


def test_it_looks_once_a_second() -> None:
    one = Stream()
    one.seconds(1, unread=2_000)
    one.now += 0.9
    one.pace.took(5.0, 1_000)
    assert one.pace.look(5_000, one.costs) is None
    assert one.pace.stretch == 2


def test_then_the_costliest_recipes_are_left_out_but_never_the_last_one() -> None:
    one = Stream()
    said = one.seconds(20, unread=9_000)
    assert said[3:] == [
        "training is 5.0 s behind: recipe knn is left out for now",
        "training is 5.0 s behind: recipe hgb is left out for now",
    ]
    assert (one.pace.stretch, one.pace.left_out) == (32, ["knn", "hgb"])


def test_when_it_keeps_up_again_each_step_is_taken_back() -> None:
    one = Stream()
    one.seconds(6, unread=9_000)
    said = one.seconds(100, unread=0)
    assert said == [
        "recipe hgb is trained again",
        "recipe knn is trained again",
        "recipes are trained as often as usual again",
    ]
    assert (one.pace.stretch, one.pace.left_out) == (1, [])


def test_a_step_that_was_taken_back_too_soon_is_taken_back_later_the_next_time() -> None:
    one = Stream()

    def until_back() -> int:
        one.seconds(1, unread=2_000)
        seconds = 0
        while one.pace.stretch > 1:
            one.seconds(1, unread=0)
            seconds += 1
        return seconds

    waits = [until_back() for _ in range(12)]
    assert waits == sorted(waits)
    assert waits[2] > waits[0]
    assert waits[-1] == 300
