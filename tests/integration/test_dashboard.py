"""The dashboard beside a predictor on a real broker."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping
from typing import Any

from local.process import Process
from tests.integration.test_follower import write
from tests.services import Services, assert_ends, await_line, eventually
from tests.topics import (
    Topics,
    await_serving,
    predict_with_a_swap_a_refusal_and_rejected_records,
)


def served(start: Services, **env: str) -> tuple[Process, str]:
    """Start a dashboard at any free port; return its process and its address."""
    process = start("dashboard", DASHBOARD_PORT="0", **env)
    await_line(process, " the page is at ")
    found = re.search(r" the page is at (\S+)", process.log())
    assert found
    return process, found[1]


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"{address}{path}", timeout=30) as answer:  # noqa: S310 - loopback
        return bytes(answer.read())


def state(address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(address, "/api/state"))
    return found


def await_read(address: str, predictions: int) -> dict[str, Any]:
    """Wait until so many predictions are shown, and return what is shown then."""
    found: dict[str, Any] = {}

    def read() -> bool:
        found.update(state(address))
        return bool(found["windows"]["86400"]["predictions"] == predictions)

    eventually(read, message=lambda: str(found.get("health")))
    return found


def lasting(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what does not change with the time."""
    day = {k: v for k, v in found["windows"]["86400"].items() if "per_second" not in k}
    parts = ("running", "models", "partitions", "refusals", "rejections", "alarms", "changed")
    newest = found["windows"]["10000"]
    return {name: found[name] for name in parts} | {"day": day, "newest": newest}


def test_the_page_says_what_the_topics_say_and_the_same_after_a_restart(
    three: Topics, start: Services
) -> None:
    first, address = served(start)
    predict_with_a_swap_a_refusal_and_rejected_records(three, start, "alarm of ADWIN")
    predictions = [p for partition in range(3) for p in three.predictions(partition)]
    counted = [p for p in predictions if p["label"] is not None and not p.get("seen")]
    right = sum(p["prediction"] == p["label"] for p in counted)

    def whole() -> dict[str, Any] | None:
        """Return what is shown once all topics are read, of which each is read for itself."""
        found = state(address)
        day, seen = found["windows"]["86400"], found["refusals"] and found["alarms"]
        all_of_it = (day["predictions"], day["rejected"], found["lag"]) == (len(predictions), 3, 0)
        return found if seen and all_of_it else None

    found = eventually(whole)
    assert found is not None
    day = found["windows"]["86400"]
    assert (day["n"], day["correct"]) == (len(counted), right)
    assert found["running"]["n"] == len(counted)
    assert found["running"]["accuracy"] == right / len(counted)
    newest, oldest = [row for row in found["models"] if row["predictions"]]
    assert (newest["version"], newest["status"]) == (2, "serving")
    assert (newest["algorithm"], newest["reason"]) == ("LogisticRegression", "alarm of ADWIN")
    assert newest["predictions"] == sum(p["model"] == 2 for p in predictions)
    assert (oldest["version"], oldest["next"]) == (1, 2)
    assert [alarm["version"] for alarm in found["alarms"]] == [2]
    assert (found["refusals"][0]["version"], found["refusals"][0]["status"]) == (3, "refused")
    for number, row in enumerate(found["partitions"]):
        last = three.predictions(number)[-1]
        assert (row["partition"], row["n"], row["lag"]) == (number, last["n"], 0)
    model = json.loads(get(address, "/api/models/2"))
    assert model["n"] == sum(p["model"] == 2 for p in counted)

    second, again = served(start)
    await_read(again, len(predictions))

    def different() -> list[tuple[str, Any, Any]]:
        one, other = lasting(state(address)), lasting(state(again))
        return [(name, one[name], other[name]) for name in one if one[name] != other[name]]

    eventually(lambda: not different(), message=lambda: str(different()))
    for process in (first, second):
        assert_ends(process)


def test_before_the_first_model_the_page_says_what_is_missing(
    topics: Topics, start: Services
) -> None:
    _, address = served(start)
    topics.write(7)
    shown: dict[str, Any] = {}

    def said() -> bool:
        shown.update(state(address))
        return any("7 of 200 labelled records" in why for why in shown["health"]["why"])

    eventually(said)
    assert (shown["health"]["words"], shown["lag"]) == ("Waiting for the first model", 7)


def test_without_topics_the_page_waits_for_them(
    start: Services, settings_env: dict[str, str]
) -> None:
    _, address = served(start)
    missing = ("Waiting for the topics", f"no topic {settings_env['DATA_TOPIC']}")

    def said() -> bool:
        health = state(address)["health"]
        return missing == (health["words"], health["why"][0])

    eventually(said)


def test_a_script_in_an_id_and_in_a_rejected_value_stays_text(
    topics: Topics, start: Services
) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    topics.publish(1)
    start("predictor")
    await_serving(topics, 1)
    values = [attack, json.dumps({"id": attack, "features": [attack, 1.0]})]
    topics.write_values(value.encode() for value in values)
    _, address = served(start)
    eventually(lambda: len(state(address)["rejections"]) == 2)
    assert {row["value"] for row in state(address)["rejections"]} == set(values)
    for path in ("/", "/page/page.js"):
        assert b"alert(" not in get(address, path)


def test_a_recreated_topic_is_read_anew(topics: Topics, start: Services) -> None:
    write(topics, *range(50))
    _, address = served(start)
    await_read(address, 50)
    topics.delete(topics.settings.prediction_topic)
    name = topics.settings.prediction_topic
    topics.admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    write(topics, *range(5))
    await_read(address, 5)


def test_a_dashboard_whose_port_is_in_use_ends_with_one_line(
    topics: Topics, start: Services
) -> None:
    _, address = served(start)
    port = address.rpartition(":")[2]
    second = start("dashboard", DASHBOARD_PORT=port)
    assert second.wait(60) == 2
    (line,) = second.log().splitlines()
    assert f"DASHBOARD_PORT={port}: nobody can listen on DASHBOARD_HOST=127.0.0.1" in line
