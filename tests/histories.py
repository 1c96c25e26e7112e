"""A small correct history of one partition, and ways to break one invariant of it at a time.

Plain JSON throughout, so that it can be shown to both checkers and written to a broker.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

from stream.keys import SigningKey
from tests.unit.classifiers import pickled

RECORDS = 80
REJECTED = 7
UNLABELLED = 11
TRAINED_TO = 30
"""Model 2 was trained up to this offset and predicts from a lower one on."""


def version_at(offset: int) -> int:
    """Model 3 is barred, and 2 takes over from it again."""
    return 1 if offset < 25 else 3 if 50 <= offset < 60 else 2


@cache
def classifier(version: int) -> Any:
    """Fit a classifier, another one for each version."""
    matrix = np.random.default_rng(version).normal(size=(50, 2))
    return LogisticRegression().fit(matrix, (matrix.sum(axis=1) > 0).astype(int))


@dataclass
class Made:
    """A history; `log` is what a correct predictor would have written.

    Attributes
    ----------
    times, label_times : dict of int to int
        Timestamps in ms of records and labels, where they have one.
    held : tuple of int
        Labels below the committed offset of their topic that wait for their records.
    """

    data: dict[int, bytes | None] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    models: dict[int, dict[str, Any]] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    committed: int = RECORDS
    tally: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    labels: dict[int, bytes | None] = field(default_factory=dict)
    label_times: dict[int, int] = field(default_factory=dict)
    rejected_labels: list[dict[str, Any]] = field(default_factory=list)
    labels_committed: int | None = None
    held: tuple[int, ...] = ()

    def at(self, source: int) -> dict[str, Any]:
        """Return the prediction of a record."""
        return next(p for p in self.predictions if p["source"][1] == source)

    def offset(self, source: int) -> int:
        """Return where the prediction of a record stands while nothing was inserted."""
        return next(i for i, p in enumerate(self.predictions) if p["source"][1] == source)

    @property
    def metadata(self) -> str:
        """What the commit carries."""
        return json.dumps(self.tally) if self.tally else ""

    @property
    def labels_commit(self) -> tuple[int, str] | None:
        """What is committed for the label topic."""
        if self.labels_committed is None:
            return None
        deltas = [each - before for before, each in pairwise((0, *self.held))]
        return self.labels_committed, json.dumps({"early": deltas})

    def write_log(self, path: Path) -> Path:
        """Write the log."""
        path.write_text("".join(f"{line}\n" for line in self.log))
        return path


def correct_history() -> Made:
    """Make a history in which every invariant holds."""
    made = Made()
    tally = dict.fromkeys(("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected"), 0)
    rng = np.random.default_rng(0)
    n = correct = 0
    for offset in range(RECORDS):
        features = rng.normal(size=2).tolist()
        record = {"id": offset, "features": features, "label": int(sum(features) > 0.3)}
        if offset == UNLABELLED:
            del record["label"]
        made.data[offset] = json.dumps(record).encode()
        if offset == REJECTED:
            made.data[offset] = b'{"id": 7, "features": [NaN, 1.0]}'
            rejected = {"source": [0, 7], "reason": "value: not JSON", "size": 33, "value": "{"}
            made.rejected.append(rejected)
            tally["rejected"] += 1
            continue
        version = version_at(offset)
        probability = float(classifier(version).predict_proba([features])[0, 1])
        label, prediction = record.get("label"), int(probability > 0.5)
        seen = version == 2 and offset <= TRAINED_TO
        if label is None or seen:
            tally["unlabelled" if label is None else "seen"] += 1
        else:
            n, correct = n + 1, correct + (prediction == label)
            tally[("t" if prediction == label else "f") + ("p" if prediction else "n")] += 1
        made.predictions.append(
            {
                "id": offset,
                "prediction": prediction,
                "probability": probability,
                "label": label,
                "n": n,
                "correct": correct,
                "accuracy": correct / n if n else None,
                "model": version,
                "source": [0, offset],
            }
            | ({"seen": True} if seen else {})
        )
        if n % 10 == 0 and label is not None and not seen:
            line = f"partition=0 n={n} accuracy={correct / n:.6f} model={version}"
            made.log.append(f"2026-11-23T20:00:01.123Z {line}")
    made.models = envelopes()
    made.statuses = [
        {"version": 3, "status": "barred", "since": {}, "reason": "raised", "replica": "a"}
    ]
    made.tally = tally | {"model": version_at(RECORDS - 1)}
    return made


def by_its_own_predict(made: Made) -> Made:
    """Let each model's own predict decide its labels, whatever the threshold."""
    for fields in made.models.values():
        fields |= {"rule": "predict", "threshold": 1.0}
    return made


def model_record(
    made: Made, version: int, key: SigningKey
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return one record of the model topic, signed."""
    pickle = pickled(classifier(version))
    fields = made.models[version] | {
        "sha256": hashlib.sha256(pickle).hexdigest(),
        "part": 1,
        "parts": 1,
        "pickle": base64.b64encode(pickle).decode(),
    }
    value = json.dumps(fields).encode()
    return value, [("signature", key.sign(value))]


def envelopes() -> dict[int, dict[str, Any]]:
    """Return what the models are."""
    return {version: _envelope(version) for version in (1, 2, 3)}


def _envelope(version: int) -> dict[str, Any]:
    return {
        "version": version,
        "recipe": "test",
        "algorithm": "LogisticRegression",
        "features": 2,
        "feature_names": None,
        "classes": [0, 1],
        "accepts_missing": False,
        "trained_on": 50,
        "trained_to": {"0": TRAINED_TO} if version == 2 else {},
        "recipe_accuracy": None,
        "reason": "test",
        "restores": None,
        "created": "2026-11-23T20:00:00.000Z",
        "sklearn": sklearn.__version__,
        "numpy": np.__version__,
        "python": "3.11",
    }


class Broken(NamedTuple):
    """One way to break a history, and where a checker must find it."""

    name: str
    invariant: str
    topic: str
    offset: int
    breaks: Callable[[Made], object]


def _lost(made: Made) -> None:
    made.rejected.clear()
    made.tally["rejected"] = 0


def _last_lost(made: Made) -> None:
    made.data[RECORDS] = made.data[RECORDS - 1]
    made.committed += 1


def _predicted_and_rejected(made: Made) -> None:
    made.rejected.insert(0, made.rejected[0] | {"source": [0, 5]})
    made.tally["rejected"] += 1


def _predicted_twice(made: Made) -> None:
    made.predictions.insert(made.offset(UNLABELLED), dict(made.at(UNLABELLED)))
    made.tally["unlabelled"] += 1


def _other_id(made: Made) -> None:
    made.at(40)["id"] = 41


def _other_partition(made: Made) -> None:
    made.at(40)["source"] = [1, 40]


def _n_jumps(made: Made) -> None:
    found = made.at(40)
    found["n"] += 1
    found["accuracy"] = found["correct"] / found["n"]


def _correct_falls(made: Made) -> None:
    found = made.at(40)
    found["correct"] -= 1
    found["accuracy"] = found["correct"] / found["n"]


def _accuracy_is_off(made: Made) -> None:
    made.at(40)["accuracy"] += 1e-9


def _unlabelled_counted(made: Made) -> None:
    made.at(UNLABELLED)["n"] += 1


def _other_label(made: Made) -> None:
    record = json.loads(made.data[40] or b"")
    made.data[40] = json.dumps(record | {"label": 1 - record["label"]}).encode()


def _tally_counts_one_more(made: Made) -> None:
    made.tally["tp"] += 1


def _tally_has_other_cells(made: Made) -> None:
    made.tally["tp"] += 1
    made.tally["tn"] -= 1


def _tally_forgets_rejected(made: Made) -> None:
    made.tally["rejected"] = 0


def _tally_names_another_model(made: Made) -> None:
    made.tally["model"] = 1


def _flipped(made: Made) -> None:
    made.at(UNLABELLED)["prediction"] ^= 1


def _probability_is_off(made: Made) -> None:
    made.at(40)["probability"] += 2e-6


def _no_probability(made: Made) -> None:
    made.at(40)["probability"] = None


def _other_model_named(made: Made) -> None:
    made.at(40)["model"] = 3  # which is barred, so versions may go back from it


def _null_not_accepted(made: Made) -> None:
    record = json.loads(made.data[40] or b"")
    made.data[40] = json.dumps(record | {"features": [record["features"][0], None]}).encode()
    made.models[2]["accepts_missing_in"] = [0]


def _by_probability(made: Made) -> None:
    made.models[2]["threshold"] = 1.0


def _trained_on_counted_records(made: Made) -> None:
    made.models[1]["trained_to"] = {"0": 3}


def _seen_without_reason(made: Made) -> None:
    made.models[2]["trained_to"] = {"0": 28}


# The prediction of source 40 stands at offset 39: the record at 7 was rejected.
BROKEN = [
    Broken("a_record_neither_predicted_nor_rejected", "I1", "data", REJECTED, _lost),
    Broken("a_last_record_neither_predicted_nor_rejected", "I1", "data", RECORDS, _last_lost),
    Broken("a_record_predicted_and_rejected", "I1", "rejected", 0, _predicted_and_rejected),
    Broken("a_record_predicted_twice", "I1", "prediction", 11, _predicted_twice),
    Broken("the_id_of_another_record", "I1", "prediction", 39, _other_id),
    Broken("the_source_of_another_partition", "I1", "prediction", 39, _other_partition),
    Broken("an_n_that_rises_by_two", "I2", "prediction", 39, _n_jumps),
    Broken("a_correct_that_falls", "I2", "prediction", 39, _correct_falls),
    Broken("an_accuracy_that_is_not_correct_by_n", "I2", "prediction", 39, _accuracy_is_off),
    Broken("an_unlabelled_record_counted", "I2", "prediction", 10, _unlabelled_counted),
    Broken("another_label_than_the_record", "I2", "prediction", 39, _other_label),
    Broken("a_tally_of_one_more", "I3", "data", RECORDS, _tally_counts_one_more),
    Broken("a_tally_with_other_cells", "I3", "data", RECORDS, _tally_has_other_cells),
    Broken("a_tally_that_forgets_rejected", "I3", "data", RECORDS, _tally_forgets_rejected),
    Broken("a_tally_of_another_model", "I3", "data", RECORDS, _tally_names_another_model),
    Broken("no_tally", "I3", "data", RECORDS, lambda made: made.tally.clear()),
    Broken("a_fall_off_a_version_not_barred", "I5", "prediction", 59, lambda m: m.statuses.clear()),
    Broken("another_label_predicted_again", "I6", "prediction", 10, _flipped),
    Broken("another_probability_predicted_again", "I6", "prediction", 39, _probability_is_off),
    Broken("no_probability_where_there_is_one", "I6", "prediction", 39, _no_probability),
    Broken("a_prediction_of_another_model", "I6", "prediction", 39, _other_model_named),
    Broken("a_null_that_the_model_does_not_accept", "I6", "prediction", 39, _null_not_accepted),
    Broken("labels_of_another_threshold", "I6", "prediction", 25, _by_probability),
    Broken("a_counted_record_trained_on", "I7", "prediction", 0, _trained_on_counted_records),
    Broken("a_record_seen_without_reason", "I7", "prediction", 28, _seen_without_reason),
]
"""Offsets count from 0 without gaps: what stands before a broken place is correct."""


def _other_accuracy(made: Made) -> None:
    made.log[2] = made.log[2].replace("accuracy=0", "accuracy=1")


def _other_version(made: Made) -> None:
    made.log[2] = made.log[2].rpartition("model=")[0] + "model=9"


def _ahead(made: Made) -> None:
    n = 10 * (len(made.log) + 1)
    made.log.append(f"2026-11-23T20:00:01.123Z partition=0 n={n} accuracy=0.900000 model=2")


def _elsewhere(made: Made) -> None:
    made.log[2] = made.log[2].replace("partition=0", "partition=5")


def _between(made: Made) -> None:
    made.log.insert(0, "2026-11-23T20:00:01.123Z partition=0 n=5 accuracy=0.800000 model=1")


BROKEN_LOGS: list[tuple[str, int, Callable[[Made], object]]] = [
    ("a_missing_line", 3, lambda made: made.log.pop(2)),
    ("a_line_written_twice", 4, lambda made: made.log.insert(2, made.log[2])),
    ("another_accuracy", 3, _other_accuracy),
    ("another_model", 3, _other_version),
    ("a_line_ahead_of_the_topic", 8, _ahead),
    ("a_torn_line_in_the_middle", 3, lambda made: made.log.insert(2, made.log[2][:30])),
    ("a_line_of_a_partition_that_is_not", 3, _elsewhere),
    ("a_line_at_an_n_that_is_not_logged", 1, _between),
]
"""Name, number of the line found, and what to do."""


BATCH_FROM, BATCH_TO = RECORDS, RECORDS + 4


def history_with_a_batch() -> Made:
    """Make a correct history at whose end five records are a batch that cannot be decoded.

    A reader gets one record for it, without a value, at the last of its offsets.
    """
    made = correct_history()
    reason = "batch: cannot be decoded: CRC mismatch"
    made.rejected.append(
        {"source": [0, BATCH_FROM], "reason": reason, "size": 99, "value": "", "until": BATCH_TO}
    )
    made.data[BATCH_TO] = None
    made.committed = BATCH_TO + 1
    made.tally["rejected"] += 1
    return made


def _batch_from(made: Made, first: int) -> None:
    made.rejected[-1]["source"] = [0, first]


def _batch_until(made: Made, last: int) -> None:
    made.rejected[-1]["until"] = last


def _readable(made: Made) -> None:
    made.data[BATCH_FROM + 1] = made.data[0]


def _not_told(made: Made) -> None:
    made.rejected.pop()
    made.tally["rejected"] -= 1


BROKEN_BATCHES: list[tuple[str, Callable[[Made], object]]] = [
    ("it_begins_in_a_record_that_was_predicted", lambda made: _batch_from(made, RECORDS - 1)),
    ("it_ends_before_the_batch_does", lambda made: _batch_until(made, BATCH_TO - 1)),
    ("it_holds_a_record_that_can_be_read", _readable),
    ("it_is_told_by_one_offset", lambda made: made.rejected[-1].pop("until")),
    ("it_is_not_told", _not_told),
]
"""Each violates I1."""
