"""What kind of file a table is, and how its text is laid out: found in how the file begins."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import IO, NamedTuple, cast

import zstandard

from stream.quoting import shown
from stream.service import Fatal

SAMPLE_BYTES = 2**18
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}

NULLS = ("?", "-", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "Null", "null", "None")
"""Cells that stand for a missing value, besides empty ones."""

_TRIED = ",;\t|"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_NOT_READ = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"\xfe\xff": "UTF-16 with the high byte first; save it as UTF-8",
}


class SourceError(Fatal):
    """A file that cannot be sent; the message names file, line and column."""


class Dialect(NamedTuple):
    """How the text of a table is laid out.

    Attributes
    ----------
    names : list of str
        The columns, as the line of names has them; ``column_3`` for the third if it has no name.
    separator : str
        It stands between cells. If a blank follows each in the file, it includes the blank: DuckDB
        reads no quote that stands after a blank.
    quote : str
        Empty if a quote is read as any other character, and taken off the cell afterwards.
    skip : int
        Lines before the first row, that of the names among them.
    unnamed : frozenset of str
        Those of `names` that the file does not have.
    """

    names: list[str]
    separator: str
    quote: str
    escape: str
    packed: str
    encoding: str
    skip: int
    unnamed: frozenset[str] = frozenset()


def begins(path: Path) -> bytes:
    """Return the first bytes of a file; they tell what it is, whatever it is called.

    Raises
    ------
    SourceError
        When it cannot be read, is empty, or of a kind that is not read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    for magic, what in _NOT_READ.items():
        if start.startswith(magic):
            raise SourceError(f"{path} is {what}")
    if not start:
        raise SourceError(f"{path}, line 1: the file is empty; expected a line of column names")
    return start


def find(path: Path, separator: str | None, encoding: str | None) -> Dialect:
    """Find out how a text file is laid out, from its first 256 KiB.

    Parameters
    ----------
    separator, encoding : str or None
        As the settings say; ``None`` to find it.

    Raises
    ------
    SourceError
        When it is no such text, or has no line of names.
    """
    start = begins(path)
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), "none")
    try:
        with unpacked(path, packed) as file:
            raw = file.read(SAMPLE_BYTES)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise SourceError(f"{path}: packed with {packed}, and damaged: {error}") from None
    encoding = encoding or ("utf-16" if raw.startswith(codecs.BOM_UTF16_LE) else "utf-8")
    text = _decoded(path, raw, encoding)
    if len(raw) == SAMPLE_BYTES:
        text = text[: text.rfind("\n") + 1] or text
    cell = r"""(?:^|[,;|\t])\s*'[^'\n]*'\s*(?:[,;|\t]|$)"""
    quote = "'" if '"' not in text and re.search(cell, text, re.MULTILINE) else '"'
    separator = separator or max(_TRIED, key=lambda each: _fits(text, each, quote))
    skip, names = _named(path, _rows(text, separator, quote))
    numbered = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    unnamed = frozenset(new for new, name in zip(numbered, names, strict=True) if not name)
    escape = "\\" if f"\\{quote}" in text else quote
    separator, quote = _quoted(path, text, separator, quote)
    return Dialect(numbered, separator, quote, escape, packed, encoding, skip, unnamed)


def _named(path: Path, rows: list[tuple[int, list[str]]]) -> tuple[int, list[str]]:
    """Return the names of the columns, empty for one without, and the line where they end."""
    if not rows:
        raise SourceError(f"{path}, line 1: the file is empty; expected a line of column names")
    width = Counter(len(row) for _, row in rows[1:] or rows).most_common(1)[0][0]
    titles = takewhile(lambda row: _is_title(row[1], width), rows[:-1])
    (line, names), *others = rows[len(list(titles)) :]
    while len(names) > width and not names[-1]:
        names = names[:-1]
    if len(names) == width - 1 and any(row[-1] for _, row in others if len(row) == width):
        return line, ["", *names]  # as R writes tables: the names of the rows have none
    if len(names) not in (width, width - 1):
        raise SourceError(
            f"{path}, line {line}: {len(names)} column names, but most lines have {width} cells;"
            " delete what stands before the line of names, or set SEPARATOR"
        )
    return line, names


def unpacked(path: Path, packed: str) -> IO[bytes]:
    """Open a file that may be packed with gzip or zstd."""
    if packed == "gzip":
        return cast(IO[bytes], gzip.open(path))
    return zstandard.open(path) if packed == "zstd" else path.open("rb")


def _decoded(path: Path, raw: bytes, encoding: str) -> str:
    if encoding != "utf-16" and b"\0" in raw:
        raise SourceError(f"{path}: binary data, or UTF-16 without a byte order mark, not a table")
    try:
        name = "utf-8-sig" if encoding == "utf-8" else encoding
        return codecs.getincrementaldecoder(name)().decode(raw)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(not_encoded(f"{path}, line {line}", encoding)) from None


def not_encoded(place: str, encoding: str) -> str:
    """Say that text is not encoded as it should be, and what helps."""
    helps = "ENCODING=latin-1 reads Western European"
    if encoding != "utf-8":
        helps = "save it as UTF-8: iconv -f windows-1252 -t utf-8, if it is of Windows"
    return f"{place}: not {encoding.upper()}; {helps}"


def _rows(text: str, separator: str, quote: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, each with the number of its last line."""
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    reader = csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=True)
    found = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((reader.line_num, cells))
    except csv.Error:  # an unclosed quote makes a cell too long; what is before it is enough
        pass
    return found


def _fits(text: str, separator: str, quote: str) -> tuple[float, int]:
    """Tell how well a separator fits: the share of rows with as many cells as most, how many."""
    widths = [len(row) for _, row in _rows(text, separator, quote)]
    width, count = Counter(widths).most_common(1)[0] if widths else (1, 0)
    return (count / len(widths), width) if width > 1 else (0, 0)


def _is_title(row: list[str], width: int) -> bool:
    """Tell whether a row before the names is a title, a remark or Excel's ``sep=;``."""
    return len(row) == 1 < width or (width > 2 and sum(map(bool, row)) == 1)


def _quoted(path: Path, text: str, separator: str, quote: str) -> tuple[str, str]:
    """Return separator and quote such that a quote after a blank is one."""
    around, mark = re.escape(separator), re.escape(quote)
    plain = rf"(?:^|(?<={around})){mark}(?:[^{mark}]|{mark}{mark})*{mark}"
    rest = re.sub(plain, "", text, flags=re.MULTILINE)
    if separator == " " or not re.search(rf"(?:^|{around}) +{mark}", rest, re.MULTILINE):
        return separator, quote
    cells = rf"{mark}[^{mark}]*{mark}"
    if not re.search(rf"{around}(?! (?! ))|^ ", re.sub(cells, "", text), re.MULTILINE):
        return f"{separator} ", quote
    for line, row in enumerate(text.splitlines(), 1):
        if any(separator in cell for cell in re.findall(cells, row)):
            raise SourceError(
                f"{path}, line {line}: {shown(row)} has a separator in quotes, and in some lines"
                " a blank stands before quotes; remove the blanks"
            )
    return separator, ""
