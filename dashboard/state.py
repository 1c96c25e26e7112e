"""What the page shows, from the records of the topics; it knows neither Kafka nor HTTP."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any

import msgspec

from dashboard.health import Facts, Health, health
from quality.first_model import FirstModel
from quality.history import Point
from quality.quality import MODELS, Quality
from quality.report import models, window
from quality.windows import TimeWindow
from stream.decoding import reader
from stream.follower import Said
from stream.records import Rejected, Status
from stream.times import instant

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
RECORDS = (1_000, 10_000)
HISTORIES = (600.0, HOUR, DAY)

LAST = 20
"""Rejected records, and models that were not served, that are kept to show them."""

ALARMS = 200

ROUTINE = ("cadence", "weights")
"""Reasons of models that are published all the time."""

SHOWN = 300
"""Characters of a text that are shown."""


Text = Annotated[str, msgspec.Meta(max_length=1_000)]


class Described(msgspec.Struct):
    """What a model says of itself on the model topic; nobody checks its signature here."""

    version: int
    algorithm: Text = ""
    reason: Text = ""


decode_described = reader(Described)
"""Read what a record of the model topic says of its model."""


class State:
    """Takes in what the topics say, and says what the page shows.

    One thread writes; others read `shown`, and `model` under the lock.

    Parameters
    ----------
    clock : callable
        Seconds since 1970.

    Attributes
    ----------
    quality : Quality
    lock : Lock
        Held while records are taken in.
    shown : dict of str to bytes
        The parts of what the page shows, as JSON; a new one each time.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.lock = threading.Lock()
        self.shown: dict[str, bytes] = {}
        self._answered = self._clock()
        self.begin()
        self.lost()

    def begin(self) -> None:
        """Forget everything: the topics are read again."""
        with self.lock:
            self.quality = Quality(map(TimeWindow, (MINUTE, HOUR, DAY)), RECORDS, HISTORIES)
            self.first_model = FirstModel()
            self._described: dict[int, Described] = {}
            self._alarms: deque[dict[str, Any]] = deque(maxlen=ALARMS)
            self._refusals: deque[Said] = deque(maxlen=LAST)
            self._rejections: deque[Said] = deque(maxlen=LAST)
        self._ends: Mapping[int, int] = {}
        self._missing: list[str] = []
        self._unread: int | None = None
        self._lost_since: float | None = None
        self._trouble = ""
        self._limited = False
        self.publish()

    def status(self, said: Said) -> None:
        """Take in a record of the status topic, as it stands."""
        status: Status = said.record
        self.quality.told(status, said.time_ms)
        if status.status != "serving":
            self._refusals.append(said._replace(record=_short(status)))

    def rejected(self, said: Said, now_ms: float) -> None:
        """Take in a rejected record."""
        rejected: Rejected = said.record
        source = (rejected.source[0], rejected.last)
        self.quality.rejected(source, rejected.reason, said.time_ms, now_ms)
        self._rejections.append(said)

    def described(self, model: Described, time_ms: int) -> None:
        """Take in a record of the model topic."""
        if model.version in self._described:
            return
        self._described[model.version] = model
        if len(self._described) > MODELS:
            del self._described[min(self._described)]
        if model.reason.startswith("alarm"):
            self._alarms.append({"time": time_ms, "version": model.version})

    def followed(
        self, ends: Mapping[int, int], missing: list[str], unread: int, limited: bool
    ) -> None:
        """Take in that the brokers answer, and how far the topics were read."""
        self._answered, self._lost_since, self._trouble = self._clock(), None, ""
        self._ends, self._missing, self._unread, self._limited = ends, missing, unread, limited
        self.publish()

    def lost(self, trouble: str = "") -> None:
        """Take in that no broker answers, and why."""
        self._lost_since, self._trouble = self._lost_since or self._answered, trouble
        self.publish()

    def model(self, version: int) -> dict[str, Any] | None:
        """Return the scores of a version, ``None`` if it is not known."""
        with self.lock:
            served = self.quality.served.get(version)
            return {"version": version, **served.scores.as_json()} if served else None

    def publish(self) -> None:
        """Make anew what the page shows."""
        parts = self.parts(1_000 * self._clock())
        self.shown = {name: msgspec.json.encode(part) for name, part in parts.items()}

    def parts(self, now_ms: float) -> dict[str, Any]:
        """Return what the page shows."""
        quality = self.quality
        for version, model in self._described.items():
            if served := quality.served.get(version):
                served.algorithm, served.reason = model.algorithm, model.reason
        times = {s: window(each, now_ms, self._limited) for s, each in quality.times.items()}
        newest = {length: each.scores.as_json() for length, each in quality.newest.items()}
        rows = models(quality, quality.times[DAY].total(now_ms))
        for row, after in pairwise([*rows, {"version": None}]):
            row["next"] = after["version"]
        serving = next((row for row in rows if row["status"] == "serving"), None)
        found = self._health(now_ms, times, newest)
        return {
            "health": found._asdict(),
            "windows": {
                str(int(length)): each for length, each in [*newest.items(), *times.items()]
            },
            "running": {"n": quality.n, "correct": quality.correct, "accuracy": quality.accuracy},
            "serving": serving,
            "changed": self._changed(),
            "models": rows[::-1],
            "partitions": self._partitions(),
            "lag": quality.lag(self._ends),
            "refusals": [_refusal(said) for said in reversed(self._refusals)],
            "rejections": [_rejection(said) for said in reversed(self._rejections)],
            "histories": {
                str(int(seconds)): _columns(
                    history.points(quality.n, quality.correct, 1_000, now_ms)
                )
                for seconds, history in quality.histories.items()
            },
            "alarms": list(self._alarms),
        }

    def _health(
        self, now_ms: float, times: dict[float, dict[str, Any]], newest: dict[int, dict[str, Any]]
    ) -> Health:
        quality, hour_ago = self.quality, now_ms - 1_000 * HOUR
        return health(
            Facts(
                now=now_ms / 1_000,
                lost_since=self._lost_since,
                trouble=self._trouble,
                missing=self._missing,
                unread=self._unread,
                serving=quality.serving,
                needs=self.first_model.needs(),
                predicted=max((s.last_ms for s in quality.served.values()), default=0) / 1_000,
                lag=quality.lag(self._ends),
                partitions=len(self._ends),
                minute=times[MINUTE],
                hour=times[HOUR],
                day=times[DAY],
                newest=newest[RECORDS[0]],
                refused=[
                    f"model {said.record.version} was {said.record.status}: {said.record.reason}"
                    for said in self._refusals
                    if said.time_ms > hour_ago
                ][-1:],
            )
        )

    def _changed(self) -> dict[str, Any] | None:
        """Return what changed last: a swap, an alarm, a model that was not served.

        Models that nothing but time asked for take over twice a second; they are named where
        nothing else has happened.
        """
        swaps, served = self.quality.swaps, self.quality.served
        asked_for = [s for s in swaps if not served[s.version].reason.startswith(ROUTINE)]
        found = [
            (s.time_ms, f"model {s.version} took over from {s.before}")
            for s in (asked_for or swaps)[-1:]
        ]
        found += [(a["time"], f"drift: model {a['version']} was published") for a in self._alarms]
        found += [
            (said.time_ms, f"model {said.record.version} was {said.record.status}")
            for said in self._refusals
        ]
        if not found:
            return None
        time_ms, what = max(found)
        return {"time": instant(time_ms), "what": what}

    def _partitions(self) -> list[dict[str, Any]]:
        known = self.quality.partitions
        return [
            {
                "partition": number,
                "n": (found := known.get(number)) and found.n,
                "accuracy": found.correct / found.n if found and found.n else None,
                "next": found.next if found else None,
                "end": self._ends.get(number),
                "lag": self.quality.lag({number: self._ends.get(number, 0)}),
            }
            for number in sorted(known.keys() | self._ends.keys())
        ]


def _short(status: Status) -> Status:
    """Return a status without what is not shown: whoever writes it may write much."""
    return Status(
        status.version,
        status.status[:SHOWN],
        reason=(status.reason or "")[:SHOWN],
        replica=status.replica[:SHOWN],
    )


def _refusal(said: Said) -> dict[str, Any]:
    status: Status = said.record
    return {
        "time": instant(said.time_ms),
        "version": status.version,
        "status": status.status,
        "replica": status.replica,
        "reason": status.reason,
    }


def _rejection(said: Said) -> dict[str, Any]:
    rejected: Rejected = said.record
    return {
        "time": instant(said.time_ms),
        "source": rejected.source,
        "reason": rejected.reason[:SHOWN],
        "value": rejected.value[:SHOWN],
    }


def _columns(points: Iterable[Point]) -> dict[str, list[float]]:
    found = list(points)
    return {
        "time": [point.time_ms / 1_000 for point in found],
        "running": [round(point.running, 5) for point in found],
        "recent": [round(point.recent, 5) for point in found],
        "model": [point.model for point in found],
    }
