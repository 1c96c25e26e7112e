"""The models at hand: the one that serves, the one before, and the versions that never will."""

from __future__ import annotations

import threading

from predictor import metrics
from stream.classifier import Model
from stream.layout import Layout


class ModelShelf:
    """Decides which model serves. All methods may be called from any thread.

    Attributes
    ----------
    barred : set of int
        Versions taken out of service, by this predictor or another.
    swaps : int
        How often a model was replaced by a newer one.
    refused : int
        How many models, and records that are no model, were refused.
    refusal : str
        Why the last one was.
    search_needed : bool
        Whether an older model has to be found: the last one at hand was barred.
    layout : Layout
        What the newest schema says of records, while no model says it.
    """

    def __init__(self) -> None:
        self.barred: set[int] = set()
        self.swaps = 0
        self.refused = 0
        self.refusal = ""
        self.search_needed = False
        self.layout = Layout()
        self._lock = threading.RLock()
        self._current: Model | None = None
        self._previous: Model | None = None
        self._refused: set[int] = set()

    def serve(self) -> tuple[Model | None, Model | None]:
        """Return the model to predict with, and the one served before it, where there are any."""
        with self._lock:
            return self._current, self._previous

    def newer(
        self, model: Model | None, previous: Model | None
    ) -> tuple[Model | None, Model | None]:
        """Return what serves now if it is newer than what `serve` has returned, else that."""
        current, before = self.serve()
        if model and current and current.version > model.version:
            return current, before
        return model, previous

    def wanted(self, version: int) -> bool:
        """Tell whether a model of this version would be served, once it has passed every check."""
        with self._lock:
            newest = self._current.version if self._current else 0
            return version > newest and version not in self.barred and version not in self._refused

    def put(self, model: Model) -> bool:
        """Serve a model from now on, if it is wanted; tell whether it was."""
        with self._lock:
            if not self.wanted(model.version):
                return False
            if self._current:
                self.swaps += 1
                metrics.SWAPS.inc()
                self._previous = self._current
            self._current = model
            return True

    def refuse(self, *versions: int) -> None:
        """Never serve these versions."""
        with self._lock:
            self._refused.update(versions)

    def count_refused(self, reason: str, count: int = 1) -> None:
        """Count models that are refused, now or for good, and records that are no model."""
        self.refused, self.refusal = self.refused + count, reason
        metrics.REFUSED.inc(count)

    @property
    def why_none(self) -> str:
        """Why no model serves, in words."""
        found = [f"barred: {len(self.barred)}"] if self.barred else []
        if self.refused:
            found.append(f"refused: {self.refused}, the last one: {self.refusal}")
        return f"no model serves; {'; '.join(found)}" if found else "there is no model"

    def bar(self, version: int) -> None:
        """Never serve a version again; the model before it serves in its place."""
        with self._lock:
            metrics.BARRED.inc(version not in self.barred)
            self.barred.add(version)
            if self._current and self._current.version == version:
                self._current, self._previous = self._previous, None
                self.search_needed |= self._current is None
            if self._previous and self._previous.version == version:
                self._previous = None
