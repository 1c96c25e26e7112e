"""Millions of labels that come later, and kill -9, leg by leg: ``python -m tests.soak.labels``.

``LEGS`` (20) have ``RECORDS`` (500,000) each, their labels up to 70,000 records later, 5 % of them
twice, 1 % for no record, and one kill -9 each. The last leg has ``LABEL_WAIT=60000``. A finished
leg is noted in ``build/soak-labels``, so a soak that was stopped goes on with the next one. Exit
status 0 only when every label of every leg was counted once.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time

import pytest

from local.fetch import BrokerError
from local.kafka import LocalKafka
from local.process import stop
from stream.arguments import argument_parser
from tests.services import ROOT, Services
from tests.soak.leg import Leg
from tests.topics import Topics

FOLDER = ROOT / "build" / "soak-labels"
PARTITIONS = 1
"""One, so that as many predictions as possible wait in it."""

LONGEST_DELAY = 70_000
SHORT_WAIT = "60000"


def run_leg(number: int, last: bool, records: int) -> str:
    """Run one leg on a broker of its own; return its line."""
    folder = FOLDER / f"leg-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.monotonic()
    with LocalKafka(folder / "kafka") as broker:
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "DATA_TOPIC": "soak.data",
            "MODEL_TOPIC": "soak.model",
            "PREDICTION_TOPIC": "soak.prediction",
            "GROUP_ID": "soak",
            "SIGNING_KEY": str(folder / "keys" / "signing.pem"),
            "TRUSTED_KEYS": str(folder / "keys" / "trusted"),
            "PREDICTOR_SECRET": str(folder / "keys" / "secret"),
            "LABEL_WAIT": SHORT_WAIT if last else "200000",
            "LABEL_EARLY_SECONDS": "1",
        }
        services = Services(env, folder)
        try:
            with Topics(env, PARTITIONS) as topics:
                topics.publish(1)
                leg = Leg(topics, services, records, LONGEST_DELAY, first_moment=number)
                leg.run(kills=1)
                (tally,) = leg.tallies()
                verified = leg.verify()
        finally:
            stop(services.processes)
    shutil.rmtree(folder)
    return (
        f"leg {number}: {records} predictions, {tally.late} labels counted, {tally.orphans}"
        f" rejected, {tally.expired} expired, {time.monotonic() - begun:.0f} s; {verified}"
    )


def main() -> int:
    """Run the legs that are left; return the exit status."""
    argument_parser("python -m tests.soak.labels", __doc__).parse_args()
    logging.disable()
    legs, records = (
        int(os.environ.get(name) or default)
        for name, default in (("LEGS", 20), ("RECORDS", 500_000))
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    finished = FOLDER / "finished"
    lines = finished.read_text().splitlines() if finished.exists() else []
    for line in lines:
        print(line)
    for number in range(len(lines) + 1, legs + 1):
        try:
            line = run_leg(number, number == legs, records)
        except (AssertionError, pytest.fail.Exception, BrokerError) as error:
            print(f"{error}\nsoak-labels: leg {number} failed; its files are kept in {FOLDER}")
            return 1
        with finished.open("a") as file:
            file.write(f"{line}\n")
        print(line, flush=True)
    finished.unlink()
    print(f"soak-labels: {legs * records} predictions in {legs} legs: every label was counted once")
    return 0


if __name__ == "__main__":
    sys.exit(main())
