"""The memory of processes over time, from /proc."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from local.process import Process

EVERY_SECONDS = 1.0
ALLOWED_SHARE = 1.05
ALLOWED_MIB = 5.0
LEAST_SECONDS = 600
"""A shorter life is mostly warming up, and tells nothing."""


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


def verdict(samples: list[float]) -> str:
    """Tell in a word or two what memory does over a life."""
    if len(samples) * EVERY_SECONDS < LEAST_SECONDS:
        return "too short to tell"
    return "flat" if flat(samples) else "growing"


def flat(samples: list[float]) -> bool:
    """Tell whether memory no longer grows.

    The first third of a life is for warming up. The median of the last third may be above that of
    the middle third by 5 % or 5 MiB, whichever is more.
    """
    _, middle, last = thirds(samples)
    return last <= max(ALLOWED_SHARE * middle, middle + ALLOWED_MIB)


def thirds(samples: list[float]) -> list[float]:
    """Return the median of each third of at least three samples."""
    cut = len(samples) // 3
    return [median(part) for part in (samples[:cut], samples[cut:-cut], samples[-cut:])]


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB, 0 when it has ended."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
