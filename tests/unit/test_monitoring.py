"""Alerts, dashboard and documents name metrics that exist, and each that exists is documented."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from dashboard.metrics import QualityMetrics
from tests.services import ROOT, SERVICES

FOLDER = ROOT / "monitoring"
ALERTS = re.findall(r"- alert: (\w+)\n", (FOLDER / "alerts.yml").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OWN = re.compile(rf"\b(?:{'|'.join(SERVICES)}|quality)_[a-z][a-z0-9_]+")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}


def exposed() -> Iterator[tuple[str, str]]:
    """Yield name and type of each metric of the project."""
    for service in SERVICES:
        importlib.import_module(f"{service}.metrics")
    for metric in [*REGISTRY.collect(), *QualityMetrics(dict).collect()]:
        if OWN.fullmatch(metric.name):
            yield metric.name, metric.type


def series() -> set[str]:
    """Return the names under which Prometheus keeps them."""
    return {f"{name}{suffix}" for name, kind in exposed() for suffix in SUFFIXES[kind]}


def queries() -> list[str]:
    """Return the queries of the Grafana dashboard."""
    board: dict[str, Any] = json.loads((FOLDER / "grafana" / "stream.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    found = [each["expr"] for each in [*targets, *board["annotations"]["list"]]]
    assert len(found) > 40
    return found


def test_every_metric_in_a_query_of_the_dashboard_exists() -> None:
    named = {name for query in queries() for name in OWN.findall(query)}
    assert named - series() == set()


@pytest.mark.parametrize("file", ["alerts.yml", "alerts_test.yml"])
def test_every_metric_in_an_alert_exists(file: str) -> None:
    named = {*OWN.findall((FOLDER / file).read_text())}
    assert len(named) >= 8
    assert named - series() == set()


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    found = {f"{name}_total" if kind == "counter" else name for name, kind in exposed()}
    assert {*re.findall(rf"`({OWN.pattern})`", OPERATIONS)} == found


def test_every_alert_is_documented_and_tested_both_to_fire_and_not_to() -> None:
    assert {*re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", OPERATIONS, re.MULTILINE)} == {*ALERTS}
    tests = (FOLDER / "alerts_test.yml").read_text()
    silent = re.findall(r"alertname: (\w+), exp_alerts: \[\]", tests)
    fires = re.findall(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels", tests)
    assert {*silent} == {*fires} == {*ALERTS}


def test_prometheus_looks_where_compose_lets_the_services_listen() -> None:
    compose = (FOLDER / "docker-compose.yml").read_text()
    prometheus = (FOLDER / "prometheus.yml").read_text()
    (port,) = {*re.findall(r"METRICS_PORT: (\d+)", compose)}
    found = dict(re.findall(r"names: \[(\w+)\], type: A, port: (\d+)", prometheus))
    assert {service: found[service] for service in SERVICES} == dict.fromkeys(SERVICES, port)


def test_what_monitoring_publishes_is_reached_from_this_machine_alone() -> None:
    ports = re.findall(r"ports: \[(.*)\]", (FOLDER / "docker-compose.yml").read_text())
    assert len(ports) == 2
    assert all(port.startswith('"127.0.0.1:') for port in ports)
