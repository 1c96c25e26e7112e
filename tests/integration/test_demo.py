from __future__ import annotations

import re
import signal

from tests.services import Services, await_line


def test_the_demo_says_while_it_runs_what_the_first_model_waits_for_and_why_nothing_comes(
    start: Services,
) -> None:
    demo = start.run("demo", "local.demo", RATE="25", COUNT="500")
    await_line(demo, " of 200 labelled records so far")
    await_line(demo, "no new records, end of the data")
    assert "/s, accuracy 0." in demo.log()
    await_line(demo, "page: http://127.0.0.1:")
    demo.send(signal.SIGINT)
    assert demo.wait(20) == 0
    assert re.search(r"first model: \d+ at id ", demo.log())  # of several, the newest serves


def test_a_demo_without_a_page_says_why_and_goes_on(start: Services) -> None:
    demo = start.run("demo", "local.demo", DASHBOARD_HOST="203.0.113.1")
    await_line(demo, "no page: ")
    assert "nobody can listen on DASHBOARD_HOST=203.0.113.1" in demo.log()
    await_line(demo, "/s, accuracy 0.")
    demo.send(signal.SIGINT)
    assert demo.wait(20) == 0
