"""What Prometheus itself says of the configuration, the alerts and the queries of the dashboard."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.services import ROOT
from tests.unit.test_monitoring import ALERTS, FOLDER, queries


def promtool(*arguments: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run(
        ["promtool", *arguments],  # noqa: S607 - where it is installed differs
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_configuration_and_its_alerts_are_valid() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    done = promtool("test", "rules", "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_that_is_always_or_never_on_fails_its_tests(alert: str, tmp_path: Path) -> None:
    whole = (FOLDER / "alerts.yml").read_text()
    before, expression, after = re.split(
        rf"(- alert: {alert}\n +expr: (?:>-\n(?: {{10}}.*\n)+|.*\n))", whole
    )
    (tmp_path / "alerts_test.yml").write_text((FOLDER / "alerts_test.yml").read_text())
    name = expression.partition("expr:")[0]
    for constant in ("vector(1)", "vector(1) < 0"):
        (tmp_path / "alerts.yml").write_text(f"{before}{name}expr: {constant}\n{after}")
        done = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
        assert done.returncode == 1, f"{alert}: {constant}"
        assert f"alertname: {alert}" in done.stdout + done.stderr


def test_the_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [
        f"      - {{record: 'query:{number}', expr: {query!r}}}\n"
        for number, query in enumerate(map(filled_in, queries()))
    ]
    text = "groups:\n  - name: queries\n    rules:\n" + "".join(rules)
    (tmp_path / "queries.yml").write_text(text)
    done = promtool("check", "rules", "queries.yml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def filled_in(query: str) -> str:
    """Return a query as Grafana sends it."""
    query = re.sub(r"\$__(rate_)?interval", "1m", query).replace("$window", "hour")
    assert "$" not in query
    return query


def test_the_version_that_is_pinned_for_compose_and_this_promtool_read_the_same_files() -> None:
    text = (ROOT / "monitoring" / "docker-compose.yml").read_text()
    assert re.search(r"image: prom/prometheus:v[23]\.\d+\.\d+\n", text)
