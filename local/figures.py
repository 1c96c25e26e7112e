"""The figures of a run, from its predictions, outcomes and rejected records alone."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress

from stream.records import Prediction, RecordError, decode_label, decode_record

RECENT = 1_000
RATE_SECONDS = 5.0
FIRST_MODEL = 200
"""Labelled records that the modelgenerator trains the first model on."""

_TEXT = -1
"""Stands for a label that is a text: which one it means, only a model can say."""

LISTED = 20
"""How many swaps or drifts a report names at most, the latest ones."""


class Figures:
    """Adds up the predictions and rejected records of a run."""

    def __init__(self) -> None:
        self.predictions = 0
        self.model: int | None = None
        self.first_ids: dict[int, int | str] = {}
        self._labels: Counter[int | None] = Counter()
        self._kinds: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._largest_id = -1
        self._counts: dict[int, tuple[int, int]] = {}
        self._next: dict[int, int] = {}
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._with_label = 0
        self._assumed = 0
        self._delays: deque[float] = deque(maxlen=RECENT)
        self._history: deque[tuple[float, int]] = deque()

    def written(self, value: bytes | None) -> None:
        """Add a record of the data topic, while there is no model."""
        with suppress(RecordError):  # it is rejected
            self._labels[_known(decode_record(value).label)] += 1

    def labelled(self, value: bytes | None) -> None:
        """Add a record of the label topic, while there is no model."""
        with suppress(RecordError):
            self._labels[_known(decode_label(value).label)] += 1
            self._labels[None] -= 1

    def predicted(self, prediction: Prediction) -> None:
        """Add a record of the prediction topic."""
        self._counts[prediction.source[0]] = (prediction.n, prediction.correct)
        if prediction.outcome:
            self._met(prediction)
            return
        self.predictions += 1
        self._done(prediction.source)
        self._with_label += prediction.label is not None
        if isinstance(prediction.id, int):
            self._largest_id = max(self._largest_id, prediction.id)
        if prediction.seen or prediction.label is None:
            self._kinds["seen" if prediction.seen else "unlabelled"] += 1
        else:
            self._recent.append(prediction.prediction == prediction.label)
        self.model = prediction.model
        self.first_ids.setdefault(prediction.model, prediction.id)

    def reject(self, source: tuple[int, int], reason: str) -> None:
        """Add a record of the rejected topic; `source` is its partition and last offset."""
        self._reasons[reason] += 1
        self._done(source)

    @property
    def rejected(self) -> int:
        """Number of rejected records."""
        return self._reasons.total()

    @property
    def swaps(self) -> int:
        """How often a model version predicted for the first time, besides the first one."""
        return max(0, len(self.first_ids) - 1)

    @property
    def accuracy(self) -> float | None:
        """Running accuracy over all partitions, ``None`` before the first counted prediction."""
        n = sum(n for n, _ in self._counts.values())
        return sum(correct for _, correct in self._counts.values()) / n if n else None

    @property
    def recent_accuracy(self) -> float | None:
        """Accuracy of the last 1,000 counted predictions."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    @property
    def coverage(self) -> float | None:
        """Share of the predictions that have met their label, ``None`` without predictions."""
        return self._with_label / self.predictions if self.predictions else None

    def lag(self, ends: Mapping[int, int]) -> int:
        """Return how many records were neither predicted nor rejected.

        Parameters
        ----------
        ends : mapping of int to int
            Partition of the data topic to the offset after its last record.
        """
        return sum(max(0, end - self._next.get(partition, 0)) for partition, end in ends.items())

    def rate(self, now: float) -> float:
        """Return the predictions a second over the last five seconds; `now` is monotonic."""
        self._history.append((now, self.predictions))
        while len(self._history) > 2 and now - self._history[1][0] >= RATE_SECONDS:
            self._history.popleft()
        then, count = self._history[0]
        return (self.predictions - count) / (now - then) if now > then else 0.0

    def line(self, now: float, ends: Mapping[int, int]) -> str:
        """Return all figures in one line, and why some are missing."""
        lag, rate = self.lag(ends), self.rate(now)
        if self.model is None:
            return f"waiting for the first model, {self._needed()}, {self.rejected:,} rejected"
        found = [
            f"{rate:,.{0 if rate >= 1 else 1}f}/s",
            f"accuracy {_share(self.accuracy)}",
            f"last {RECENT:,} {_share(self.recent_accuracy)}",
            f"model {self.model}",
            f"{self.swaps} swaps",
            f"{self.rejected:,} rejected",
            f"lag {lag:,}",
        ]
        if self._delays:
            found += [f"coverage {_share(self.coverage)}", f"label delay {self._delay()}"]
        if not self._recent:
            found += self._not_counted()
        if not rate:
            found.append("no new predictions" if lag else "no new records")
        return ", ".join(found)

    def report(self, drift_every: int = 0) -> list[str]:
        """Return lines that say what was seen, and why there is no accuracy if there is none.

        Parameters
        ----------
        drift_every : int
            Records from one drift of the stream to the next; 0: it has none.
        """
        counted = self.predictions - self._kinds.total()
        lines = [f"{self.predictions:,} predictions, {counted:,} of them counted"]
        lines += self._not_counted()
        lines.append(
            f"accuracy {_share(self.accuracy)}, last {RECENT:,} {_share(self.recent_accuracy)}"
            + ("" if counted else " (nothing was counted)")
        )
        if self._delays:
            lines.append(
                f"coverage {_share(self.coverage)}: {self._with_label:,} of"
                f" {self.predictions:,} predictions have met their label, after {self._delay()}"
            )
        if self._assumed:
            lines.append(f"assumed labels: {self._assumed:,}, counted apart")
        for reason, count in self._reasons.most_common(1):
            lines.append(f"{self.rejected:,} rejected, {count:,} of them: {reason}")
        if self.first_ids:
            first, *swaps = [f"{model} at id {id}" for model, id in self.first_ids.items()]
            lines.append(f"first model: {first}; {len(swaps)} swaps{_listed(swaps)}")
        if drift_every:
            drifts = range(drift_every, self._largest_id + 1, drift_every)
            lines.append(f"{len(drifts)} drifts{_listed([f'at id {id}' for id in drifts])}")
        return lines

    def _needed(self) -> str:
        """Say what the first model still needs."""
        labelled = self._labels[0] + self._labels[1] + self._labels[_TEXT]
        text = f"{min(labelled, FIRST_MODEL)} of {FIRST_MODEL} labelled records so far"
        absent = [str(label) for label in (0, 1) if not self._labels[label]]
        if labelled and absent and not self._labels[_TEXT]:
            text += f", none labelled {absent[0]}"
        if self._labels[None] > 0:
            text += f", {self._labels[None]:,} without a label"
        return text

    def _not_counted(self) -> list[str]:
        """Say how many predictions do not count, and why."""
        reasons = {
            "seen": "their model was trained on the record",
            "unlabelled": "the record has no label",
        }
        return [
            f"{self._kinds[kind]:,} not counted: {reason}"
            for kind, reason in reasons.items()
            if self._kinds[kind]
        ]

    def _met(self, outcome: Prediction) -> None:
        """Add a prediction that meets its label, or none in time."""
        if outcome.outcome == "assumed":
            self._assumed += 1
        elif outcome.outcome == "labelled":
            self._with_label += 1
            if outcome.delay is not None:
                self._delays.append(outcome.delay)
            if not outcome.seen:
                self._kinds["unlabelled"] -= 1
                self._recent.append(outcome.prediction == outcome.label)

    def _delay(self) -> str:
        """Say how late the latest labels came: the median, and what 95 % do not exceed."""
        delays = sorted(self._delays)
        p50, p95 = (delays[int(share * (len(delays) - 1))] for share in (0.5, 0.95))
        return f"{p50:,.1f} s (95 %: {p95:,.1f} s)"

    def _done(self, source: tuple[int, int]) -> None:
        partition, offset = source
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)


def _known(label: int | str | None) -> int | None:
    return _TEXT if isinstance(label, str) else label


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _listed(items: list[str]) -> str:
    hidden = "…, " if len(items) > LISTED else ""
    return f": {hidden}{', '.join(items[-LISTED:])}" if items else ""
