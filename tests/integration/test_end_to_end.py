from __future__ import annotations

from itertools import pairwise

import orjson
from kafka import TopicPartition

from stream import reading
from tests.services import Services, eventually
from tests.topics import Topics, assert_exactly_once


def test_models_swap_while_sea_is_predicted_well_above_its_majority_class_and_all_of_it_verifies(
    start: Services, settings_env: dict[str, str]
) -> None:
    stream = {"STREAM": "sea", "RATE": "500", "DATA_PARTITIONS": "2"}
    services = [
        start(service, **stream) for service in ("predictor", "modelgenerator", "datagenerator")
    ]
    with Topics(settings_env, partitions=2) as topics:

        def enough() -> bool:
            seen = topics.predictions(0) + topics.predictions(1)
            return len(seen) >= 5_000 and len({p["model"] for p in seen}) >= 3

        eventually(enough, 180, lambda: f"{topics.answered()} answers")
        assert services[-1].stop() == 0
        places = [TopicPartition(topics.settings.data_topic, number) for number in (0, 1)]
        records = sum(reading.bounds(topics.consumer, place)[1] for place in places)
        eventually(lambda: topics.answered() == records, 120, lambda: f"{records} answers")
        predictions = topics.predictions(0) + topics.predictions(1)
        assert_exactly_once(topics)

    counted = [p for p in predictions if p["label"] is not None and not p.get("seen")]
    accuracy = sum(p["prediction"] == p["label"] for p in counted) / len(counted)
    positive = sum(p["label"] for p in counted) / len(counted)
    assert accuracy > max(positive, 1 - positive) + 0.05
    for partition in (0, 1):
        versions = [p["model"] for p in predictions if p["source"][0] == partition]
        assert all(older <= newer for older, newer in pairwise(versions))

    topics.check(topics.log)
    verified = start.verify("--log", str(topics.log), "--json")
    report = orjson.loads(verified.stdout)
    assert (verified.returncode, report["verified"]) == (0, True)
    assert report["predictions"] == records
    assert [service.stop() for service in services[:2]] == [0, 0]
    assert not any("Traceback" in service.log() for service in services)
