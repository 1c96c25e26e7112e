"""How each fault is caused."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from local.fetch import BrokerError
from stream.models import Message, pack
from tests.soak.plan import Fault
from tests.soak.suite import Suite
from tests.unit.classifiers import STRANGER, Malicious, Sign, envelope, pickled

FEATURES = 3
FAR_AHEAD = 10**6
"""A version that, once served, would keep every later model out."""

POISON = [
    b"not json",
    b'{"id": 1, "features": [NaN, 1, 1], "label": 1}',
    b'{"id": 1, "features": [1e39, 1, 1], "label": 1}',
    b'{"id": 1, "features": [1, 1], "label": 1}',
    b'{"id": 1, "features": [1, 1, 1], "label": 2}',
    b'{"id": 1, "features": [1, 1, 1]}',
    None,
    b'{"id": "' + b"9" * 1_000_000 + b'", "features": [1, 1, 1], "label": 1}',
    b"[" * 900_000,
]
"""All but the record without a label are to be rejected."""


class Faults:
    """Causes faults.

    Parameters
    ----------
    suite : Suite
    marker : Path
        Appears when a malicious model was loaded.
    wait : callable
        Given seconds, lets them pass.
    """

    def __init__(self, suite: Suite, marker: Path, wait: Callable[[float], None]) -> None:
        self._suite = suite
        self._marker = marker
        self._wait = wait

    def strike(self, fault: Fault) -> float:
        """Cause a fault; return when recovery begins.

        That is when the processes were struck; for the broker, when it answers again.
        """
        suite, what = self._suite, fault.what
        struck = time.monotonic()
        if what.startswith("broker"):
            self._broker(fault)
            return time.monotonic()
        if what.endswith("killed"):
            self._kill(fault.who)
        elif fault.asleep:
            for name in fault.who:
                suite.processes[name].send(signal.SIGSTOP)
        elif what.endswith("leaves"):
            suite.end(*fault.who)
        elif what.endswith("joins"):
            for name in fault.who:
                suite.start(name)
        elif what == "poison records":
            suite.topics.write_values(POISON)
        elif what == "models not to be trusted":
            suite.topics.send(self._models_not_to_be_trusted())
        else:
            assert what == "model that raises", what
            raising = pickled(Sign(raises_above=5.0))
            published = envelope(features=FEATURES, recipe="raises on real records")
            suite.topics.publish_next(published, raising)
        return struck

    def heal(self, fault: Fault) -> None:
        """Let what was paused go on."""
        if fault.asleep:
            for name in fault.who:
                self._suite.processes[name].send(signal.SIGCONT)

    def _kill(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._suite.processes[name].kill()
        for name in names:
            self._suite.start(name)

    def _broker(self, fault: Fault) -> None:
        broker = self._suite.broker
        if fault.what == "broker paused":
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGSTOP)
            self._wait(fault.seconds)
            os.kill(broker.pid, signal.SIGCONT)
            return
        if fault.what == "broker stopped":
            broker.stop()
        else:
            broker.kill()
        self._kill(fault.who)
        self._wait(fault.seconds)
        try:
            broker.start()
        except BrokerError:  # this machine is busy with other things
            broker.start()

    def _models_not_to_be_trusted(self) -> list[Message]:
        key = self._suite.topics.key
        ahead = envelope(FAR_AHEAD, features=FEATURES)
        malicious = pickled(Malicious(self._marker))
        return [
            Message(b"garbage", []),
            Message(b"garbage", [("signature", key.sign(b"garbage"))]),
            *pack(ahead, malicious, None),
            *pack(ahead, malicious, STRANGER),
        ]
