"""The dashboard: a page that shows from the topics alone how the stream does."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a second or two, and SIGTERM does not wait
    from stream.early import end_at_once

    end_at_once()

import logging

from kafka.errors import KafkaError

from dashboard.reader import reader
from dashboard.settings import DashboardSettings
from dashboard.state import State
from dashboard.web import Page
from stream.refusals import raise_if_refused
from stream.service import Backoff, Stop, run, shared_warnings

log = logging.getLogger("dashboard")


def main(settings: DashboardSettings, stop: Stop) -> None:
    """Read the topics and serve the page until told to stop."""
    state, pauses = State(), Backoff()
    with Page(settings, state) as page:
        while True:
            try:
                with reader(settings, state, stop) as topics:
                    while True:
                        stop.check()
                        page.check()
                        topics.read()
            except KafkaError as error:
                raise_if_refused(error, settings)
                shared_warnings(log).warn("broker", f"{error}; all is read again")
                state.lost(str(error))
                stop.wait(next(pauses))


if __name__ == "__main__":
    run("dashboard", DashboardSettings, main)
