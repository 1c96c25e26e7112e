"""Files that are no model, and objects that are no classifier: what they are is said."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
import zstandard
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelgenerator.publish.classifiers import check_is_classifier
from modelgenerator.publish.model_files import load, scanned
from stream.models import ModelError
from tests.topics import regression

SAVE = 'save the fitted scikit-learn model itself: joblib.dump(model, "model.joblib")'


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


KINDS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"an empty file; {SAVE}"),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a pointer of Git LFS; git lfs pull fetches the file itself",
    ),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file, as Keras writes"),
    "onnx of skl2onnx": (b"\x08\x0a\x12\x08skl2onnx\x1a\x061.17.0", "an ONNX model"),
    "onnx of pytorch": (b"\x08\x08\x12\x07pytorch\x1a\x052.5.1", "an ONNX model"),
    "onnx without a producer": (b"\x08\x07\x3a\x9c\x05\x0a\x10\x0a\x01x", "an ONNX model"),
    "skops": (
        zipped("schema.json", "1.npy"),
        "a skops file; load it with skops.io.load, then joblib.dump(model, FILE)",
    ),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "torch": (zipped("archive/data.pkl", "archive/version"), "a model of PyTorch"),
    "npz": (zipped("x.npy", "y.npy"), "numpy arrays"),
    "zip": (zipped("readme.txt"), "a zip file"),
    "zip of a model": (zipped("model.joblib"), "a zip file; unpack it first"),
    "cut zip": (zipped("schema.json")[:40], "a zip file that is not whole; copy it again"),
    "zstd": (zstandard.compress(b"model"), "a file packed with Zstandard"),
    "npy": (saved(np.zeros(3)), "a numpy array"),
    "parquet": (b"PAR1\x15\x04", "a Parquet file"),
    "json": (b'{\n "model": [1, 2]}', "JSON"),
    "json list": (b"[1, 2, 3]", "JSON"),
    "notebook": (json.dumps({"cells": []}).encode(), "JSON"),
    "xgboost": (b'{"learner":{"attributes":{}}}', "a model of XGBoost"),
    "lightgbm": (b"tree\nversion=v4\nnum_class=1\n", "a model of LightGBM"),
    "catboost": (b"CBM1\x00\x00", "a model of CatBoost"),
    "pmml": (
        b'<?xml version="1.0"?>\n<PMML xmlns="http://www.dmg.org/PMML-4_4">',
        "a PMML model",
    ),
    "xml": (b'<?xml version="1.0"?>\n<model/>', "XML"),
    "html": (
        b"<!DOCTYPE html>\n<html>Sign in</html>",
        "a web page, perhaps of a download that failed",
    ),
    "csv": (b"age,hours,label\n1,2,0\n", "a table such as CSV that begins with 'age,hours,label'"),
    "csv of excel": ("\ufeffa;b\n1;2\n".encode(), "a table such as CSV that begins with 'a;b'"),
    "utf-16": ("age\tlabel\n".encode("utf-16"), "a table such as CSV that begins with"),
    "text": (b"see the other folder", "a text that begins with 'see the other folder'"),
    "script": (b"import joblib\n", "a text that begins with 'import joblib'"),
    "rds": (
        gzip.compress(b"X\n\x00\x00\x00\x03\x00\x04\x03\x00"),
        f"a model of R, packed with gzip; {SAVE}",
    ),
    "rdata": (bz2.compress(b"RDX3\nX\n\x00\x00\x00\x03"), "a model of R, packed with bzip2"),
    "packed csv": (
        gzip.compress(b"a,b\n1,2\n"),
        "a table such as CSV that begins with 'a,b', pack",
    ),
    "packed json": (lzma.compress(b'{"a": 1}'), "JSON, packed with xz"),
    "tar": (gzip.compress(257 * b"m" + b"ustar\x0000"), "a tar archive, packed with gzip"),
    "packed nothing": (gzip.compress(b""), "gzip that is empty or not whole; copy it again"),
    "tflite": (b"\x1c\x00\x00\x00TFL3\x14\x00", "a model of TensorFlow Lite"),
    "safetensors": (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{}}', "a safetensors file"),
    "zeros": (bytes(10_000), "nothing but zeros"),
    "garbage": (b"\xde\xad\xbe\xef" * 4, r"a file that begins with b'\xde\xad\xbe\xef"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_no_pickle_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    content, what = KINDS[name]
    path = tmp_path / "model.joblib"
    path.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load(path)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"not a joblib or pickle file, but {what}")
    assert line.isprintable()


def test_a_directory_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a directory; name the file in it"):
        load(tmp_path)


def joblib_of(compress: Any) -> Callable[[Any], bytes]:
    def dumped(model: Any) -> bytes:
        buffer = io.BytesIO()
        joblib.dump(model, buffer, compress=compress)
        return buffer.getvalue()

    return dumped


WRITTEN: dict[str, Callable[[Any], bytes]] = {
    **{f"pickle {n}": lambda model, n=n: pickle.dumps(model, n) for n in range(6)},  # type: ignore[misc] # the default is bound in the loop
    "joblib": joblib_of(0),
    "joblib, zlib": joblib_of(3),
    **{f"joblib, {name}": joblib_of((name, 3)) for name in ("gzip", "bz2", "xz", "lzma", "lz4")},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pickle_of_another_scikit_learn_names_both_versions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Renamed(LogisticRegression):  # type: ignore[misc] # scikit-learn carries no types
        pass

    # Its class is gone, as private ones of scikit-learn are after some versions.
    Renamed.__module__, Renamed.__qualname__ = "sklearn.linear_model._logistic", "Renamed"
    monkeypatch.setattr("sklearn.linear_model._logistic.Renamed", Renamed, raising=False)
    monkeypatch.setattr("sklearn.base.__version__", "0.24.2")
    matrix = np.random.default_rng(0).normal(size=(50, 2))
    model = Renamed().fit(matrix, matrix[:, 0] > 0)
    path = tmp_path / "model"
    path.write_bytes(WRITTEN[name](model))
    monkeypatch.undo()
    assert scanned(path) == ("0.24.2", True)
    with pytest.raises(ModelError) as refused:
        load(path)
    assert str(refused.value).startswith(
        f"made with scikit-learn 0.24.2, installed is {sklearn.__version__}; fit and save it again"
    )
    assert "AttributeError" in str(refused.value)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pickle_that_is_not_whole_says_so(name: str, tmp_path: Path) -> None:
    model = regression()
    model.padding = np.random.default_rng(0).bytes(20_000)
    whole = WRITTEN[name](model)
    path = tmp_path / "model"
    path.write_bytes(whole)
    assert load(path)[1] == sklearn.__version__
    half = whole[: len(whole) // 2]
    assert not half.endswith(b"."), "a dot is how a pickle ends"
    path.write_bytes(half)
    with pytest.raises(ModelError, match=r"not whole(: |; )copy it again"):
        load(path)


def test_a_pickle_of_a_package_that_is_not_here_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cno_such_package.models\nHouse\n(tR.")
    with pytest.raises(ModelError, match=r"No module named 'no_such_package'; predictors need"):
        load(path)


@pytest.mark.parametrize("protocol", [b"", b"\x80\x04"])
def test_a_pickle_of_a_class_of_the_notebook_names_the_class(
    protocol: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(protocol + b"c__main__\nHouse\n(tR.")
    with pytest.raises(ModelError, match=r"^it uses House of __main__, the notebook or script"):
        load(path)


MATRIX = np.random.default_rng(0).normal(size=(60, 2))
LABELS = (MATRIX[:, 0] > 0).astype(int)


class Bare:
    def predict(self, matrix: Any) -> Any:
        return matrix


OBJECTS: dict[str, tuple[Any, str]] = {
    "regressor": (LinearRegression().fit(MATRIX, LABELS), "a LinearRegression, a regressor, not"),
    "pipeline of a regressor": (
        make_pipeline(StandardScaler(), LinearRegression()).fit(MATRIX, LABELS),
        "a Pipeline, a regressor, not a classifier",
    ),
    "not fitted": (LogisticRegression(), "a LogisticRegression, not fitted; call fit(X, y) first"),
    "pipeline, not fitted": (
        make_pipeline(StandardScaler(), LogisticRegression()),
        "a Pipeline, not fitted; call fit(X, y) first",
    ),
    "scaler": (StandardScaler().fit(MATRIX), "a StandardScaler, not a classifier: it has no pred"),
    "pipeline without a classifier": (
        make_pipeline(StandardScaler()).fit(MATRIX),
        "a Pipeline, not a classifier: it has no predict",
    ),
    "search": (
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}, refit=False).fit(MATRIX, LABELS),
        "a GridSearchCV, which keeps no model; search with refit=True",
    ),
    "search, not fitted": (
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}),
        "a GridSearchCV, not fitted; call fit",
    ),
    "dict": (
        {"columns": ["a"], "model": LogisticRegression()},
        "a dict, not a classifier; publish the LogisticRegression in it, at ['model']",
    ),
    "other dict": ({"a": 1}, "a dict, not a classifier; publish a fitted classifier"),
    "list": ([LogisticRegression()], "a list, not a classifier; publish the LogisticRegression in"),
    "class": (LogisticRegression, "the class LogisticRegression itself; make a model of it"),
    "array": (MATRIX, "a ndarray, not a classifier: it has no predict"),
    "None": (None, "a NoneType, not a classifier"),
    "clusters": (KMeans(2, n_init=1).fit(MATRIX), "a KMeans, a clusterer, not a classifier"),
    "outliers": (IsolationForest(n_estimators=5).fit(MATRIX), "an IsolationForest, an outlier"),
    "words": (
        LogisticRegression().fit(MATRIX, np.array(["no", "yes"])[LABELS]),
        "a LogisticRegression whose classes are ['no', 'yes']; they have to be 0 and 1: fit it on"
        " y == 'yes'",
    ),
    "three": (
        LogisticRegression().fit(MATRIX, LABELS + (MATRIX[:, 1] > 0)),
        "a LogisticRegression whose classes are [0, 1, 2]; they have to be 0 and 1",
    ),
    "one": (
        DummyClassifier().fit(MATRIX, np.ones(60)),
        "a DummyClassifier whose classes are [1.0]; it knows one label only: fit it on records of"
        " both",
    ),
    "no classes": (Bare(), "a Bare without the classes_ that a classifier of scikit-learn has"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_is_no_fitted_classifier_is_called_what_it_is(name: str) -> None:
    found, what = OBJECTS[name]
    with pytest.raises(ModelError, match=re.escape(what)):
        check_is_classifier(found)


def test_a_fitted_classifier_of_0_and_1_is_one() -> None:
    check_is_classifier(regression())
    check_is_classifier(LogisticRegression().fit(MATRIX, LABELS == 1))
