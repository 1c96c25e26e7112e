"""Models that may be served: checked, then unpickled, then probed with a few rows."""

from __future__ import annotations

import io
import math
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice
from pickle import loads
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from stream.deadlines import DeadlineExceeded
from stream.layout import Layout, Matrix, Rows
from stream.models import Envelope, ModelError
from stream.quoting import shown
from stream.records import Cell, Schema, normal
from stream.service import Stop
from stream.settings import ModelLimits

MAX_BYTES = 512 * 2**20
"""Largest size of a model when unpacked."""

PROBABILITY_TOLERANCE = 1e-6
NEAR = 1e-9
"""How near to the threshold a probability must be for the label to depend on its rounding."""

Answer = tuple[int, float | None] | str
"""Label and probability of label 1, or the reason why there is none."""

_PROBE_ROWS = 8
_TIMED_ROWS = (100, *5 * [500])
_TIMED_NUMBERS = 2_000_000
_CHUNK_BYTES = 2**20
_SLICE_BYTES = 2**16
_SMALL_BYTES = 2**24
_ARRAY_OF_JOBLIB = b"joblib.numpy_pickle"
"""Stands in a pickle between whose opcodes joblib has written arrays."""


@dataclass(frozen=True)
class Model:
    """A classifier, its envelope, and the fingerprint of the key that signed it."""

    envelope: Envelope
    classifier: Any
    signer: str = "nobody"

    @property
    def version(self) -> int:
        """The model's version."""
        return self.envelope.version

    @property
    def layout(self) -> Layout:
        """How records are laid out for it."""
        return self.envelope.layout

    def predict(self, rows: Rows) -> tuple[list[int], list[float | None]]:
        """Predict a batch of records.

        Parameters
        ----------
        rows : sequence of rows
            As `layout` reads them.

        Returns
        -------
        labels : list of int
            With the envelope's rule ``predict``, and without probabilities, what the classifier
            predicts. Otherwise 1 where the probability of label 1 is above one half, or not below
            the envelope's threshold where it has one.
        probabilities : list of float or None
            Probability of label 1.

        Raises
        ------
        ModelError
            When the classifier raises, or returns something else than predictions.
        """
        return self.predict_matrix(self.layout.matrix(rows))

    def predict_matrix(self, matrix: Matrix) -> tuple[list[int], list[float | None]]:
        """Predict records that `layout` has put into a matrix already."""
        try:
            probabilities = self._probabilities(matrix)
            threshold = self.envelope.threshold
            if probabilities is None or self.envelope.rule:
                labels = np.asarray(self.classifier.predict(matrix))
            elif threshold is None:
                labels = probabilities > 0.5
            else:
                labels = probabilities >= threshold
            if labels.shape != (len(matrix),):
                raise ModelError(f"labels of shape {labels.shape} for {len(matrix)} records")
            if labels.dtype.kind in "SU" or not np.isin(labels, (0, 1)).all():
                raise ModelError("a label that is neither 0 nor 1")
        except ModelError as error:
            raise ModelError(f"model error: {error}") from None
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            raise ModelError(f"model error: {type(error).__name__}: {str(error)[:200]}") from None
        if probabilities is None:
            return labels.astype(int).tolist(), [None] * len(matrix)
        return labels.astype(int).tolist(), probabilities.tolist()

    def _probabilities(self, matrix: Matrix) -> npt.NDArray[np.float64] | None:
        """Return the probability of label 1 of each record, if the classifier gives any."""
        if not hasattr(self.classifier, "predict_proba"):
            return None
        found = np.asarray(self.classifier.predict_proba(matrix), dtype=np.float64)
        if found.shape != (len(matrix), 2):
            raise ModelError(f"probabilities of shape {found.shape}")
        found = found[:, [*self.classifier.classes_].index(1)]
        if not ((found >= -PROBABILITY_TOLERANCE) & (found <= 1 + PROBABILITY_TOLERANCE)).all():
            raise ModelError("a probability that is not within 0 and 1")
        return found.clip(0, 1)  # an average of ones may be 1.0000000000000002

    def predicts(self, rows: Rows) -> bool:
        """Tell whether the classifier predicts these records, and raises on none."""
        try:
            self.predict(rows)
        except ModelError:
            return False
        return True

    def answers(self, rows: Rows, overdue: Callable[[], bool] = lambda: False) -> list[Answer]:
        """Predict by halves, from the first record on, where the classifier raises.

        Parameters
        ----------
        overdue : callable
            Whether to return what is answered so far, at least one answer.
        """
        answers: list[Answer] = []
        waiting = [rows] if len(rows) else []
        while waiting and not (answers and overdue()):
            part = waiting.pop()
            try:
                answers += zip(*self.predict(part), strict=True)
            except ModelError as error:
                if len(part) == 1:
                    answers.append(str(error))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
        return answers

    def agree(self, answer: Answer, other: Answer) -> bool:
        """Tell whether two answers to one record are the same, up to rounding."""
        if isinstance(answer, str) or isinstance(other, str):
            return isinstance(answer, str) and isinstance(other, str)
        (label, probability), (other_label, other_probability) = answer, other
        if probability is None or other_probability is None:
            return probability is other_probability and label == other_label
        threshold = 0.5 if self.envelope.threshold is None else self.envelope.threshold
        rounded = probability != other_probability and abs(probability - threshold) < NEAR
        return abs(probability - other_probability) <= PROBABILITY_TOLERANCE and (
            rounded or label == other_label
        )


def check(envelope: Envelope, schema: Schema | None, features: int | None) -> None:
    """Check that a model fits the stream and this process, before it is unpickled.

    Parameters
    ----------
    schema : Schema or None
        The stream's, if it has one.
    features : int or None
        Number of features of the model being served.

    Raises
    ------
    ModelError
        When it does not; the message says why.
    """
    check_release(envelope.sklearn)
    if envelope.classes != [0, 1]:
        raise ModelError(f"classes: expected [0, 1], got {str(envelope.classes)[:100]}")
    if envelope.rule not in (None, "predict"):
        raise ModelError(f"rule: expected predict or null, got {envelope.rule[:100]!r}")
    if any(index >= envelope.features for index in envelope.accepts_missing_in or ()):
        raise ModelError(f"accepts_missing_in: more than the {envelope.features} features")
    expected = len(schema.feature_names) if schema else features
    if expected is not None and envelope.features != expected:
        raise ModelError(f"features: the stream has {expected}, the model {envelope.features}")
    names = envelope.feature_names
    if envelope.probe is not None and len(envelope.probe) != envelope.features:
        raise ModelError(f"features: {envelope.features}, but a probe of {len(envelope.probe)}")
    if names is not None and len(names) != envelope.features:
        raise ModelError(f"features: {envelope.features}, but {len(names)} feature_names")
    _check_layout(envelope)
    if schema and names is not None:
        _check_names(names, schema)
    if schema:
        _check_types(envelope, schema)


def _check_layout(envelope: Envelope) -> None:
    types, names = envelope.types, {*map(normal, envelope.feature_names or ())}
    if types is not None and not len(types) == len(names) == envelope.features:
        raise ModelError(
            f"types: {len(types)} for {envelope.features} features, which need as many"
            " feature_names, each another one"
        )
    texts = envelope.positive, envelope.negative
    if None not in texts and normal(texts[0] or "") == normal(texts[1] or ""):
        raise ModelError(f"negative: {shown(texts[1])}, as positive is")
    categories = [kind == "category" for kind in types or ["number"] * envelope.features]
    for row in envelope.probes or ():
        if len(row) != envelope.features:
            raise ModelError(f"features: {envelope.features}, but a probe of {len(row)}")
        for index, cell in enumerate(row):
            if cell is not None and isinstance(cell, str) != categories[index]:
                raise ModelError(
                    f"probes: {shown(cell)} for {envelope.layout.place(index)}, which is a"
                    f" {'category' if categories[index] else 'number or a time'}"
                )


def _check_names(names: Sequence[str], schema: Schema) -> None:
    for index, (of_model, of_stream) in enumerate(zip(names, schema.feature_names, strict=True)):
        if normal(of_model) != normal(of_stream):
            raise ModelError(
                f"feature_names: feature {index} of the stream is {shown(of_stream)}, of the model"
                f" {shown(of_model)}"
            )


def _check_types(envelope: Envelope, schema: Schema) -> None:
    numbers = ["number"] * envelope.features
    pairs = zip(schema.types or numbers, envelope.types or numbers, strict=True)
    for index, (of_stream, of_model) in enumerate(pairs):
        if of_stream != of_model:
            raise ModelError(
                f"types: feature {index} {shown(schema.feature_names[index])} of the stream is a"
                f" {of_stream}, of the model a {of_model}"
            )


def check_release(made_with: str) -> None:
    """Check that a model made with this scikit-learn version can be loaded by the one installed.

    Major and minor version have to be the same. scikit-learn does not support more: a model of
    another version may load and predict differently. Versions of numpy and Python are not
    compared: with another one of theirs, a pickle either loads unchanged or raises.

    Raises
    ------
    ModelError
    """
    installed = version("scikit-learn")
    if made_with.split(".")[:2] != installed.split(".")[:2]:
        raise ModelError(f"made with scikit-learn {made_with}, installed is {installed}")


def unpickle(pickle: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Unpickle a model. This runs any code that its signer put into it.

    Parameters
    ----------
    pickle : bytes
        Written by joblib or pickle, plain or compressed with zlib.
    max_bytes : int
        Largest size that it may unpack to.

    Raises
    ------
    ModelError
        When it is larger, cannot be unpickled, or holds an estimator of another scikit-learn
        version than its envelope says.
    """
    size = _unpacked_size(pickle, max_bytes)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", message="Trying to unpickle estimator")
            found = _read(pickle, size)
    except Exception as error:  # noqa: BLE001 - unpickling may raise anything
        raise ModelError(f"cannot be unpickled: {type(error).__name__}: {error}"[:300]) from None
    for warning in said:  # scikit-learn's InconsistentVersionWarning
        check_release(getattr(warning.message, "original_sklearn_version", "unknown"))
    return found


def check_classes(classifier: Any) -> None:
    """Check that an object is a fitted classifier of the labels 0 and 1, or False and True.

    Raises
    ------
    ModelError
    """
    kind = type(classifier).__name__
    if not hasattr(classifier, "predict"):
        raise ModelError(f"a {kind} is not a classifier")
    classes = np.asarray(getattr(classifier, "classes_", ()), dtype=object)
    if classes.shape != (2,) or any(map(np.ndim, classes)) or [*classes] not in ([0, 1], [1, 0]):
        found = str(classes.tolist())[:100] if classes.size else "missing: not a fitted classifier"
        raise ModelError(f"a {kind} does not predict the labels 0 and 1: its classes are {found}")


def load(
    envelope: Envelope,
    pickle: bytes,
    max_bytes: int = MAX_BYTES,
    max_microseconds: float = math.inf,
) -> Model:
    """Unpickle and probe a model whose signature, digest and fit to the stream are checked.

    Parameters
    ----------
    max_bytes : int
        Largest size that it may unpack to.
    max_microseconds : float
        Longest time for a record, in batches of 500.

    Raises
    ------
    ModelError
        When it cannot be unpickled, is not a classifier of the labels 0 and 1, fails on its probe,
        or is too slow.
    """
    classifier = unpickle(pickle, max_bytes)
    check_classes(classifier)
    if envelope.threshold is not None and not hasattr(classifier, "predict_proba"):
        raise ModelError(
            f"threshold: a {type(classifier).__name__} gives no probabilities;"
            " calibrate it with CalibratedClassifierCV"
        )
    model = Model(envelope, classifier)
    rows = probe(envelope)
    model.predict(rows)
    if math.isfinite(max_microseconds):
        _check_speed(model, rows, max_microseconds)
    return model


def probe(envelope: Envelope) -> list[list[Cell]]:
    """Return the rows that a model is probed with: its envelope's, else eight of random numbers."""
    rows: list[list[Cell]]
    if envelope.probes:
        rows = [[*row] for row in envelope.probes]
    elif envelope.probe is not None:
        rows = [[*envelope.probe] for _ in range(_PROBE_ROWS)]
    else:
        random = np.random.default_rng(0).normal(size=(_PROBE_ROWS, envelope.features))
        rows = [[0.0] * envelope.features, *random[1:].tolist()]
    if envelope.accepts_missing and envelope.probe is None:
        rows[1:2] = [[None] * envelope.features]
    for row, index in zip(rows[1:], envelope.accepts_missing_in or (), strict=False):
        row[index] = None
    return rows


def _unpacked_size(pickle: bytes, max_bytes: int) -> int:
    """Return the unpacked size of a pickle, holding at most one chunk of it in memory."""
    size = 0
    if pickle[:1] == b"\x80":
        size = len(pickle)
    else:
        unpacker, read = zlib.decompressobj(), 0
        try:
            while read < len(pickle) and size <= max_bytes and not unpacker.eof:
                # In slices, because each call copies the rest of its input.
                packed = pickle[read : read + _SLICE_BYTES]
                read += len(packed)
                while packed and size <= max_bytes:
                    size += len(unpacker.decompress(packed, _CHUNK_BYTES))
                    packed = unpacker.unconsumed_tail
        except zlib.error:
            raise ModelError(
                "cannot be unpickled: neither plain nor compressed with zlib"
            ) from None
        more = unpacker.unused_data or read < len(pickle)
        if unpacker.eof and more:  # joblib would unpack that as well
            raise ModelError("cannot be unpickled: more data after its end")
    if size > max_bytes:
        raise ModelError(f"larger than {max_bytes} bytes when unpacked")
    return size


def _read(pickle: bytes, size: int) -> Any:
    """Unpickle a model of this unpacked size.

    joblib's reader holds no second copy of a large model, but for a small one it is slow.
    """
    if size <= _SMALL_BYTES:
        unpacked = pickle if pickle[:1] == b"\x80" else zlib.decompress(pickle)
        if _ARRAY_OF_JOBLIB not in unpacked:
            return loads(unpacked)  # noqa: S301 - it is signed by a trusted key
    return joblib.load(io.BytesIO(pickle))


def load_within(limits: ModelLimits, stop: Stop, envelope: Envelope, pickle: bytes) -> Model:
    """Load a model within the limits on its size, its speed and the time to load it.

    Raises
    ------
    ModelError
    Stopped
    """
    seconds = limits.model_load_seconds
    try:
        return stop.deadline(
            seconds,
            lambda: load(envelope, pickle, limits.model_max_bytes, limits.model_max_microseconds),
            max_step=1.0,
        )
    except DeadlineExceeded:
        raise ModelError(f"not loaded and probed within MODEL_LOAD_SECONDS={seconds:g}") from None


def _check_speed(model: Model, rows: Rows, max_microseconds: float) -> None:
    """Check the best of a few runs, so that a busy machine does not refuse a good model.

    In the first one there are fewer records, which take longer each: fast models need no other.
    """
    best = math.inf
    for most in _TIMED_ROWS:
        count = max(len(rows), min(most, _TIMED_NUMBERS // model.envelope.features))
        matrix = model.layout.matrix([*islice(cycle(rows), count)])
        started = time.perf_counter()
        model.predict_matrix(matrix)
        best = min(best, 1e6 * (time.perf_counter() - started) / count)
        if best <= max_microseconds:
            return
    raise ModelError(
        f"too slow: {best:.0f} µs a record in batches of {count},"
        f" MODEL_MAX_MICROSECONDS={max_microseconds:g}"
    )
