"""The memory of processes over time, from /proc."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from local.process import Process

EVERY_SECONDS = 1.0
ALLOWED_SHARE = 1.03
ALLOWED_MIB = 5.0
WARMING_UP = {"predictor": 420, "modelgenerator": 80, "datagenerator": 80}
"""Samples to leave out while a process warms up."""

LEAST_SAMPLES = 170
"""Samples needed after the warm-up."""


class Memory:
    """Samples resident memory, and tells whether it stays flat.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    resident : callable
        Given a process id, returns MiB.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        resident: Callable[[int], float] | None = None,
    ) -> None:
        self._clock = clock
        self._resident = resident or resident_mib
        self._next = clock()
        self._lives: dict[tuple[str, int], list[float]] = {}

    def sample(self, processes: Iterable[Process]) -> None:
        """Take a sample of each, once a second at most."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY_SECONDS
        for process in processes:
            if process.status is None:
                self._lives.setdefault((process.name, process.pid), []).append(
                    self._resident(process.pid)
                )

    def now(self) -> str:
        """Return the last sample of each process in one line."""
        last = {name: samples[-1] for (name, _), samples in self._lives.items()}
        return ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(last.items())) + " MiB"

    def longest(self) -> dict[str, list[float]]:
        """Return the samples of each service's process that lived longest."""
        found: dict[str, list[float]] = {}
        for (name, _), samples in self._lives.items():
            service = name.split()[0]
            found[service] = max(found.get(service, []), samples, key=len)
        return found


def verdict(service: str, samples: list[float]) -> str:
    """Tell in a word or two what memory does in the life of a service, once it has warmed up.

    It is flat where the median of the second half is at most 3 % or 5 MiB, whichever is more, above
    that of the first.
    """
    settled = samples[WARMING_UP[service] :]
    if len(settled) < LEAST_SAMPLES:
        return "too short to tell"
    half = len(settled) // 2
    first, last = median(settled[:half]), median(settled[half:])
    flat = last <= max(ALLOWED_SHARE * first, first + ALLOWED_MIB)
    return "flat" if flat else "growing"


def thirds(samples: list[float]) -> list[float]:
    """Return the median of each third of at least three samples."""
    cut = len(samples) // 3
    return [median(part) for part in (samples[:cut], samples[cut:-cut], samples[-cut:])]


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB, 0 when it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
