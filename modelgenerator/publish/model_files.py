"""Model files: loaded, or refused with what the file is instead, and what to do."""

from __future__ import annotations

import bz2
import codecs
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import lz4.frame
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from stream.models import ModelError

SAVE = 'save the fitted scikit-learn model itself: joblib.dump(model, "model.joblib")'

NOTEBOOK = (
    "__main__, the notebook or script, which predictors do not have; put it in a package that is"
    " installed there"
)

_START_BYTES = 4_096
_CHUNK_BYTES = 2**16
_MOST_BYTES = 2**30
"""How much of an unpacked file is searched for the version of scikit-learn at most."""

_COMPRESSED: dict[str, tuple[bytes, Callable[[], Any]]] = {
    "gzip": (rb"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    "bzip2": (rb"BZh", bz2.BZ2Decompressor),
    "xz": (rb"\xfd7zXZ\x00|\x5d\x00\x00", lzma.LZMADecompressor),
    "lz4": (rb"\x04\x22\x4d\x18", lz4.frame.LZ4FrameDecompressor),
    "zlib": (rb"\x78[\x01\x5e\x9c\xda]", zlib.decompressobj),
}

_KINDS: dict[str, bytes] = {
    "a pointer of Git LFS": rb"version https://git-lfs",
    "an HDF5 file, as Keras writes": rb"\x89HDF\r\n",
    "an ONNX model": rb"\x08[\x01-\x20](\x12.[ -~]{3}|[\x3a\x42])",
    "a file packed with Zstandard": rb"\x28\xb5\x2f\xfd",
    "a numpy array": rb"\x93NUMPY",
    "a Parquet file": rb"PAR1",
    "an Arrow file": rb"ARROW1",
    "a model of R": rb"RD[AX][23]\n|[XA]\n(\x00\x00\x00[\x02\x03]|[23]\n)",
    "a model of CatBoost": rb"CBM1",
    "a model of LightGBM": rb"tree\nversion=",
    "a model of XGBoost": rb"binf|\{L\x00|\{\"(learner|version)\":[\[{]",
    "a model of TensorFlow Lite": rb".{4}TFL3",
    "a safetensors file": rb".{2,4}\x00{4,6}\{\"",
    "an SQLite database": rb"SQLite format 3",
    "a PDF": rb"%PDF",
    "a tar archive": rb".{257}ustar",
    "a PMML model": rb"(\xef\xbb\xbf)?\s*(<\?xml.*)?<PMML",
    "a web page, perhaps of a download that failed": rb"(?i)\s*<(!doctype html|html)",
    "XML": rb"(\xef\xbb\xbf)?\s*<[?A-Za-z]",
    "JSON": rb"(\xef\xbb\xbf)?\s*([{]\s*[\"}]|\[\s*[\[{\"\d-])",
    "nothing but zeros": rb"\x00+$",
}

_ZIPPED = {
    "a skops file": r"schema\.json",
    "a Keras model": r"metadata\.json|.*\.weights\.h5",
    "a model of PyTorch": r".*data\.pkl",
    "numpy arrays": r".*\.npy",
    "a model of H2O": r"model\.ini",
    "a zip file": r".*",
}

_ADVICE = {
    "a pointer of Git LFS": "git lfs pull fetches the file itself",
    "a skops file": "load it with skops.io.load, then joblib.dump(model, FILE)",
}
"""What to do with some of these; with the others: `SAVE`."""

_PICKLE = rb"\x80[\x02-\x05]|c[\w.]+\n\w+\n|\(\w"
"""How a pickle begins: with its protocol, or in protocol 0 with its first opcode."""

_VERSION = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4}|\np\d+\n)?(?:\x8c.|X.{4}|V)"
    rb"(\d+(?:\.\d+)+(?:(?:a|b|rc|\.dev)\d+)?)",
    re.DOTALL,
)
"""The version in an estimator's pickled state, in every protocol: opcodes, with memo or without."""


def load(path: Path) -> tuple[Any, str]:
    """Load a file of joblib or pickle; return the model and the scikit-learn it was made with.

    Raises
    ------
    ModelError
        When it is no such file, or cannot be unpickled.
    OSError
    """
    if path.is_dir():
        raise ModelError("a directory; name the file in it that joblib or pickle wrote")
    with path.open("rb") as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(file)
        except Exception as error:  # noqa: BLE001 - unpickling may raise anything
            raise ModelError(_why_not(path, error)) from None
    versions = [
        found.message.original_sklearn_version
        for found in caught
        if isinstance(found.message, InconsistentVersionWarning)
    ]
    return model, versions[0] if versions else sklearn.__version__


def _why_not(path: Path, error: Exception) -> str:
    if found := _kind(path):
        what, advice = found
        return f"not a joblib or pickle file, but {what}; {advice}"
    said = " ".join(str(error).split())  # some errors have several lines
    reason = f"cannot be unpickled: {type(error).__name__}: {said}"[:300]
    made_with, whole = scanned(path)
    if isinstance(error, EOFError) or not whole:
        return f"{reason}; the file is not whole: copy it again"
    if made_with not in (None, sklearn.__version__):
        return (
            f"made with scikit-learn {made_with}, installed is {sklearn.__version__}; fit and save"
            f" it again with {sklearn.__version__} ({reason})"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"{reason}; predictors need this package, too"
    missing = re.search(r"attribute '(.+?)'", said)
    if missing and re.search(r"module '(\S+\.)?__main__'", said):
        return f"it uses {missing[1][:100]} of {NOTEBOOK}"
    return reason


def _kind(path: Path) -> tuple[str, str] | None:
    """Say what a file is that is no pickle, and what to do; ``None`` if it is a pickle."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        return "an empty file", SAVE
    if start.startswith(b"PK"):
        return _zipped(path)
    packed = _compression(start)
    if packed:
        start = next((chunk for chunk in _unpacked(path) if chunk), b"")[:_START_BYTES]
        if not start:
            return f"{packed} that is empty or not whole", "copy it again"
    if re.match(_PICKLE, start):
        return None
    what = next((w for w, magic in _KINDS.items() if re.match(magic, start, re.DOTALL)), None)
    what = what or _text(start) or f"a file that begins with {start[:8]!r}"
    return (f"{what}, packed with {packed}" if packed else what), _ADVICE.get(what, SAVE)


def _zipped(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip file that is not whole", "copy it again"
    what = next(w for w, p in _ZIPPED.items() if any(re.fullmatch(p, n) for n in [*names, ""]))
    of_model = any(name.endswith((".joblib", ".pkl", ".pickle")) for name in names)
    return what, _ADVICE.get(what, "unpack it first" if of_model else SAVE)


def _compression(start: bytes) -> str | None:
    return next((name for name, (m, _) in _COMPRESSED.items() if re.match(m, start)), None)


def _unpacked(path: Path) -> Iterator[bytes]:
    """Yield the content in chunks, unpacked if it is packed, as far as it can be read."""
    with path.open("rb") as file:
        packed = _compression(file.read(8))
        file.seek(0)
        unpacker = _COMPRESSED[packed][1]() if packed else None
        while chunk := file.read(_CHUNK_BYTES):
            if unpacker is None:
                yield chunk
                continue
            try:
                yield unpacker.decompress(chunk)
            except (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError):
                return


def _text(start: bytes) -> str:
    """Say how a text begins; empty if it is none."""
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start).lstrip()
    except UnicodeDecodeError:
        return ""
    if not text or not all(c.isprintable() or c.isspace() for c in text):
        return ""
    line = text.splitlines()[0]
    table = re.search(r"[^,;\t][,;\t][^,;\t ]", line)
    return f"{'a table such as CSV' if table else 'a text'} that begins with {line[:40]!r}"


def scanned(path: Path) -> tuple[str | None, bool]:
    """Read a pickle without loading it.

    An estimator's state names the version of scikit-learn. It is searched for as bytes, because
    joblib writes arrays between the opcodes.

    Returns
    -------
    version : str or None
        ``None`` if none is named.
    whole : bool
        Whether the last opcode is there, which is a dot.
    """
    version, last, size = None, b"", 0
    for chunk in _unpacked(path):
        if version is None and (found := _VERSION.search(last + chunk)):
            version = found[1].decode()
        last, size = (last + chunk)[-100:], size + len(chunk)
        if size > _MOST_BYTES:
            return version, True
    return version, last.endswith(b".")
