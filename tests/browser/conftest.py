"""What the tests in a browser share: one stack, one browser, a page each that has no errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.browser.stack import DESKTOP, Stack, browser, running

SECONDS = 60_000
"""How long what takes a second may take on a busy machine, in ms."""

expect.set_options(timeout=SECONDS)


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack")) as found:
        yield found


Visit = Callable[..., Page]


@pytest.fixture
def errors() -> list[str]:
    """What the consoles of the test's pages say is wrong."""
    return []


@pytest.fixture
def visit(chrome: Browser, errors: list[str]) -> Iterator[Visit]:
    """Open a page: ``visit(address, viewport=PHONE, color_scheme="dark")``."""

    def listen(said: ConsoleMessage) -> None:
        if said.type == "error":
            errors.append(said.text)

    with ExitStack() as opened:

        def open_page(address: str, **options: Any) -> Page:
            context = chrome.new_context(**{"viewport": DESKTOP, **options})
            opened.callback(context.close)
            page = context.new_page()
            page.on("console", listen)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            return page

        yield open_page
    assert errors == []
