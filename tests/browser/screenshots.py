"""Makes the pictures of the page for the README: docs/page-light.png and docs/page-dark.png.

It runs the services on a broker of their own for about two minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from stream.arguments import argument_parser
from tests.services import ROOT, eventually

RECORDS = 8_000
"""Counted before the picture is taken, so that the curve shows a drift."""


def main() -> int:
    """Make the pictures; return the exit status."""
    argument_parser("python -m tests.browser.screenshots", __doc__).parse_args()
    from tests.browser.stack import DESKTOP, browser, running  # needs what only this test has

    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack, browser() as it:
        eventually(lambda: stack.state().get("running", {}).get("n", 0) > RECORDS, 300)
        for scheme in ("light", "dark"):
            page = it.new_page(viewport=DESKTOP, color_scheme=scheme)
            page.goto(stack.address)
            page.wait_for_selector('#health:not([data-state="waiting"])')
            page.wait_for_timeout(3_000)
            page.screenshot(path=ROOT / "docs" / f"page-{scheme}.png")
            print(f"docs/page-{scheme}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
