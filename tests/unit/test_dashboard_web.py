"""What the dashboard answers over HTTP; no Kafka is needed."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import time
from collections.abc import Iterator

import pytest

from dashboard.settings import DashboardSettings
from dashboard.state import State
from dashboard.web import FILES, Page
from stream.follower import Said
from stream.records import Rejected
from stream.settings import SettingsError


def settings(port: int = 0, host: str = "127.0.0.1") -> DashboardSettings:
    return DashboardSettings.model_validate({"dashboard_port": port, "dashboard_host": host})


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def page(state: State) -> Iterator[Page]:
    with Page(settings(), state) as found:
        yield found


def get(page: Page, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read()


@pytest.mark.parametrize("path", ["/", "/api/state", "/page/page.js", "/nothing"])
def test_every_answer_forbids_foreign_content(page: Page, path: str) -> None:
    answer, _ = get(page, path)
    assert answer.status == (404 if path == "/nothing" else 200)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_a_foreign_name_does_not_lead_to_a_page_that_is_for_this_machine(page: Page) -> None:
    for host, status in (("localhost", 200), ("127.0.0.1:99", 200), ("evil.example", 400)):
        assert get(page, "/api/state", Host=host)[0].status == status


def test_whoever_binds_to_all_interfaces_is_reached_under_any_name_and_is_warned(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    with Page(settings(host="0.0.0.0"), state) as page:  # noqa: S104 - the case
        assert get(page, "/api/state", Host="stream.example")[0].status == 200
    assert "whoever reaches DASHBOARD_HOST=0.0.0.0 sees it" in caplog.text


def test_an_address_in_use_is_one_line_that_names_the_variables(page: Page, state: State) -> None:
    with (
        pytest.raises(SettingsError, match=f"DASHBOARD_PORT={page.port}: nobody can listen on "),
        Page(settings(page.port), state),
    ):
        pass


def test_the_state_is_json_and_events_bring_only_what_is_new(page: Page, state: State) -> None:
    answer, content = get(page, "/api/state")
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(content)["health"]["state"] == "broken"

    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", "/events")
    stream = connection.getresponse()
    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert json.loads(event(stream)).keys() == state.shown.keys()
    state.rejected(Said(1, Rejected((0, 7), "no <b>reason", 3, "<script>")), 1.0)
    state.publish()
    while not (found := json.loads(event(stream))):
        pass
    assert found["rejections"][0]["value"] == "<script>"
    assert "models" not in found


def event(stream: http.client.HTTPResponse) -> bytes:
    line = stream.readline()
    assert stream.readline() == b"\n"
    return line.removeprefix(b"data: ")


def test_the_scores_of_one_version_are_answered_or_it_is_unknown(page: Page, state: State) -> None:
    assert get(page, "/api/models/7")[0].status == 404
    state.quality.model(7).at(int(1_000 * time.time()))
    answer, content = get(page, "/api/models/7")
    assert (answer.status, json.loads(content)["n"]) == (200, 0)


def test_the_page_is_small_and_names_no_address_outside() -> None:
    files = [path for path in FILES.iterdir() if path.suffix in {".html", ".js", ".css", ".svg"}]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 100_000
    for path in files:
        named = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert named <= {"https://github.com/leeoniya/uPlot", "http://www.w3.org/2000/svg"}, path


def test_nothing_makes_markup_of_a_text_and_no_script_or_style_stands_in_the_page() -> None:
    script = (FILES / "page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
    page = (FILES / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)
