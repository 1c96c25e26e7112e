from __future__ import annotations

from tests.services import PATIENCE_SECONDS, Services, eventually
from tests.topics import Topics


def test_a_unit_of_a_topic_that_was_recreated_meanwhile_costs_no_record_of_the_new_one(
    three: Topics, start: Services, settings_env: dict[str, str]
) -> None:
    three.publish(1)
    three.write(3_000)
    predictor = start("predictor", COMMIT_INTERVAL_MS="2000")
    eventually(lambda: three.answered() == 3_000, PATIENCE_SECONDS)
    three.write(600)
    predictor.pause()  # for less than its session timeout: it stays a member of the group
    three.delete(three.settings.data_topic)
    with Topics(settings_env, partitions=3) as again:
        again.write(6_000)
        predictor.wake()
        eventually(
            lambda: sum(again.predictions(p)[-1]["source"][1] + 1 for p in range(3)) == 6_000,
            PATIENCE_SECONDS,
            lambda: str([again.predictions(p)[-1] for p in range(3)]),
        )
        ids = [[p["id"] for p in again.predictions(partition)][-2_000:] for partition in range(3)]
        assert ids == [list(range(partition, 6_000, 3)) for partition in range(3)]
        assert again.answered() <= 3_000 + 600 + 6_000
    report = again.check(again.log, recreated=True)
    assert report.n <= 3_000 + 600 + 6_000
