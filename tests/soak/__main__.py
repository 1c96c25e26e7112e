"""Random faults for as long as one likes, then a check of everything: ``python -m tests.soak``.

``SECONDS`` (180) is how long records flow, ``SEED`` (1) decides which faults come in which order,
``RATE`` (400) is records a second. Exit status 0 only when every invariant held.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local.fetch import BrokerError
from local.kafka import LocalKafka
from local.process import Process
from stream.arguments import argument_parser
from tests.checker import check
from tests.faults.recoveries import Recoveries
from tests.services import ROOT, Services
from tests.snapshot import Report
from tests.soak.faults import Faults
from tests.soak.memory import Memory, thirds, verdict
from tests.soak.plan import Fault, plan
from tests.soak.suite import Failed, Suite

PATIENCE_SECONDS = 120.0
"""How long a recovery, the first prediction or the end may take before it counts as lost."""

VERIFY_SECONDS = 600.0


class Soak:
    """One soak.

    Parameters
    ----------
    suite : Suite
    folder : Path
    seed : int
    """

    def __init__(self, suite: Suite, folder: Path, seed: int) -> None:
        self.recoveries = Recoveries()
        self.memory = Memory()
        self._suite = suite
        self._folder = folder
        self._seed = seed
        self._marker = folder / "a malicious model ran"
        self._begun = time.monotonic()
        self._next_memory = 60.0

    def run(self, seconds: float) -> None:
        """Let faults strike for so many seconds after the first predictions, one after another."""
        faults = Faults(self._suite, self._marker, self._wait)
        self._until(lambda: min(self._suite.answered) > 0, "a prediction of each partition")
        self._begun = time.monotonic()
        for fault in plan(self._seed):
            self._wait(fault.quiet)
            if self._elapsed >= seconds:
                return
            self._survive(fault, faults)

    def drain(self) -> list[int]:
        """End the load, wait until all of it is answered, end the rest; return the ends."""
        suite = self._suite
        for name in suite.logs:
            if name not in suite.processes:
                suite.start(name)
        suite.end("datagenerator")
        self._until(lambda: suite.answered == suite.ends(), "the end of the data topic")
        ends = suite.ends()
        suite.end(*list(suite.processes))
        if self._marker.exists():
            raise Failed("code of a model not to be trusted ran")
        return ends

    def _survive(self, fault: Fault, faults: Faults) -> None:
        suite, at = self._suite, self._elapsed
        model = suite.model
        since = faults.strike(fault)
        ends, models = suite.ends(), "model" in fault.what
        heal_at = since + fault.seconds if fault.asleep else since
        seconds: float | None = None

        def recovered() -> bool:
            onward = all(a > e for a, e in zip(suite.answered, ends, strict=True))
            return onward and (suite.model > model or not models)

        while seconds is None or time.monotonic() < heal_at:
            self._step()
            if time.monotonic() >= heal_at:
                faults.heal(fault)
            if seconds is None and recovered():
                seconds = time.monotonic() - since
            if seconds is None and time.monotonic() - since > PATIENCE_SECONDS:
                raise Failed(f"{fault}: not recovered within {PATIENCE_SECONDS:g} s: {self._where}")
        faults.heal(fault)
        self.recoveries.add(fault.what, seconds)
        print(f"{at:7.1f} s  {fault!s:<56} recovered after {seconds:5.1f} s", flush=True)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    @property
    def _where(self) -> str:
        return f"answered up to {self._suite.answered} of {self._suite.ends()}"

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._step()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            self._step()
            if time.monotonic() > end:
                raise Failed(f"not within {PATIENCE_SECONDS:g} s: {what}; {self._where}")

    def _step(self) -> None:
        self._suite.look()
        self.memory.sample(self._suite.processes.values())
        if self._elapsed >= self._next_memory:
            self._next_memory += 60.0
            print(f"{self._elapsed:7.1f} s  memory: {self.memory.now()}", flush=True)


def judge(suite: Suite, ends: list[int], folder: Path) -> Report:
    """Check everything twice from outside."""
    logs = list(suite.logs.values())
    try:
        report = check(suite.env, logs)
    except AssertionError as error:
        raise Failed(f"the checker found: {error}") from None
    if report.predictions + report.rejected != sum(ends):
        raise Failed(
            f"{sum(ends)} records, but {report.predictions} predictions and"
            f" {report.rejected} rejected"
        )
    command = [sys.executable, "-m", "predictor.verify", "--log", *map(str, logs)]
    log = folder / "verify.log"
    verifier = Process("verify", command, log, Services(suite.env, folder).env, ROOT)
    status = verifier.wait(VERIFY_SECONDS)
    print(f"predictor.verify: {log.read_text().splitlines()[-1]}")
    if status != 0:
        raise Failed(f"predictor.verify ended with status {status}\n{verifier.tail()}")
    return report


def tables(soak: Soak) -> list[str]:
    """Print recovery times and memory; return the services whose memory grew."""
    print("", *soak.recoveries.table(), sep="\n")
    print("\n| longest life | samples | first third | middle third | last third | memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    growing = []
    for service, samples in soak.memory.longest().items():
        first, middle, last = thirds(samples)
        found = verdict(service, samples)
        growing += [service] * (found == "growing")
        lived = f"{service} | {len(samples)}"
        print(f"| {lived} | {first:.1f} MiB | {middle:.1f} MiB | {last:.1f} MiB | {found} |")
    print(flush=True)
    return growing


def run(seconds: float, seed: int, rate: float, folder: Path) -> str:
    """Run a soak with its files in a folder; return its last line.

    Raises
    ------
    Failed
        When something does not hold.
    """
    with LocalKafka(folder / "kafka") as broker, Suite(broker, folder, rate) as suite:
        print(f"soak: seed={seed} seconds={seconds:g} rate={rate:g}, logs in {folder}", flush=True)
        soak = Soak(suite, folder, seed)
        soak.run(seconds)
        ends = soak.drain()
        growing = tables(soak)
        report = judge(suite, ends, folder)
    if growing:
        raise Failed(f"memory grows: {', '.join(growing)}")
    faults = sum(map(len, soak.recoveries.seconds.values()))
    return (
        f"soak: seed={seed} seconds={seconds:g} records={sum(ends)}"
        f" predictions={report.predictions} rejected={report.rejected} faults={faults} verified"
    )


def main() -> int:
    """Run a soak; return its exit status."""
    argument_parser("python -m tests.soak", __doc__).parse_args()
    logging.disable()  # warnings of a broker that is away, for instance, are expected
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seconds, seed, rate = (
        float(os.environ.get(name) or default)
        for name, default in (("SECONDS", 180), ("SEED", 1), ("RATE", 400))
    )
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        print(run(seconds, int(seed), rate, folder))
    except KeyboardInterrupt:
        print("\nsoak: stopped before it was verified")
    except (Failed, BrokerError) as error:
        reason, _, details = str(error).partition("\n")
        print(f"\n{details}\nlogs and the broker's data are kept in {folder}")
        print(f"soak: seed={int(seed)} failed: {reason}")
        return 1
    else:
        shutil.rmtree(folder)
        return 0
    shutil.rmtree(folder)
    return 1


if __name__ == "__main__":
    sys.exit(main())
