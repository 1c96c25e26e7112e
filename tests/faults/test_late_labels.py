from __future__ import annotations

from tests.services import Services
from tests.soak.leg import Leg
from tests.topics import Topics

RECORDS = 200_000


def test_every_label_is_counted_once_though_the_predictor_is_killed_wherever_it_hurts(
    three: Topics, start: Services
) -> None:
    three.publish(1)
    leg = Leg(three, start, RECORDS, longest=20_000, LABEL_EARLY_SECONDS="1")
    leg.run(kills=5)
    assert sum(tally.late for tally in leg.tallies()) == RECORDS
    leg.verify()
