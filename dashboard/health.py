"""Whether all is well with a stream, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from stream.times import instant

IDLE_SECONDS = 20.0
"""So long after the last prediction, a stream counts as idle, or as stuck."""

LEAST = 100
"""Fewer outcomes than these say nothing about a model."""

BEHIND_SECONDS = 10.0
REJECTED_SHARE = 0.1
COVERAGE_SHARE = 0.5
"""Below this share of the coverage of the last day, labels are missing."""


class Health(NamedTuple):
    """What is said first on the page."""

    state: Literal["well", "look", "broken", "idle", "waiting"]
    words: str
    why: list[str]


@dataclass
class Facts:
    """What is known of a stream, without Kafka.

    Attributes
    ----------
    now : float
        Seconds since 1970, as all times here.
    lost_since : float or None
        When the brokers answered last; ``None`` while they answer.
    trouble : str
        Why they do not.
    missing : list of str
        Topics that do not exist.
    unread : int or None
        Records that were there at the start and are not read yet; ``None`` before that is known.
    serving : int or None
        Model version that predicted last.
    needs : str
        What the first model still needs.
    predicted : float
        When the last prediction was made; 0 for none.
    lag, partitions : int
    minute, hour, day, newest : dict
        What `quality.report.window` says of each, and the scores of the last 1,000.
    refused : list of str
        What became of models that were refused or barred within the last hour.
    """

    now: float
    lost_since: float | None
    trouble: str
    missing: list[str]
    unread: int | None
    serving: int | None
    needs: str
    predicted: float
    lag: int
    partitions: int
    minute: dict[str, Any]
    hour: dict[str, Any]
    day: dict[str, Any]
    newest: dict[str, Any]
    refused: list[str]


def health(facts: Facts) -> Health:
    """Decide whether all is well; the first reason that hides all others wins."""
    return _not_followed(facts) or _not_predicting(facts) or _predicting(facts)


def _not_followed(facts: Facts) -> Health | None:
    if facts.lost_since is not None:
        why = [f"since {_clock(facts.lost_since)}; everything below is from before"]
        return Health("broken", "Kafka is unreachable", [*why, *filter(None, [facts.trouble])])
    if facts.missing:
        why = [f"no topic {topic}" for topic in facts.missing]
        return Health("waiting", "Waiting for the topics", why)
    if facts.unread == 0:
        return None
    left = [] if facts.unread is None else [f"{facts.unread:,} records left"]
    why = [*left, "what is shown is not complete yet"]
    return Health("waiting", "Reading what is on the topics", why)


def _not_predicting(facts: Facts) -> Health | None:
    if facts.serving is None:
        return Health("waiting", "Waiting for the first model", [facts.needs, *facts.refused])
    if facts.now - facts.predicted < IDLE_SECONDS:
        return None
    if facts.lag > facts.partitions:  # a transaction's marker is an offset, too
        why = [f"since {_clock(facts.predicted)}; {facts.lag:,} records wait"]
        return Health("broken", "Nothing is predicted", [*why, *facts.refused])
    why = [f"no new record since {_clock(facts.predicted)}; none waits"]
    return Health("idle", "Idle", why)


def _predicting(facts: Facts) -> Health:
    minute, newest = facts.minute, facts.newest
    if minute["predictions"] and not minute["labelled"]:
        found = f"{minute['predictions']:,} predictions in the last minute, none has met its label"
        return Health("waiting", "Waiting for labels", [found, *_wrong(facts)])
    if wrong := _wrong(facts):
        return Health("look", "Needs a look", wrong)
    if newest["n"] < LEAST:
        why = f"{newest['n']:,} predictions counted: too few to say how good they are"
        return Health("well", "Running", [why])
    why = f"accuracy {newest['accuracy']:.3f} in the last {newest['n']:,}"
    return Health("well", "Healthy", [f"{why}, baseline {newest['baseline']:.3f}"])


def _wrong(facts: Facts) -> list[str]:
    minute, newest, found = facts.minute, facts.newest, list(facts.refused)
    if newest["n"] >= LEAST and newest["accuracy_interval"][1] < newest["baseline"]:
        found.append(
            f"accuracy {newest['accuracy']:.3f} in the last {newest['n']:,} is below the baseline"
            f" {newest['baseline']:.3f}"
        )
    rate = minute["predictions_per_second"]
    if rate and facts.lag / rate > BEHIND_SECONDS:
        seconds = facts.lag / rate
        found.append(f"{facts.lag:,} records wait, those of {seconds:,.0f} s at this rate")
    rejected, all_records = minute["rejected"], minute["predictions"] + minute["rejected"]
    if rejected > REJECTED_SHARE * all_records:
        reason = next(iter(minute["reasons"]), "")
        found.append(
            f"{rejected:,} of {all_records:,} records of the last minute rejected: {reason}"
        )
    coverage, usual = facts.hour["coverage"], facts.day["coverage"]
    if coverage is not None and usual and coverage < COVERAGE_SHARE * usual:
        found.append(f"label coverage {coverage:.2f} in the last hour, {usual:.2f} in the last day")
    return found


def _clock(seconds: float) -> str:
    return f"{instant(1_000 * seconds)[:19].replace('T', ' ')} UTC"
