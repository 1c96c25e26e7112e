"""A model's report in a real browser, of a model of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize

from tests.browser.conftest import Visit
from tests.browser.stack import DESKTOP, PHONE, Stack, picture
from tests.services import eventually

PAPER: ViewportSize = {"width": 718, "height": 1_047}
"""A4 between margins of 1 cm, at 96 pixels an inch."""


@pytest.fixture(scope="module")
def report(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the report of the first model, which has been replaced."""
    replaced = eventually(
        lambda: [m for m in stack.state().get("models", []) if m["predictions"] > 200][1:], 120
    )
    path: Path = tmp_path_factory.mktemp("report") / "model.html"
    version = str(replaced[-1]["version"])
    command = ("-m", "modelgenerator.models", "report", version, "--output", str(path))
    done = stack.services.python(*command)
    assert done.returncode == 0, done.stderr
    return path.as_uri()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_in_a_report_keeps_anybody_out(
    report: str, visit: Visit, viewport: ViewportSize, scheme: str
) -> None:
    page = visit(report, viewport=viewport, color_scheme=scheme)
    picture(page, f"report-{'phone' if viewport == PHONE else 'desktop'}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def test_a_report_is_printed_dark_on_white_with_nothing_cut_off(report: str, visit: Visit) -> None:
    page = visit(report, viewport=PAPER, color_scheme="dark")
    page.emulate_media(media="print")
    picture(page, "report-printed")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
