"""I6 and I7: records predicted again with the model that is named, and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

from predictor.predictor import most_features
from predictor.verify.models import Models
from predictor.verify.partition import Output, Row
from predictor.verify.report import Findings
from stream.models import ModelError
from stream.records import Cell, Prediction, RecordError, decode_record

_BATCH = 5_000


class Recompute:
    """Predicts records again, many at a time, and compares."""

    def __init__(self, models: Models, findings: Findings) -> None:
        self._models = models
        self._findings = findings
        self._waiting: list[tuple[Output, Prediction, Sequence[Cell]]] = []

    def check_seen(self, output: Output, prediction: Prediction) -> None:
        """I7: compare ``seen`` with what the model was trained on."""
        version = prediction.model
        envelope = self._models.envelope(version)
        if isinstance(envelope, str):
            self._findings.not_checked[f"I6, I7: model {version}: {envelope}"] += 1
            return
        seen = envelope.trained_on_record(*prediction.source)
        if seen != prediction.seen:
            to = envelope.trained_to.get(str(output.partition), "none")
            words = ("seen false", "seen true")
            expected = f"{words[seen]} for source {output.source}, as model {version} was trained"
            raise output.violation("I7", f"{expected} to {to}", words[prediction.seen])
        self._findings.checked["I7"] += 1

    def add(self, output: Output, prediction: Prediction, row: Row) -> None:
        """Compare a prediction with its record, and let it wait for being predicted again."""
        _, value, time_ms = row
        try:
            record = decode_record(value)
        except RecordError as error:
            raise output.violation("I6", "a rejected record", f"predicted: {error}") from None
        if record.id != prediction.id:
            expected, found = f"id {record.id!r}", f"{prediction.id!r}"
            raise output.violation("I1", expected[:100], found[:100])
        if prediction.time not in (None, time_ms):  # older software wrote none
            raise output.violation("I9", f"time {time_ms}", f"{prediction.time}")
        envelope = self._models.envelope(prediction.model)
        if isinstance(envelope, str):
            return
        try:
            read = envelope.layout.read(record)
        except RecordError as error:
            raise output.violation("I6", "a rejected record", f"predicted: {error}") from None
        if read.label != prediction.label:
            raise output.violation("I2", f"label {read.label}", f"{prediction.label}")
        if (index := envelope.wrongly_null(read.features)) is not None:
            expected = f"a rejected record: features[{index}] is null"
            raise output.violation("I6", expected, f"predicted by model {prediction.model}")
        waiting = self._waiting
        most = min(_BATCH, 1 + most_features(envelope.layout) // envelope.features)
        if waiting and (len(waiting) == most or waiting[-1][1].model != prediction.model):
            self.finish()
        self._waiting.append((output, prediction, read.features))

    def finish(self) -> None:
        """I6: predict what waits, and compare."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        first, version = waiting[0][0], waiting[0][1].model
        model = self._models.model(version)
        if isinstance(model, str):
            self._findings.not_checked[f"I6: model {version}: {model}"] += len(waiting)
            return
        try:
            labels, probabilities = model.predict([features for *_, features in waiting])
        except ModelError as error:
            expected = f"model {version} to predict again"
            raise first.violation("I6", expected, str(error)) from None
        for (output, prediction, _), label, probability in zip(
            waiting, labels, probabilities, strict=True
        ):
            published = prediction.prediction, prediction.probability
            if not model.agree((label, probability), published):
                raise output.violation(
                    "I6",
                    f"prediction {label} probability {probability} of model {version}",
                    f"{prediction.prediction} and {prediction.probability}",
                )
        self._findings.checked["I6"] += len(waiting)
