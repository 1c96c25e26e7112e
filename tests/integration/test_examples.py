from __future__ import annotations

from tests.services import Services, eventually
from tests.topics import Topics


def test_the_producer_of_the_readme_is_predicted(
    start: Services, settings_env: dict[str, str]
) -> None:
    with Topics(settings_env) as topics:
        assert start.python("examples/producer.py").returncode == 0
        topics.publish(1)
        start("predictor")
        eventually(lambda: len(topics.predictions()) == 1_000)
        assert topics.rejected() == []
        assert [p["id"] for p in topics.predictions()] == list(range(1_000))
