"""I2, I3 and I5: the counts and the model versions along the outputs of a partition."""

from __future__ import annotations

from collections.abc import Iterable

from predictor.tally import Tally
from predictor.verify.log_file import Line, LogCheck
from predictor.verify.models import Models
from predictor.verify.outcomes import Outcomes
from predictor.verify.partition import Output, Partition
from predictor.verify.report import Findings
from stream.records import Prediction, Rejected, parse

CELLS = ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected")
OF_LABELS = ("late", "assumed", "revised", "delays")


class Counts:
    """Counts the outputs of a partition again, in a tally of its own, and compares.

    The parameters are those of `check_partition`.
    """

    def __init__(
        self,
        partition: Partition,
        outcomes: Outcomes,
        models: Models,
        findings: Findings,
        logs: Iterable[Iterable[Line]],
    ) -> None:
        self._partition = partition
        self._outcomes = outcomes
        self._models = models
        self._findings = findings
        self._logs = [LogCheck(lines, findings) for lines in logs]
        self._tally = Tally()
        self._untimed = 0
        self._began = partition.predictions.start == 0

    def add(self, output: Output) -> None:
        """Count the next output."""
        content = output.content
        if isinstance(content, Rejected):
            self._tally.rejected += 1
            self._findings.rejected += 1
            return
        if content.outcome:
            counted = self._count_outcome(content, self._outcomes.meet(output, content))
            self._findings.outcomes[content.outcome] += 1
        else:
            counted = self._tally.count(content.prediction, content.label, content.seen)
            self._outcomes.add(output, content)
            self._check_version(output, content.model)
            self._untimed += content.time is None
            self._findings.predictions += 1
        self._check_counts(output, content)
        for log in self._logs if counted else ():
            log.add(content)

    def finish(self) -> None:
        """Compare the last counts with the committed tally, and with the logs."""
        self._check_committed()
        for log in self._logs:
            log.finish()
        self._findings.n += self._tally.n
        self._findings.correct += self._tally.correct

    def _count_outcome(self, outcome: Prediction, before: int | None) -> bool:
        """Count an outcome whose prediction had a label before; return whether `n` rises."""
        tally, label = self._tally, outcome.label
        assert label is not None  # an outcome has one
        if outcome.outcome == "labelled":
            return tally.count_late(outcome.prediction, label, outcome.seen, outcome.delay)
        if outcome.outcome == "assumed":
            tally.assumed, tally.waiting = tally.assumed + 1, tally.waiting - 1
        elif before is not None:
            tally.revise(outcome.prediction, before, label, outcome.seen)
        else:
            # Retention has deleted the label before. It was the same, or the other one.
            tally.revised += 1
            n, correct = tally.carried or (0, 0)
            step = outcome.correct - tally.correct
            tally.carried = (n, correct + max(-1, min(step, 1)))
        return False

    def _check_counts(self, output: Output, prediction: Prediction) -> None:
        tally = self._tally
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
        committed, of = partition.committed.tally, "the committed tally to have"
        if committed is None:
            findings.not_checked["I3: nothing is committed since the data topic was recreated"] += 1
            return
        if isinstance(committed, str):
            expected = f"{of} n={own.n} correct={own.correct}"
            raise partition.violation("I3", expected, committed)
        names: tuple[str, ...] = ("n", "correct", "model") if own.model else ("n", "correct")
        whole = committed.carried is None is own.carried and partition.rejected.start == 0
        for name in (*names, *CELLS, *OF_LABELS) if whole else names:
            expected, found = getattr(own, name), getattr(committed, name)
            if expected != found:
                raise partition.violation("I3", f"{of} {name}={expected}", f"{name}={found}")
        self._check_labels(committed, whole)
        findings.checked["I3"] += 1
        if not whole:
            findings.not_checked["I3: only the sums, as the topics do not hold all history"] += 1

    def _check_labels(self, committed: Tally, whole: bool) -> None:
        """Compare what a tally says of labels, unless older software has written it."""
        partition, outcomes, of = self._partition, self._outcomes, "the committed tally to have"
        labels = partition.committed.labels
        if committed.label_incarnation and labels not in (None, committed.labels):
            raise partition.violation("I3", f"{of} labels={labels}", f"labels={committed.labels}")
        if whole and partition.rejected_labels.start == 0:
            rejected = outcomes.labels.rejected
            if committed.orphans != rejected:
                found = f"orphans={committed.orphans}"
                raise partition.violation("I3", f"{of} orphans={rejected}", found)
        if committed.known_from is None or (waiting := outcomes.waiting()) is None:
            return
        if waiting != committed.waiting:
            found = f"waiting={committed.waiting}"
            raise partition.violation("I3", f"{of} waiting={waiting}", found)
        if outcomes.first_known is not None and committed.known_from > outcomes.first_known:
            expected = f"{of} known_from={outcomes.first_known} or less"
            raise partition.violation("I3", expected, f"known_from={committed.known_from}")
        # Older software waited for no label, and named no time.
        most = self._tally.waiting - waiting
        if whole and not most - self._untimed <= committed.expired <= most:
            expected = f"{of} expired={most}"
            raise partition.violation("I3", expected, f"expired={committed.expired}")
