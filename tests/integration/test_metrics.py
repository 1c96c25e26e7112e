"""What Prometheus reads of the running services is what stands on the topics."""

from __future__ import annotations

import signal
import socket
from collections import Counter
from collections.abc import Callable
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from local.kafka import free_port
from local.process import Process
from tests.services import (
    SERVICES,
    Services,
    assert_ends,
    await_line,
    eventually,
    last_error,
)
from tests.topics import Topics, await_answered, await_serving
from tests.unit.classifiers import Slow
from tests.unit.test_monitoring import SUFFIXES, exposed

Scrape = Callable[[], Counter[str]]


@pytest.fixture
def port() -> str:
    """Return a port on which nobody listens."""
    return str(free_port())


@pytest.fixture
def scrape(port: str) -> Scrape:
    """Return what scrapes a service: its own samples as ``name{value of its label}``."""

    def scrape() -> Counter[str]:
        found: Counter[str] = Counter()
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                text = answer.read().decode()
        except OSError:  # it has not started yet, or has given up a client that was suspended
            return found
        for metric in text_string_to_metric_families(text):
            if metric.name.startswith(("process_", "python_")):  # these change all the time
                continue
            for sample in metric.samples:
                labels = ",".join(sample.labels.values())
                found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value  # type: ignore[assignment] # floats are counted, too
        return found

    return scrape


def test_the_datagenerator_tells_how_many_records_and_labels_it_has_sent(
    topics: Topics, start: Services, port: str, scrape: Scrape
) -> None:
    settings = topics.settings
    start("datagenerator", METRICS_PORT=port, RATE="1000", COUNT="300", LABEL_DELAY="0.1")
    of_both = (settings.data_topic, settings.label_topic)
    sent = {f"datagenerator_records_sent_total{{{topic}}}": 300 for topic in of_both}
    eventually(lambda: sent.items() <= scrape().items())
    assert [len(topics.records(topic)) for topic in of_both] == [300, 300]
    assert scrape()["datagenerator_target_records_per_second"] == 1_000


def test_the_modelgenerator_tells_what_it_has_read_trained_and_published(
    topics: Topics, start: Services, port: str, scrape: Scrape
) -> None:
    process = start("modelgenerator", METRICS_PORT=port)
    topics.write(450)
    eventually(lambda: scrape()["modelgenerator_records_read_total"] == 450)
    eventually(lambda: scrape()["modelgenerator_model_version"] >= 2)
    topics.write(25)  # what is said is of whole blocks
    eventually(lambda: scrape()["modelgenerator_window_records"] >= 450)
    assert_counts_what_was_published(topics, scrape)
    assert_ends(process)


def assert_counts_what_was_published(topics: Topics, scrape: Scrape) -> None:
    """Assert that each published model is counted once, also under its reason, and each fit."""

    def same() -> bool:
        found = scrape()
        reasons = Counter(model.reason.partition(" ")[0] for model, _ in topics.assembled())
        counted = {r: found[f"modelgenerator_models_published_total{{{r}}}"] for r in reasons}
        published = found["modelgenerator_publish_seconds_count"]
        all_counted = counted == reasons and published == reasons.total()
        return bool(reasons) and all_counted and scrape() == found

    eventually(same)
    assert scrape()["modelgenerator_training_seconds_count{linear}"] >= 1


def test_the_predictor_tells_what_it_has_predicted_and_what_became_of_models(
    topics: Topics, start: Services, port: str, scrape: Scrape
) -> None:
    topics.publish(1)
    predictor = start("predictor", METRICS_PORT=port, MODEL_MAX_MICROSECONDS="3000")
    eventually(lambda: scrape()["predictor_model_version"] == 1)
    topics.write(100)
    topics.write_values([b"not JSON", b'{"id": 1}'])
    topics.write(20, label=False)
    await_answered(topics, 122)
    topics.label_ids(*range(100, 110))
    eventually(lambda: len(topics.outcomes()) == 10)
    topics.publish(2, Slow(0.005))
    await_line(predictor, "refused model 2")
    topics.publish(3)
    await_serving(topics, 3)
    await_answered(topics, topics.written() + 2 + 10)  # rejected ones, and outcomes
    eventually(lambda: scrape()["predictor_model_version"] == 3)
    made = Counter(str(p["prediction"]) for p in topics.predictions() if "outcome" not in p)
    assert made.total() == topics.written()
    assert len(topics.rejected()) == 2
    told = {
        **{f"predictor_predictions_total{{{n}}}": made[n] for n in "01"},
        "predictor_lag_records{0}": 0,
        "predictor_outcomes_total{labelled}": made.total() - 10,
        "predictor_waiting_predictions": 10,
        "predictor_label_delay_seconds_count": 10,
        "predictor_models_refused_total": 1,
        "predictor_swaps_total": 1,
    }
    eventually(  # a unit's counts are told one after the other, after its commit
        lambda: told.items() <= scrape().items(), message=lambda: f"{told}, got {scrape()}"
    )
    found, again = scrape(), read_again(predictor)
    assert found["predictor_transaction_seconds_count"] >= 3
    assert found["predictor_transactions_failed_total"] <= again
    assert found["predictor_records_read_total"] >= topics.written() + 2
    assert again or found["predictor_records_read_total"] == topics.written() + 2


def read_again(predictor: Process) -> int:
    """Return how often it has resumed: also after a suspension that was longer than its session."""
    return predictor.log().count(" predictor: partitions ") - 1


def test_a_transaction_that_failed_is_counted_and_its_records_only_once(
    topics: Topics, start: Services, port: str, scrape: Scrape
) -> None:
    topics.publish(1)
    predictor = start("predictor", METRICS_PORT=port, REPLICA="one")
    await_serving(topics, 1)

    def failed() -> float:
        """Fence the predictor; if it is suspended beyond its session, it has a new producer."""
        with topics.transactional(f"{topics.group}-one"):
            topics.write(50)
        await_answered(topics)
        return scrape()["predictor_transactions_failed_total"]

    eventually(failed)
    eventually(lambda: scrape()["predictor_outcomes_total{labelled}"] == topics.written())
    assert scrape()["predictor_transactions_failed_total"] <= read_again(predictor)
    assert scrape()["predictor_records_read_total"] > topics.written()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_exposes_what_is_documented_of_it_and_ends_while_it_is_scraped(
    service: str, topics: Topics, start: Services, port: str, scrape: Scrape
) -> None:
    process = start(service, METRICS_PORT=port)
    eventually(scrape)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    for name, kind in exposed():
        if name.startswith(f"{service}_"):
            assert f"# TYPE {name}{SUFFIXES[kind][0].removesuffix('_bucket')} {kind}\n" in text
    assert "process_cpu_seconds_total" in text
    with socket.create_connection(("127.0.0.1", int(port))):  # a scraper that says nothing
        assert_ends(process, signal.SIGTERM)


def test_a_port_that_is_taken_ends_the_start_with_a_line_that_names_the_setting(
    topics: Topics, start: Services, port: str
) -> None:
    with socket.create_server(("127.0.0.1", int(port))):
        line = last_error(start("predictor", METRICS_PORT=port), status=2)
    assert line.startswith(f"METRICS_PORT={port}: nobody can listen on METRICS_HOST=127.0.0.1: ")
    process = start("predictor")
    await_line(process, "partitions 0@0")
    assert "metrics at" not in process.log()
