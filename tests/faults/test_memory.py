"""How much memory the services take for honest records that are many and wide."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from local.process import Process
from modelgenerator.publish.newest import CELLS, newest_records
from stream import clients
from stream.records import FEATURES_LIMIT
from stream.service import Stop
from tests.services import Services, await_line
from tests.topics import Topics, await_answered


def peak(process: Process) -> int:
    """Return the largest resident size that a process has had, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) // 1_000


def write_wide(topics: Topics, count: int) -> None:
    """Write labelled records with as many features as allowed; compressed, they are small."""
    with clients.closing(clients.producer(topics.settings, compression_type="gzip")) as producer:
        for id in range(count):
            features = b"%d" % (id % 2) + b",0" * (FEATURES_LIMIT - 1)
            value = b'{"id":%d,"features":[%s],"label":%d}' % (id, features, id % 2)
            producer.send(topics.settings.data_topic, value, partition=0)
        producer.flush(60)


def test_a_window_of_wide_records_is_bounded_by_their_features(
    topics: Topics, start: Services
) -> None:
    process = start("modelgenerator", MODEL_MAX_MICROSECONDS="1000000")
    await_line(process, "reading")
    write_wide(topics, 300)
    await_line(process, "the window holds 167 records instead of WINDOW=20000")
    await_line(process, "model=1 ", 900)  # a minute of a core that nobody else uses
    assert peak(process) < 1_000


def test_a_unit_of_wide_records_is_bounded_by_their_bytes_and_features(
    topics: Topics, start: Services
) -> None:
    wide = LogisticRegression().fit(np.eye(2, FEATURES_LIMIT), [1, 0])
    topics.publish(1, wide, features=FEATURES_LIMIT)
    process = start("predictor", COMMIT_INTERVAL_MS="5000")
    await_line(process, "serves from the next unit")
    write_wide(topics, 1_500)
    await_answered(topics, 1_500, 120)
    assert peak(process) < 600


def test_the_newest_records_are_held_as_far_as_their_features_are_bounded(topics: Topics) -> None:
    write_wide(topics, 100)
    found = newest_records(topics.consumer, topics.settings, 100, Stop())
    assert [each.offset for each in found] == list(range(100 - CELLS // FEATURES_LIMIT, 100))
