"""How a service ends that was told to while it has hardly begun."""

from __future__ import annotations

import os
import signal


def end_at_once() -> None:
    """From now on SIGTERM and SIGINT end the process with status 0, until `service.run` takes over.

    To be called before anything heavy is imported: until then nothing is open that would have to
    be brought to an end.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
