from __future__ import annotations

from statistics import mean

from tests.services import ROOT, Services, eventually
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


def test_the_producer_with_named_features_is_in_the_document_and_its_customers_are_learnt(
    topics: Topics, start: Services
) -> None:
    source = (ROOT / "examples" / "producer_by_name.py").read_text()
    assert f"```python\n{source}```" in (ROOT / "docs" / "your-own-data.md").read_text()
    assert start.python("examples/producer_by_name.py").returncode == 0
    start("modelgenerator")
    start("predictor")
    eventually(lambda: len(topics.predictions()) == 1_000)
    assert topics.rejected() == []
    predictions = topics.predictions()[200:]
    assert mean(p["prediction"] == p["label"] for p in predictions) > 0.9
    assert 0.3 < mean(p["label"] for p in predictions) < 0.5  # two in five, by chance
    topics.check()
