"""How much later predictions come while the predictor loads a large model.

A predictor with a random forest of `--megabytes` predicts a steady stream; the same forest is
published again and again. A record's latency is the time from when it is made until a reader of
committed predictions has its prediction. Records under way while the predictor read, checked and
unpickled a model are compared with all others. The time while this process wrote the model to the
topic, on the same machine, is left out.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from kafka import TopicPartition
from sklearn.ensemble import RandomForestClassifier

from local.kafka import LocalKafka
from local.process import Process
from local.services import start as start_service
from stream import clients
from stream.arguments import argument_parser
from stream.keys import signing_key
from stream.models import Envelope, Message, pack
from stream.records import Record, decode_prediction, encode_record
from stream.settings import StreamSettings
from stream.times import now
from stream.topics import ensure_topics

FEATURES = 20
ROWS = 20_000
WARM_UP_SECONDS = 5.0
QUIET_SECONDS = 8.0
LOAD_SECONDS = 300.0


def forest(megabytes: float) -> bytes:
    """Return the pickle of a random forest of about that size: trees fitted to noise, and copies.

    A copy is unpickled and predicts like any tree, and needs no time to be fitted.
    """
    rng = np.random.default_rng(0)
    matrix, labels = rng.normal(size=(ROWS, FEATURES)), rng.integers(0, 2, ROWS)
    model = RandomForestClassifier(n_estimators=10, max_features=1, random_state=0)
    trees = model.fit(matrix, labels).estimators_
    model.n_estimators = int(10 * megabytes * 1e6 / len(_pickled(model)))
    model.estimators_ = [deepcopy(trees[n % 10]) for n in range(model.n_estimators)]
    pickle = _pickled(model)
    print(f"a random forest of {model.n_estimators} trees, {len(pickle) / 1e6:.1f} MB")
    return pickle


def _pickled(model: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer, compress=3)
    return buffer.getvalue()


def envelope(version: int) -> Envelope:
    """Describe the forest."""
    return Envelope(
        version=version,
        recipe="benchmark",
        algorithm="RandomForestClassifier",
        features=FEATURES,
        feature_names=None,
        classes=[0, 1],
        accepts_missing=False,
        trained_on=ROWS,
        trained_to={},
        recipe_accuracy=None,
        reason="benchmark",
        restores=None,
        created=now(),
        sklearn=sklearn.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
    )


@dataclass
class Seen:
    """The predictions as a reader saw them."""

    made: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    version: int = 0

    def latencies(self, windows: list[tuple[float, float]]) -> Any:
        """Return the latencies of the records under way in the windows, in ms."""
        made, arrived = np.array(self.made), np.array(self.arrived)
        inside = np.zeros(len(made), dtype=bool)
        for start, end in windows:
            inside |= (arrived >= start) & (made <= end)
        return 1_000 * (arrived - made)[inside]


class Load:
    """Sends records whose ids are the time of their making, and watches their predictions.

    Parameters
    ----------
    rate : float
        Records a second.
    """

    def __init__(self, settings: StreamSettings, rate: float) -> None:
        self.seen = Seen()
        self._settings = settings
        self._rate = rate
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._send, self._read)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int, predictor: Process) -> float:
        """Return when the first prediction of a version was there."""
        end = time.monotonic() + LOAD_SECONDS
        while self.seen.version < version:
            if predictor.status is not None or time.monotonic() > end:
                sys.exit(f"no prediction of model {version}:\n{predictor.tail()}")
            time.sleep(0.01)
        return time.time()

    def _send(self) -> None:
        producer = clients.producer(self._settings, linger_ms=0)
        features = np.random.default_rng(1).normal(size=(100, FEATURES)).round(3).tolist()
        start, sent = time.monotonic(), 0
        while not self._done.wait(0.005):
            while sent < (time.monotonic() - start) * self._rate:
                record = Record(int(1e6 * time.time()), features[sent % 100], sent % 2)
                producer.send(self._settings.data_topic, encode_record(record), partition=0)
                sent += 1
        clients.close(producer)

    def _read(self) -> None:
        consumer = clients.consumer(self._settings)
        place = TopicPartition(self._settings.prediction_topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        while not self._done.is_set():
            for record in consumer.poll(timeout_ms=100).get(place, ()):
                prediction = decode_prediction(record.value)
                self.seen.made.append(int(prediction.id) / 1e6)
                self.seen.arrived.append(time.time())
                self.seen.version = prediction.model
        clients.close(consumer)


def publish(settings: StreamSettings, messages: list[Message]) -> None:
    """Write the parts of a model in one transaction."""
    producer = clients.producer(settings, transactional_id=f"{settings.model_topic}-publisher")
    producer.init_transactions()
    producer.begin_transaction()
    for message in messages:
        producer.send(
            settings.model_topic, message.value, headers=message.headers, partition=0
        ).get(60)
    producer.commit_transaction()
    clients.close(producer)


def measure(options: argparse.Namespace, brokers: str, folder: Path) -> None:
    """Run it all and print what was seen."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": brokers,
        "DATA_TOPIC": f"{name}.data",
        "MODEL_TOPIC": f"{name}.model",
        "PREDICTION_TOPIC": f"{name}.prediction",
        "GROUP_ID": name,
        "LOG_FILE": str(folder / "accuracy.log"),
        "TRUSTED_KEYS": str(folder / "trusted"),
        "PREDICTOR_SECRET": str(folder / "secret"),
        # How fast the forest loads and predicts on this machine is not the question here.
        "MODEL_MAX_MICROSECONDS": "100000",
        "MODEL_LOAD_SECONDS": "600",
    }
    settings = StreamSettings.model_validate({name.lower(): value for name, value in env.items()})
    key = signing_key(folder / "key.pem")
    key.share(folder / "trusted")
    pickle = forest(options.megabytes)
    predictor = start_service("predictor", os.environ | env, folder / "predictor.log")
    admin = clients.admin(settings)
    try:
        ensure_topics(admin, settings, logging.getLogger("benchmark"))
        publish(settings, list(pack(envelope(1), pickle, key)))
        with Load(settings, options.rate) as load:
            load.wait_for(1, predictor)
            time.sleep(WARM_UP_SECONDS)
            normal, loading, start = [], [], time.time()
            for version in range(2, options.loads + 2):
                messages = list(pack(envelope(version), pickle, key))
                time.sleep(QUIET_SECONDS)
                normal.append((start + 1, time.time()))
                publish(settings, messages)
                published = time.time()
                start = load.wait_for(version, predictor)
                loading.append((published, start))
                print(f"load {version - 1} of {options.loads}: {start - published:.1f} s")
        report("otherwise", load.seen.latencies(normal))
        report("while loading", load.seen.latencies(loading))
        usual, late = (np.quantile(load.seen.latencies(w), 0.99) for w in (normal, loading))
        print(f"p99 while loading / p99 otherwise: {late / usual:.2f}")
    finally:
        predictor.stop()
        admin.delete_topics(list(settings.topics))
        clients.close(admin)


def report(name: str, latencies: Any) -> None:
    """Print the percentiles of some latencies."""
    p50, p99, worst = np.quantile(latencies, (0.5, 0.99, 1.0))
    print(f"{name:14} records={len(latencies)} p50={p50:.0f} p99={p99:.0f} max={worst:.0f} ms")


def machine() -> str:
    """Describe the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} × {model[0] if model else platform.machine()},"
        f" Python {platform.python_version()}, load average {load}"
    )


def main() -> None:
    """Run the command line."""
    parser = argument_parser("python -m benchmarks.model_load_latency", __doc__)
    parser.add_argument("--megabytes", type=float, default=50, help="size of the forest's pickle")
    parser.add_argument("--rate", type=float, default=200, help="records a second")
    parser.add_argument("--loads", type=int, default=3, help="how often it is loaded")
    options = parser.parse_args()
    print(machine())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        brokers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not brokers:
            brokers = stack.enter_context(LocalKafka(folder / "kafka")).bootstrap_servers
        measure(options, brokers, folder)
    print(machine())


if __name__ == "__main__":
    main()
