"""Faults on a broker that sweeps what a killed producer left every ten seconds, as by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.kafka import LocalKafka
from tests.faults.load import Load
from tests.faults.recoveries import Recoveries
from tests.services import Services

RESUMED_SECONDS = 2 * 25.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    sweep = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000"}
    with LocalKafka(tmp_path_factory.mktemp("kafka"), properties=sweep) as broker:
        yield broker.bootstrap_servers


def test_a_killed_predictor_may_be_replaced_by_one_of_another_name_on_any_broker(
    load: Load,
    start: Services,
    recoveries: Recoveries,
) -> None:
    predictor = start("predictor", REPLICA="0")
    load.under_way()
    for number in range(1, 4):
        predictor.kill()
        # One of another name cannot end the open transaction: the broker has to.
        predictor = start("predictor", REPLICA=str(number))
        fault = "predictor killed (-9), successor of another name, broker's defaults"
        recoveries.add(fault, load.recovery(RESUMED_SECONDS))
    load.check()
