"""How a command runs: its settings, its one line when it fails, its exit status."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

from kafka.errors import KafkaError

from stream.clients import trouble
from stream.quoting import OneLine, one_line
from stream.refusals import refusal
from stream.service import Fatal
from stream.settings import SettingsError, StreamSettings, misspelt, read

S = TypeVar("S", bound=StreamSettings)


def command(settings: type[S], work: Callable[[S], int]) -> int:
    """Run a command, which ends by itself, unlike a service, also where no broker answers.

    Parameters
    ----------
    settings : type of StreamSettings
        Read from the environment.
    work : callable
        Given the settings; returns the exit status.

    Returns
    -------
    int
        The exit status: that of `work`, 1 where it raised `Fatal`, `KafkaError` or `OSError`, 2 for
        a wrong setting, 130 for Ctrl-C. A failure is one line on stderr.
    """
    warnings.simplefilter("ignore")  # as in stream.service.run
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)  # what matters of it is said here
    if logging.lastResort:  # where warnings go
        logging.lastResort.setFormatter(OneLine())
    try:
        found = read(settings)
    except SettingsError as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    for line in misspelt(settings):
        print(one_line(line), file=sys.stderr)
    try:
        return work(found)
    except (Fatal, KafkaError, OSError) as error:
        line = str(error) or repr(error)
        if isinstance(error, OSError) and error.filename:
            line = f"{error.filename}: {error.strerror}"
        if isinstance(error, KafkaError):
            line = refusal(error, found) or trouble(error, found)
        print(one_line(line), file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1
