"""A predictor that a fault strikes at a chosen step of its unit of work.

``python -m tests.faults.struck commit_transaction 3 kill`` runs the predictor until its producer is
about to commit for the third time. The fault is ``kill`` (SIGKILL), ``pause`` (SIGSTOP) or ``fail``
(the step raises, once). The step ``after_commit_transaction`` comes right after that call.
"""

from __future__ import annotations

import itertools
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from predictor import committer
from stream.arguments import argument_parser


def strike(how: str) -> None:
    """Cause the fault."""
    print(f"struck: {how}", flush=True)
    if how == "fail":
        raise KafkaError("a failure made by the test")
    # To this thread: if another thread took the signal, this step would run on for a moment.
    signal.pthread_kill(
        threading.get_ident(), {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[how]
    )


def struck(call: Callable[..., Any], number: int, how: str, after: bool) -> Callable[..., Any]:
    """Return `call`, struck the given time that it is called."""
    count = itertools.count(1)

    def stepped(*args: Any, **options: Any) -> Any:
        now = next(count) == number
        if now and not after:
            strike(how)
        result = call(*args, **options)
        if now and after:
            strike(how)
        return result

    return stepped


def main(step: str, number: str, how: str) -> None:
    """Run the predictor."""
    name = step.removeprefix("after_")
    method = struck(getattr(KafkaProducer, name), int(number), how, step != name)
    setattr(KafkaProducer, name, method)
    # No broker aborts the open transaction first; and auto-commit, where it is on, is so frequent
    # that it happens.
    committer.TRANSACTION_TIMEOUT_MS = 600_000
    committer.COMMIT_SECONDS = 600.0  # a step that was paused is not given up
    KafkaConsumer.DEFAULT_CONFIG["auto_commit_interval_ms"] = 100
    runpy.run_module("predictor.app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    parser = argument_parser("python -m tests.faults.struck", __doc__)
    for argument in ("step", "number", "how"):
        parser.add_argument(argument)
    options = parser.parse_args()
    del sys.argv[1:]  # the predictor takes none
    main(**vars(options))
