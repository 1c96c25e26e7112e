from __future__ import annotations

import signal

from tests.services import Services, await_line


def test_the_demo_says_while_it_runs_what_the_first_model_waits_for_and_why_nothing_comes(
    start: Services,
) -> None:
    demo = start.run("demo", "local.demo", RATE="25", COUNT="400")
    await_line(demo, " of 200 labelled records so far")
    await_line(demo, "no new records, end of the data")
    assert "/s, accuracy 0." in demo.log()
    demo.send(signal.SIGINT)
    assert demo.wait(20) == 0
    assert "first model: 1 at id " in demo.log()
