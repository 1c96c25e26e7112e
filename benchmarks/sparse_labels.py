"""How long records wait for their predictions while a label comes now and then, beside without any.

Both are measured in one run, one after the other, on the same broker: 200 records a second, and two
labels a second. The time is from the timestamp of the record to that of its prediction.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from benchmarks.late_labels import own_topics
from datagenerator.pace import Pace
from local.kafka import LocalKafka
from stream.arguments import argument_parser, whole_number
from stream.records import decode_prediction
from tests.services import Services
from tests.topics import Topics, await_answered, await_serving

RATE = 200
EVERY = 100
"""Records between two labels."""


def waits(broker: str, folder: Path, records: int, labels: bool) -> list[float]:
    """Return the milliseconds that each record has waited for its prediction, in rising order."""
    env = own_topics(broker, folder)
    with Topics(env, 1) as topics:
        topics.publish(1)
        predictor = Services(env, folder)("predictor")
        try:
            await_serving(topics, 1)
            before, pace = topics.written(), Pace(RATE)
            while (sent := topics.written() - before) < records:
                for _ in range(min(pace.take(), records - sent)):
                    topics.write(1, label=False)
                    if labels and topics.written() % EVERY == 0:
                        topics.label_ids(topics.written() - EVERY)
                time.sleep(0.005)
            await_answered(topics)
        finally:
            predictor.stop()
        found = [
            (record.timestamp, decode_prediction(record.value))
            for record in topics.records(topics.settings.prediction_topic)
        ]
    return sorted(
        at - (prediction.time or 0)
        for at, prediction in found
        if prediction.outcome is None and prediction.source[1] >= before
    )


def main() -> None:
    """Measure both, and print the ratio of the medians."""
    parser = argument_parser("python -m benchmarks.sparse_labels", __doc__)
    parser.add_argument("--records", type=whole_number(100), default=4_000)
    options = parser.parse_args()
    logging.disable()
    medians = []
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "kafka") as broker:
        for labels in (False, True):
            found = waits(broker.bootstrap_servers, Path(name), options.records, labels)
            medians.append(found[len(found) // 2])
            print(
                f"{'two labels a second' if labels else 'no labels'}: {medians[-1]:.0f} ms in the"
                f" median, 95 % within {found[int(0.95 * len(found))]:.0f} ms",
                flush=True,
            )
    print(f"with labels now and then: {medians[1] / medians[0]:.2f} of the time")


if __name__ == "__main__":
    main()
