"""What the browser looks at: the services of the demo with their own broker, and a page of it."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from local.kafka import LocalKafka, free_port
from local.process import Process, stop
from local.services import settings_in
from tests.services import ROOT, SERVICES, Services, await_line

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PICTURES = ROOT / ".screenshots"
"""Where tests leave what they saw."""


def chromium() -> str:
    """Return the path of the browser; ``CHROMIUM`` names another one."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise SystemExit("no chromium is installed: apt-get install chromium, or set CHROMIUM")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """Run the browser without a window."""
    sandbox = ["--no-sandbox"] * (os.geteuid() == 0)  # it refuses to have one for root
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=sandbox)
        yield found
        found.close()


class Stack:
    """A broker, the three services and the dashboard.

    Attributes
    ----------
    kafka : LocalKafka
    address : str
        Of the page, the same after the dashboard was started again.
    dashboard : Process
    """

    def __init__(self, folder: Path, kafka: LocalKafka) -> None:
        self.kafka = kafka
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        own = settings_in(folder, kafka.bootstrap_servers)
        own |= {"DASHBOARD_PORT": str(port), "RATE": "200"}
        own["MODEL_MAX_MICROSECONDS"] = "10000"  # a model that is refused is news for an hour
        self.services = Services(own, folder)

    def start(self) -> None:
        """Start the services, the source last."""
        self.start_dashboard()
        for name in reversed(SERVICES):
            self.services(name)

    def start_dashboard(self) -> None:
        """Start the dashboard, and wait until it serves the page."""
        self.dashboard: Process = self.services("dashboard")
        await_line(self.dashboard, " the page is at ")

    def state(self) -> dict[str, Any]:
        """Return what the dashboard shows, nothing where it does not answer."""
        with suppress(OSError):
            url = f"{self.address}/api/state"
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
                found: dict[str, Any] = json.loads(answer.read())
                return found
        return {}


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Run all of it until the end of the block."""
    with LocalKafka(folder / "kafka") as kafka:
        found = Stack(folder, kafka)
        try:
            found.start()
            yield found
        finally:
            stop(found.services.processes)


def picture(page: Page, name: str) -> None:
    """Keep what the page looks like."""
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")
