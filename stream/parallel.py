"""How models run in parallel within a service."""

from __future__ import annotations

import joblib
from joblib.parallel import ThreadingBackend


def use_threads() -> None:
    """Let joblib use threads wherever a model's ``n_jobs`` would make it start processes.

    joblib's processes outlive a service that is killed, by up to five minutes. Threads end with
    it, need no copy of the records, and do not take a second to start. It holds for the whole
    process, so only a service calls it, never a library function.
    """
    for name in ("loky", "multiprocessing"):
        joblib.register_parallel_backend(name, ThreadingBackend)
