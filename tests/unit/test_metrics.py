from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Callable, Iterator
from itertools import islice
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import local.services
import stream.metrics
from datagenerator.outbox import Outbox
from modelgenerator.training.recipes import RECIPES
from modelgenerator.training.trainer import Trainer
from modelgenerator.window import Labelled
from predictor import metrics
from predictor.model_shelf import ModelShelf
from predictor.tally import Tally
from stream.service import Stop
from stream.settings import SettingsError, StreamSettings
from tests.services import SERVICES
from tests.unit.classifiers import envelope, model
from tests.unit.streams import TWO, linear, observe, turned
from tests.unit.streams import stream as records_of
from tests.unit.test_late_labels import Partition, label, record
from tests.unit.test_sources import Broker

LOG = logging.getLogger("test")
Gained = Callable[..., float]


@pytest.fixture
def gained() -> Gained:
    """Return how much a sample has risen since the test began."""
    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }

    def gained(name: str, **labels: str) -> float:
        now = REGISTRY.get_sample_value(name, labels)
        assert now is not None, f"{name} {labels}"
        return now - before.get((name, *sorted(labels.items())), 0.0)

    return gained


@pytest.fixture
def port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def at(port: int) -> StreamSettings:
    return StreamSettings.model_validate({"metrics_port": port})


def test_predictions_are_counted_by_what_was_predicted_and_rejected_records_beside_them(
    gained: Gained,
) -> None:
    partition = Partition()
    events = [record(0, 1), record(1, 0, feature=-1.0), record(2, 0), record(3)._replace(value=b"")]
    metrics.committed(partition.unit(*events))
    assert gained("predictor_predictions_total", prediction="1") == 2
    assert gained("predictor_predictions_total", prediction="0") == 1
    assert gained("predictor_outcomes_total", outcome="labelled") == 3
    assert gained("predictor_rejected_records_total") == 1


def test_a_label_that_comes_later_is_an_outcome_with_a_delay_and_no_prediction(
    gained: Gained,
) -> None:
    partition = Partition(label_wait="1", label_assume="0")
    first = partition.unit(record(0, id="a", time=2_000), record(1, id="b", time=2_000))
    metrics.committed(first)
    metrics.committed(partition.unit(label(0, 1, 5_500, id="b"), label(1, 1, 6_000, id="nobody")))
    metrics.committed(partition.unit(label(2, 0, 9_000, id="b", revises=True), ended=True))
    assert gained("predictor_predictions_total", prediction="1") == 2
    for outcome, count in {"labelled": 1, "assumed": 1, "revised": 1, "expired": 0}.items():
        assert gained("predictor_outcomes_total", outcome=outcome) == count, outcome
    assert gained("predictor_label_delay_seconds_sum") == 3.5
    assert gained("predictor_label_delay_seconds_bucket", le="1.0") == 0
    assert gained("predictor_label_delay_seconds_bucket", le="10.0") == 1
    assert gained("predictor_label_delay_seconds_count") == 1


def test_counts_from_before_a_restart_do_not_come_again(gained: Gained) -> None:
    partition = Partition(Tally(tp=1_000, seen=50, expired=3))
    metrics.committed(partition.unit(record(0, 1)))
    assert gained("predictor_outcomes_total", outcome="labelled") == 1
    assert gained("predictor_outcomes_total", outcome="expired") == 0


def test_what_the_shelf_does_with_models_is_counted(gained: Gained) -> None:
    shelf = ModelShelf()
    for version in (1, 2, 3):
        shelf.put(model(version))
    shelf.count_refused("too slow", 2)
    for _ in range(2):  # by another replica, too
        shelf.bar(3)
    assert gained("predictor_swaps_total") == 2
    assert gained("predictor_models_refused_total") == 2
    assert gained("predictor_models_barred_total") == 1


def test_lateness_is_the_records_between_training_and_the_first_prediction(gained: Gained) -> None:
    metrics.swapped({"0": 120, "1": 200, "2": 7}, envelope(trained_to={"0": 99, "1": 189}))
    metrics.swapped({"0": 50}, envelope(trained_to={"0": 99}))
    metrics.swapped({"0": 50}, envelope(trained_to={}))  # it was trained elsewhere
    assert gained("predictor_model_lateness_records_sum") == 30
    assert gained("predictor_model_lateness_records_count") == 2


def test_gauges_say_what_stands_now_and_forget_partitions_that_went_to_another_replica() -> None:
    gauges = metrics.Gauges()
    gauges.set({0: 5, 1: 70}, 9, envelope(12, created="2026-11-23T20:00:00.000Z"))
    value = REGISTRY.get_sample_value
    assert value("predictor_lag_records", {"partition": "1"}) == 70
    assert value("predictor_waiting_predictions") == 9
    assert value("predictor_model_version") == 12
    assert value("predictor_model_created_timestamp_seconds") == 1_795_464_000
    gauges.set({0: 6}, 0, None)
    assert value("predictor_lag_records", {"partition": "0"}) == 6
    assert value("predictor_lag_records", {"partition": "1"}) is None
    assert value("predictor_model_version") == 0
    gauges.set({}, 0, envelope(13, created="yesterday"))
    assert value("predictor_model_version") == 13


def test_training_is_timed_by_recipe_and_the_window_is_told(gained: Gained) -> None:
    recipe = RECIPES[0]
    trainer = Trainer([recipe])
    records = [Labelled(0, n, [n % 7, 1.0], n % 2) for n in range(250)]
    assert [*trainer.observe(records)]
    trainer.keep_up(1_234)
    assert gained("modelgenerator_training_seconds_count", recipe=recipe.name) >= 1
    assert REGISTRY.get_sample_value("modelgenerator_window_records") == 250
    assert REGISTRY.get_sample_value("modelgenerator_lag_records") == 1_234


def test_a_drift_raises_alarms_of_what_serves_and_of_recipes(gained: Gained) -> None:
    trainer = Trainer(TWO)
    observe(trainer, linear_then_turned(), 3_500)
    for recipe in ("vote", "hgb_since"):
        assert gained("modelgenerator_drift_alarms_total", recipe=recipe) >= 1, recipe


def linear_then_turned() -> Iterator[Labelled]:
    """Yield records whose labels turn after 2,000 of them."""
    yield from islice(records_of(linear), 2_000)
    yield from records_of(turned, start=2_000)


def test_records_are_counted_by_topic_once_the_brokers_have_acknowledged_them(
    gained: Gained,
) -> None:
    broker = Broker()
    outbox = Outbox(broker, Stop(), LOG)
    for topic in ("data", "label", "data", "data"):
        outbox.send(topic, b"1", 0)
    broker.acknowledge(3)
    outbox.poll()
    assert gained("datagenerator_records_sent_total", topic="data") == 2
    assert gained("datagenerator_records_sent_total", topic="label") == 1


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_exposes_is_in_the_format_of_prometheus_with_its_names_and_units(
    service: str,
) -> None:
    importlib.import_module(f"{service}.metrics")
    found = [*text_string_to_metric_families(generate_latest(REGISTRY).decode())]
    own = [metric for metric in found if metric.name.startswith(f"{service}_")]
    assert len(own) >= 2
    for metric in own:
        assert metric.documentation.endswith(".")
        assert not metric.name.endswith(("_ms", "_minutes", "_percent", "_count", "_sum"))
    assert {"process_cpu_seconds", "python_gc_objects_collected"} <= {m.name for m in found}


def test_a_scrape_is_answered_while_another_client_says_nothing(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.metrics._Handler.timeout == stream.metrics.CLIENT_SECONDS
    monkeypatch.setattr(stream.metrics._Handler, "timeout", 0.2)
    stream.metrics.serve(at(port), LOG)
    with socket.create_connection(("127.0.0.1", port)), urlopen(f"http://127.0.0.1:{port}/") as got:
        text = got.read().decode()
        assert "version=0.0.4" in got.headers["Content-Type"]
    assert "# TYPE predictor_predictions_total counter\n" in text
    assert "_created" not in text.replace("predictor_model_created", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_where_nobody_can_listen_one_line_names_the_settings(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = at(port).model_copy(update={"metrics_host": host})
        with pytest.raises(SettingsError) as raised:
            stream.metrics.serve(settings, LOG)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"METRICS_PORT={port}: nobody can listen on METRICS_HOST={host}: ")


@pytest.mark.parametrize(("given", "ports"), [("9464", "9464 9465 9466"), ("0", "0 0 0")])
def test_services_that_are_started_on_one_machine_get_a_port_each(
    given: str, ports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.services, "Process", lambda *_, env: env["METRICS_PORT"])
    env = {"METRICS_PORT": given}
    assert " ".join(str(local.services.start(name, env)) for name in SERVICES) == ports
