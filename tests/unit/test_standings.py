from __future__ import annotations

import numpy as np
import pytest

from modelgenerator.training.gate import Gate
from modelgenerator.training.standings import Standing, weights


def standing(
    gate: Gate, losses: list[float], labels: list[int], half_life: float = 500
) -> Standing:
    found = Standing(gate, half_life)
    found.add(np.array(losses, dtype=np.float64), np.array(labels))
    return found


def test_there_is_no_standing_before_the_first_scored_record() -> None:
    assert Standing(Gate()).value is None


def test_a_score_counts_half_after_the_half_life() -> None:
    found = standing(Gate(), [0.0] * 10_000 + [1.0] * 500, [1] * 10_500)
    assert found.value == pytest.approx(0.5, abs=1e-4)


def test_blocks_change_nothing() -> None:
    rng = np.random.default_rng(0)
    losses, labels = rng.random(1_000), rng.integers(0, 2, 1_000)
    whole, pieces = Standing(Gate("balanced_accuracy")), Standing(Gate("balanced_accuracy"))
    whole.add(losses, labels)
    for part in np.split(np.arange(1_000), [1, 26, 700, 700]):
        pieces.add(losses[part], labels[part])
    assert pieces.value == pytest.approx(whole.value)
    assert pieces.ones == pytest.approx(whole.ones)


def test_in_a_balanced_standing_each_label_counts_half() -> None:
    losses, labels = [1.0] + [0.0] * 99, [1] + [0] * 99
    assert standing(Gate(), losses, labels, 1e9).value == pytest.approx(0.99)
    assert standing(Gate("balanced_accuracy"), losses, labels, 1e9).value == pytest.approx(0.5)


def test_the_share_of_ones_is_known() -> None:
    assert standing(Gate(), [0.0] * 4, [1, 0, 0, 0], 1e9).ones == pytest.approx(0.25)
    assert Standing(Gate()).ones == 0


def test_a_recipe_that_is_better_by_one_point_has_e_times_the_weight() -> None:
    found = weights({"a": 0.90, "b": 0.89})
    assert found["a"] / found["b"] == pytest.approx(np.e)
    assert sum(found.values()) == pytest.approx(1)


def test_a_recipe_with_hardly_any_weight_does_not_vote() -> None:
    assert weights({"a": 0.9, "b": 0.8}) == {"a": 1.0}


def test_recipes_that_were_not_scored_yet_wait_unless_none_was() -> None:
    assert weights({"a": 0.7, "b": None}) == {"a": 1.0}
    assert weights({"a": None, "b": None}) == {"a": 0.5, "b": 0.5}


P, LABELS = np.array([0.9, 0.6, 0.6, 0.1]), np.array([1, 1, 0, 0])


@pytest.mark.parametrize(
    ("text", "threshold", "losses"),
    [
        ("accuracy", 0.5, [0, 0, 1, 0]),
        ("balanced_accuracy", 0.2, [0, 0, 1, 0]),
        ("cost:1,4", 0.2, [0, 0, 0.25, 0]),
        ("cost:9,1", 0.9, [1 / 9, 1 / 9, 0, 0]),
        ("log_loss", 0.5, -np.log([0.9, 0.6, 0.4, 0.9])),
    ],
)
def test_a_gate_says_what_a_prediction_is_blamed_for_and_when_it_is_1(
    text: str, threshold: float, losses: list[float]
) -> None:
    gate = Gate.parse(text)
    assert gate.threshold(0.2) == pytest.approx(threshold)
    assert gate.losses(P, LABELS, gate.threshold(0.2)) == pytest.approx(losses)


def test_a_record_that_was_thought_impossible_does_not_decide_alone() -> None:
    assert Gate("log_loss").losses(np.array([0.0]), np.array([1]), 0.5).tolist() == pytest.approx(
        [-np.log(0.01)]
    )


@pytest.mark.parametrize("text", ["", "Accuracy", "cost", "cost:1", "cost:0,1", "cost:-1,2", "f1"])
def test_another_gate_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are accuracy, balanced_accuracy, log_loss, and"):
        Gate.parse(text)
