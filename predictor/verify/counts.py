"""I2, I3 and I5: the counts and the model versions along the predictions of a partition."""

from __future__ import annotations

from collections.abc import Iterable

from predictor.tally import Tally
from predictor.verify.log_file import Line, LogCheck
from predictor.verify.partition import Output, Partition
from predictor.verify.recompute import Models
from predictor.verify.report import Findings
from stream.records import Prediction, RecordError, Rejected, parse

CELLS = ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected")


class Counts:
    """Counts the outputs of a partition again, in a tally of its own, and compares.

    The parameters are those of `check_partition`.
    """

    def __init__(
        self,
        partition: Partition,
        models: Models,
        findings: Findings,
        logs: Iterable[Iterable[Line]],
    ) -> None:
        self._partition = partition
        self._models = models
        self._findings = findings
        self._logs = [LogCheck(lines, findings) for lines in logs]
        self._tally = Tally()
        self._began = partition.predictions.start == 0

    def add(self, output: Output) -> None:
        """Count the next output."""
        if isinstance(output.content, Rejected):
            self._tally.rejected += 1
            self._findings.rejected += 1
            return
        prediction = output.content
        counted = self._check_counts(output, prediction)
        self._check_version(output, prediction.model)
        self._findings.predictions += 1
        for log in self._logs if counted else ():
            log.add(prediction)

    def finish(self) -> None:
        """Compare the last counts with the committed tally, and with the logs."""
        self._check_committed()
        for log in self._logs:
            log.finish()
        self._findings.n += self._tally.n
        self._findings.correct += self._tally.correct

    def _check_counts(self, output: Output, prediction: Prediction) -> bool:
        tally = self._tally
        counted = tally.count(prediction.prediction, prediction.label, prediction.seen)
        if not self._began:
            # Retention has deleted the predictions before this one: it says what they came to.
            tally.carried = (prediction.n - tally.n, prediction.correct - tally.correct)
            self._began = True
        if (prediction.n, prediction.correct) != (tally.n, tally.correct):
            expected = f"n={tally.n} correct={tally.correct}"
            raise output.violation("I2", expected, f"n={prediction.n} correct={prediction.correct}")
        accuracy = parse(output.value).get("accuracy")
        if accuracy != prediction.accuracy:
            raise output.violation("I2", f"accuracy={prediction.accuracy}", str(accuracy))
        self._findings.checked["I2"] += 1
        return counted

    def _check_version(self, output: Output, version: int) -> None:
        last, self._tally.model = self._tally.model, version
        self._findings.checked["I5"] += 1
        if version == last:
            return
        self._findings.models.add(version)
        if not last:
            return
        if version < last and not self._models.barred(last):
            expected = f"model {last} or newer, as {last} is not barred"
            raise output.violation("I5", expected, f"model {version}")
        self._findings.swapped_to.add(version)

    def _check_committed(self) -> None:
        partition, own, findings = self._partition, self._tally, self._findings
        if not self._began:
            findings.not_checked["I3: retention has deleted all predictions"] += 1
            return
        if partition.metadata is None:
            findings.not_checked["I3: nothing is committed since the data topic was recreated"] += 1
            return
        tally = "the committed tally to have"
        try:
            committed = Tally.from_metadata(partition.metadata)
        except RecordError as error:
            expected = f"{tally} n={own.n} correct={own.correct}"
            raise partition.violation("I3", expected, str(error)) from None
        names: tuple[str, ...] = ("n", "correct", "model") if own.model else ("n", "correct")
        whole = committed.carried is None is own.carried and partition.rejected.start == 0
        for name in names + CELLS if whole else names:
            expected, found = getattr(own, name), getattr(committed, name)
            if expected != found:
                raise partition.violation("I3", f"{tally} {name}={expected}", f"{name}={found}")
        findings.checked["I3"] += 1
        if not whole:
            findings.not_checked["I3: only the sums, as the topics do not hold all history"] += 1
