"""A second check of the invariants I1 to I9, written from the contract alone.

It shares no code with what it checks, and is as plain as possible: it needs a system at rest, reads
whole topics into memory, and has one function for each invariant.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import joblib
import sklearn
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.laid_out import label_of, matrix_of, row_of
from tests.late_checker import Meeting, check_labels, check_late_tally, meet
from tests.snapshot import Published, Report, Row, Snapshot, take_snapshot

T = TypeVar("T")


def check(env: dict[str, str], logs: Sequence[Path] = (), recreated: bool = False) -> Report:
    """Read the topics that `env` names and check them.

    Parameters
    ----------
    env : dict of str to str
        The settings of the services.
    logs : sequence of Path
        Log files; their rotated files are read too.
    recreated : bool
        Whether the data topic was deleted and recreated, so that sources go back.

    Raises
    ------
    AssertionError
        Naming the invariant, the topic, the partition and the offset.
    """
    unsigned = env.get("ALLOW_UNSIGNED_MODELS") in ("1", "true")
    trusted = None if unsigned else Path(env["TRUSTED_KEYS"])
    return check_snapshot(take_snapshot(env), trusted, logs, recreated)


def check_snapshot(
    snapshot: Snapshot,
    trusted: Path | None,
    logs: Sequence[Path] = (),
    recreated: bool = False,
) -> Report:
    """Check what was read; `trusted` is the folder of public keys, ``None`` trusts any model."""
    report = Report()
    models = _Models(snapshot.models, trusted, report)
    barred = {
        status["version"]
        for status in (json.loads(row.value or b"{}") for row in snapshot.status)
        if status.get("status") == "barred"
    }
    published: dict[int, dict[int, Published]] = {}
    for partition, data in snapshot.data.items():
        outputs = [
            Published(row.offset, json.loads(row.value or b"null"))
            for row in snapshot.predictions.get(partition, [])
        ]
        predictions = [output for output in outputs if output.outcome is None]
        rejected = snapshot.rejected.get(partition, [])
        current_rejected = _last_stretch(rejected, _source_of) if recreated else rejected
        start = snapshot.start("predictions", partition)
        check_labels(partition, snapshot, outputs, list(models.envelopes.values()), report)
        meetings = meet(partition, outputs, whole=start == 0)
        _check_counts(partition, outputs, whole=start == 0)
        _check_versions(partition, predictions, barred, report)
        current = _last_stretch(predictions, lambda p: p.source) if recreated else predictions
        oldest = snapshot.start("data", partition)
        if start and current:
            oldest = max(oldest, current[0].source)
        _check_committed(
            partition,
            snapshot.committed[partition],
            outputs,
            predictions,
            meetings,
            rejected,
            start == 0,
        )
        check_late_tally(partition, snapshot, outputs, meetings, current)
        _check_once(
            partition, data, current, current_rejected, snapshot.committed[partition], oldest
        )
        _check_models(partition, data, current, models, report)
        published[partition] = {p.fields["n"]: p for p in outputs if p.counted}
        report.outcomes.update(p.outcome for p in outputs if p.outcome)
        report.predictions += len(predictions)
        report.rejected += len(rejected)
        report.seen += sum(p.fields.get("seen", False) for p in predictions)
        report.unlabelled += sum(p.fields["label"] is None for p in predictions)
        if outputs:
            report.n += outputs[-1].fields["n"]
            report.correct += outputs[-1].fields["correct"]
    for log in logs:
        report.log_lines += _check_log(log, published)
    return report


def _check_once(
    partition: int,
    data: list[Row],
    predictions: list[Published],
    rejected: list[Row],
    committed: tuple[int, str] | None,
    oldest: int,
) -> None:
    """I1, for the records from `oldest` on."""
    end = committed[0] if committed else 0
    sources: Counter[int] = Counter()
    batches: dict[int, int] = {}
    for topic, offset, fields in itertools.chain(
        (("prediction", p.offset, p.fields) for p in predictions),
        (("rejected", r.offset, json.loads(r.value or b"")) for r in rejected),
    ):
        where = f"I1 {topic} partition {partition} offset {offset}"
        source, last = fields["source"], fields.get("until", fields["source"][1])
        assert source[0] == partition, f"{where}: source {source}"
        assert last < end, f"{where}: source {source} until {last}, committed is {end}"
        for each in range(source[1], last + 1):
            sources[each] += 1
            assert sources[each] == 1, f"{where}: source {each} twice"
            if "until" in fields:
                batches[each] = last
    for row in data:
        if row.offset in batches:
            # A batch that cannot be decoded is read as one row without a value, at its last offset.
            where = f"I1 data partition {partition} offset {row.offset}"
            assert (row.offset, row.value) == (batches[row.offset], None), f"{where}: can be read"
            for each in [each for each, last in batches.items() if each < last == row.offset]:
                del sources[each]
        if oldest <= row.offset < end:
            found = sources.pop(row.offset, 0)
            assert found == 1, f"I1 data partition {partition} offset {row.offset}: {found} outputs"
    left = [source for source in sources if source >= oldest]
    assert not left, f"I1 data partition {partition} offset {min(left)}: an output, but no record"


def _check_counts(partition: int, outputs: list[Published], whole: bool) -> None:
    """I2."""
    n = correct = 0
    labels: dict[int, Any] = {}
    for position, prediction in enumerate(outputs):
        found = prediction.fields
        where = f"I2 prediction partition {partition} offset {prediction.offset}"
        if prediction.counted:
            n += 1
            correct += found["prediction"] == found["label"]
        elif prediction.outcome == "revised" and not found.get("seen", False):
            right = found["prediction"] == found["label"]
            if prediction.source in labels:
                correct += right - (found["prediction"] == labels[prediction.source])
            elif not whole and abs(found["correct"] - correct) <= 1:
                correct = found["correct"]
        labels[prediction.source] = found["label"]
        if position == 0 and not whole:
            n, correct = found["n"], found["correct"]
        assert found["n"] == n, f"{where}: n={found['n']}, expected {n}"
        assert found["correct"] == correct, f"{where}: correct={found['correct']} not {correct}"
        if n == 0:
            assert found["accuracy"] is None, f"{where}: accuracy={found['accuracy']} while n=0"
        else:
            assert math.isclose(found["accuracy"], correct / n, rel_tol=1e-12), (
                f"{where}: accuracy={found['accuracy']}, expected {correct}/{n}"
            )


def _check_committed(
    partition: int,
    committed: tuple[int, str] | None,
    outputs: list[Published],
    predictions: list[Published],
    meetings: list[Meeting],
    rejected: list[Row],
    whole: bool,
) -> None:
    """I3; where retention has left not the whole topic of predictions, only of the sums."""
    where = f"I3 data partition {partition}"
    if committed is None:
        assert not predictions, f"{where} offset 0: predictions, but nothing committed"
        assert not rejected, f"{where} offset 0: rejected records, but nothing committed"
        return
    offset, metadata = committed
    where = f"{where} offset {offset}"
    assert metadata, f"{where}: no metadata"
    tally = json.loads(metadata)
    carried_n, carried_correct = tally.get("carried", (0, 0))
    n = carried_n + sum(tally[name] for name in ("tp", "fp", "tn", "fn"))
    correct = carried_correct + tally["tp"] + tally["tn"]
    if outputs:
        last = outputs[-1].fields
        assert (n, correct) == (last["n"], last["correct"]), f"{where}: {metadata}, last is {last}"
    if predictions:
        last = predictions[-1].fields
        assert tally["model"] == last["model"], f"{where}: {metadata}, last is {last}"
    if "carried" in tally or not whole:
        return
    labelled = [m for m in meetings if m.label is not None and not m.assumed]
    seen = [m.prediction.fields.get("seen", False) for m in labelled]
    cells = Counter(
        ("tp" if m.label else "fp")
        if m.prediction.fields["prediction"]
        else ("fn" if m.label else "tn")
        for m, unfair in zip(labelled, seen, strict=True)
        if not unfair
    )
    cells["unlabelled"] = sum(p.fields["label"] is None for p in predictions)
    cells["seen"] = sum(seen)
    cells["rejected"] = len(rejected)
    for name in ("tp", "fp", "tn", "fn", "seen", "unlabelled", "rejected"):
        assert tally[name] == cells[name], f"{where}: {name}={tally[name]}, not {cells[name]}"


def _check_log(log: Path, published: dict[int, dict[int, Published]]) -> int:
    """I4."""
    older = sorted(log.parent.glob(f"{log.name}.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    text = "".join(path.read_text() for path in (*older, log))
    last: dict[int, int] = {}
    lines = text.split("\n")[:-1]  # what follows the last newline is torn
    for number, line in enumerate(lines, start=1):
        where = f"I4 {log} line {number}: {line!r}"
        match = re.fullmatch(
            r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}\.\d{3}Z"
            r" partition=(?P<p>\d+) n=(?P<n>\d+) accuracy=(?P<a>\d\.\d{6}) model=(?P<m>\d+)",
            line,
        )
        assert match, where
        partition, n = int(match["p"]), int(match["n"])
        assert n > 0, where
        assert n % 10 == 0, where
        assert n == last.get(partition, n - 10) + 10, f"{where}: after n={last[partition]}"
        last[partition] = n
        prediction = published.get(partition, {}).get(n)
        if prediction is None:
            kept = published.get(partition)
            assert kept, f"{where}: no predictions"
            assert n < min(kept), f"{where}: no such prediction"
            continue
        assert match["a"] == format(prediction.fields["accuracy"], ".6f"), (
            f"{where}: published at offset {prediction.offset} as {prediction.fields}"
        )
        assert int(match["m"]) == prediction.fields["model"], f"{where}: not {prediction.fields}"
    return len(lines)


def _check_versions(
    partition: int, predictions: list[Published], barred: set[int], report: Report
) -> None:
    """I5."""
    for before, after in itertools.pairwise(predictions):
        was, is_ = before.fields["model"], after.fields["model"]
        assert is_ >= was or was in barred, (
            f"I5 prediction partition {partition} offset {after.offset}:"
            f" model {is_} after {was}, which is not barred"
        )
        report.swaps += is_ != was
    report.models |= {p.fields["model"] for p in predictions}


def _check_models(
    partition: int,
    data: list[Row],
    predictions: list[Published],
    models: _Models,
    report: Report,
) -> None:
    """I6, I7, and that a prediction carries the id and the label of its record."""
    records = {row.offset: row.value for row in data}
    times = {row.offset: row.time_ms for row in data}
    by_version: dict[int, list[tuple[Published, dict[str, Any]]]] = {}
    for prediction in predictions:
        found = prediction.fields
        offset, version = found["source"][1], found["model"]
        envelope = models.envelopes.get(version)
        if envelope is None:
            report.not_checked.add(f"model {version}: not trusted or not there")
        else:
            seen = offset <= envelope["trained_to"].get(str(partition), -1)
            assert found.get("seen", False) == seen, (
                f"I7 prediction partition {partition} offset {prediction.offset}: {found},"
                f" trained_to {envelope['trained_to']}"
            )
        if offset in records:
            record = json.loads(records[offset] or b"null")
            where = f"prediction partition {partition} offset {prediction.offset}: {found}"
            assert found["id"] == record["id"], f"I1 {where}, the record is {record}"
            label = record.get("label")
            if isinstance(label, str) and envelope is not None:
                label = label_of(label, envelope)
            if not isinstance(label, str):
                assert found["label"] == label, f"I2 {where}, the record is {record}"
            if "time" in found:
                assert found["time"] == times[offset], f"I9 {where}, not {times[offset]}"
            by_version.setdefault(version, []).append((prediction, record))
    for version, pairs in by_version.items():
        classifier = models.classifier(version)
        if classifier is not None:
            _check_same(partition, classifier, models.envelopes[version], pairs)
            report.recomputed += len(pairs)


def _check_same(
    partition: int,
    classifier: Any,
    envelope: dict[str, Any],
    pairs: list[tuple[Published, dict[str, Any]]],
) -> None:
    rows = [
        row_of(f"I6 prediction partition {partition} offset {prediction.offset}", record, envelope)
        for prediction, record in pairs
    ]
    for (prediction, _), row in zip(pairs, rows, strict=True):
        nulls = {i for i, feature in enumerate(row) if feature is None}
        assert envelope["accepts_missing"] or nulls <= {
            *(envelope.get("accepts_missing_in") or ())
        }, (
            f"I6 prediction partition {partition} offset {prediction.offset}:"
            f" predicted with null at {sorted(nulls)}, not to be by {envelope}"
        )
    threshold = envelope.get("threshold")
    matrix = matrix_of(rows, envelope)
    labels = classifier.predict(matrix)
    probabilities: Iterable[Any] = itertools.repeat(None)
    if hasattr(classifier, "predict_proba"):
        probabilities = classifier.predict_proba(matrix)[:, list(classifier.classes_).index(1)]
    for (prediction, _), label, probability in zip(pairs, labels, probabilities, strict=False):
        found = prediction.fields
        where = (
            f"I6 prediction partition {partition} offset {prediction.offset}: {found},"
            f" again: {label}, {probability}"
        )
        if probability is None:
            assert found["probability"] is None, where
        else:
            assert found["probability"] is not None, where
            assert abs(found["probability"] - probability) <= 1e-6, where
            if envelope.get("rule") != "predict":
                label = probability > 0.5 if threshold is None else probability >= threshold
        bound = 0.5 if threshold is None else threshold
        if probability is None or abs(probability - bound) >= 1e-9:
            assert found["prediction"] == label, where


def _source_of(rejected: Row) -> int:
    return int(json.loads(rejected.value or b"")["source"][1])


def _last_stretch(outputs: list[T], source: Callable[[T], int]) -> list[T]:
    """Return the outputs since sources went back for the last time."""
    start = 0
    for position, (before, after) in enumerate(itertools.pairwise(outputs), start=1):
        if source(after) <= source(before):
            start = position
    return outputs[start:]


class _Models:
    """The models of the topic that are whole and signed by a trusted key."""

    def __init__(self, rows: list[Row], trusted: Path | None, report: Report) -> None:
        self.envelopes: dict[int, dict[str, Any]] = {}
        self._pickles: dict[int, bytes] = {}
        self._report = report
        keys = [
            load_pem_public_key(p.read_bytes()) for p in sorted((trusted or Path()).glob("*.pem"))
        ]
        parts: dict[tuple[int, str, int], dict[int, bytes]] = {}
        for row in rows:
            if row.value is None or (trusted is not None and not _signed(row, keys)):
                continue
            try:
                found = json.loads(row.value)
                version, pickle = found["version"], base64.b64decode(found.pop("pickle"))
            except (ValueError, TypeError, KeyError):
                continue  # not a model
            if version in self.envelopes:
                continue  # the content that was whole first counts
            shares = parts.setdefault((version, found["sha256"], found["parts"]), {})
            shares.setdefault(found["part"], pickle)
            if len(shares) == found["parts"]:
                whole = b"".join(share for _, share in sorted(shares.items()))
                if hashlib.sha256(whole).hexdigest() == found["sha256"]:
                    self.envelopes[version], self._pickles[version] = found, whole

    def classifier(self, version: int) -> Any:
        envelope = self.envelopes.get(version)
        if envelope is None:
            return None
        if envelope["sklearn"] != sklearn.__version__:
            self._report.not_checked.add(f"model {version}: scikit-learn {envelope['sklearn']}")
            return None
        return joblib.load(io.BytesIO(self._pickles[version]))


def _signed(row: Row, keys: list[Any]) -> bool:
    signatures = [value for name, value in row.headers if name == "signature"]
    for key in keys:
        try:
            assert isinstance(key, Ed25519PublicKey)
            key.verify(signatures[0] if len(signatures) == 1 else b"", row.value or b"")
        except InvalidSignature:
            continue
        return True
    return False
