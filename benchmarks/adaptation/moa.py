"""MOA's adaptive random forest and leveraging bagging; runs in an environment of its own.

It imports nothing of the project: capymoa needs an older pandas than the services.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from capymoa.classifier import AdaptiveRandomForestClassifier, LeveragingBagging
from capymoa.core import LabeledInstance
from capymoa.stream import Schema

LEARNERS = {"moa_arf": AdaptiveRandomForestClassifier, "moa_leveraging": LeveragingBagging}
TREES = 10


def main() -> None:
    """Read a run from a file, and write its predictions into another one."""
    given = json.loads(Path(sys.argv[1]).read_text())
    names = [f"x{index}" for index in range(len(given["rows"][0]))]
    categories = {names[int(i)]: texts for i, texts in given["categories"].items()}
    schema = Schema.from_custom(
        [*names, "label"], "label", {**categories, "label": ["0", "1"]}, given["learner"]
    )
    rows = np.array(given["rows"], dtype=np.float64)  # a missing number is NaN
    records = [
        LabeledInstance.from_array(schema, row, label)
        for row, label in zip(rows, given["labels"], strict=True)
    ]
    learner = LEARNERS[given["learner"]](schema, ensemble_size=TREES)

    def predictions() -> Iterator[int]:
        for number, record in enumerate(records):
            yield int(learner.predict(record) or 0)
            if number >= given["delay"]:
                learner.train(records[number - given["delay"]])

    before = time.process_time()
    found = list(predictions())
    seconds = time.process_time() - before
    Path(sys.argv[2]).write_text(json.dumps({"predictions": found, "seconds": seconds}))
