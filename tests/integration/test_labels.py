from __future__ import annotations

from typing import Any

from tests.services import Services, eventually
from tests.topics import Topics, await_answered


def made(topics: Topics, partition: int = 0) -> list[dict[str, Any]]:
    """Return the predictions as they were made."""
    return [p for p in topics.predictions(partition) if "outcome" not in p]


def await_outcomes(topics: Topics, count: int, seconds: float = 60.0) -> None:
    eventually(
        lambda: sum(len(topics.outcomes(p)) for p in range(topics.partitions)) >= count,
        seconds,
        lambda: (
            f"{count} outcomes; there are {len(topics.outcomes())} in partition 0,"
            f" {topics.rejected_labels()[-3:]}"
        ),
    )


def await_rejected(topics: Topics, count: int) -> list[dict[str, Any]]:
    eventually(lambda: len(topics.rejected_labels()) >= count, 60)
    return topics.rejected_labels()


def assert_counted_in_order(topics: Topics) -> None:
    """Assert that counts run on in the order of predictions and outcomes, each counted once."""
    for partition in range(topics.partitions):
        n = correct = 0
        predictions = {}
        for p in topics.predictions(partition):
            source = tuple(p["source"])
            if "outcome" not in p:
                assert source not in predictions
                predictions[source] = p
            else:
                first = predictions[source]
                for name in ("id", "prediction", "probability", "model", "source", "time"):
                    assert p[name] == first[name]
            if (
                p["label"] is not None
                and not p.get("seen")
                and p.get("outcome") in (None, "labelled")
            ):
                n += 1
                correct += p["label"] == p["prediction"]
            if p.get("outcome") != "revised":
                assert (p["n"], p["correct"]) == (n, correct)
            correct = p["correct"]


def test_a_label_that_comes_later_is_counted_once_with_the_prediction_as_it_was_made(
    topics: Topics, start: Services
) -> None:
    topics.publish(1)
    topics.write(30)
    topics.write(30, label=False)
    predictor = start("predictor")
    await_answered(topics, 60)
    assert topics.predictions()[-1]["n"] == 30
    topics.publish(2)
    topics.label_ids(*range(30, 60), 30, 31)
    await_outcomes(topics, 30)
    outcomes = topics.outcomes()
    assert [o["source"][1] for o in outcomes] == list(range(30, 60))
    assert [o["label"] for o in outcomes] == [id % 2 for id in range(30, 60)]
    assert [o["n"] for o in outcomes] == list(range(31, 61))
    assert [o["labelled"] for o in outcomes] == [[0, offset] for offset in range(30)]
    assert {o["outcome"] for o in outcomes} == {"labelled"}
    assert {o["model"] for o in outcomes} == {1}
    assert all(0 <= o["delay"] < 300 for o in outcomes)
    assert_counted_in_order(topics)
    rejected = await_rejected(topics, 2)
    assert [r["source"] for r in rejected] == [[0, 30], [0, 31]]
    assert all("the record has the label" in r["reason"] for r in rejected)
    eventually(topics.logged)
    assert predictor.stop() == 0
