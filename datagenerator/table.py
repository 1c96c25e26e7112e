"""The rows of a file, or of several, read by DuckDB: streamed, so memory is flat whatever the size.

Every format comes down to cells of text, so the same rules say what a column holds.
"""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import duckdb

from datagenerator import dialect
from datagenerator.dialect import SourceError
from stream.quoting import shown
from stream.records import normal

_TEXT = (".csv", ".tsv", ".tab", ".txt", ".data")
_JSON = (".jsonl", ".ndjson", ".json")
_ENDINGS = (*_TEXT, *_JSON, ".parquet")

MOST_COLUMNS = 1_001
"""A query over more does not fit into its memory."""

_REJECTS = 100_000
"""Errors in lines that DuckDB keeps; a line that is too short has one for each cell it lacks."""

_BUFFER = 8_000_000
"""Bytes of text that are read at once; four times the longest line."""

_FETCHED = 2_048
_AROUND = " \"'"


class Table:
    """The rows of all files that a path, a folder or a pattern names, in the order of their names.

    Parameters
    ----------
    stream : str
        CSV and the like, or JSON lines, as they are or packed with gzip or zstd; or Parquet.
    separator, encoding : str or None
        Of text; ``None`` to find it.
    nulls : sequence of str
        Cells that stand for a missing value, besides empty ones.

    Attributes
    ----------
    names : list of str
        Of the columns, in the order of the file and in one form of Unicode.
    unnamed : frozenset of str
        Those of `names` that the file itself does not have.
    size : int
        Rows; a row without any value is none.
    problems : list of str
        Why lines cannot be read, and what to do.

    Raises
    ------
    SourceError
        When the files cannot be read at all.
    """

    def __init__(
        self, stream: str, separator: str | None, encoding: str | None, nulls: Sequence[str]
    ) -> None:
        self._paths = _files(stream)
        self.place = stream
        # Nothing is written to disk, which a container may not have, and nothing is downloaded.
        options = {"threads": 1, "memory_limit": "300MB", "temp_directory": ""}
        self._database = duckdb.connect(
            config=options | {"autoinstall_known_extensions": False}  # type: ignore[arg-type] # its type knows no bool
        )
        self._database.execute("SET TimeZone = 'UTC'")  # of times without an offset
        self._nulls = ("", *nulls)
        self.unnamed: frozenset[str] = frozenset()
        self.dialect: dialect.Dialect | None = None
        self._source, cells, reading = self._opened(separator, encoding)
        if len(cells) > MOST_COLUMNS:
            raise SourceError(f"{stream}: {len(cells)} columns; at most {MOST_COLUMNS} are read")
        missing = literal("|".join(["", *map(re.escape, nulls)]))
        self._values = ", ".join(
            f"CASE WHEN NOT regexp_full_match(trim({cell}), {missing})"
            f" THEN trim({cell}) END AS v{at}"
            for at, cell in enumerate(cells)
        )
        self._rows = f"(SELECT {self._values} FROM {self._source}{reading})"  # noqa: S608 - quoted
        self._anything = f"coalesce({', '.join(f'v{at}' for at in range(len(cells)))})"
        self.size, self.problems = self._counted()

    def select(
        self, what: Sequence[str], rest: str = "", given: Sequence[str] = ()
    ) -> Iterator[tuple[Any, ...]]:
        """Yield a row of the answer after the other.

        Parameters
        ----------
        what : sequence of str
            Expressions of SQL over ``v0``, ``v1`` and so on, the columns as text without blanks
            around it, null where it is missing.
        rest : str
            What follows: ``WHERE`` and the like.
        given : sequence of str
            Expressions with a name that `what` refers to, so each is computed once.
        """
        rows = f"(SELECT {', '.join(['*', *given])} FROM {self._rows})"  # noqa: S608 - quoted
        query = f"SELECT {', '.join(what)} FROM {rows} {rest}"  # noqa: S608 - quoted
        # A cursor of its own: another query would end this one.
        answer = self._guarded(lambda: self._database.cursor().execute(query))
        while rows := self._guarded(lambda: answer.fetchmany(_FETCHED)):
            yield from rows

    def find(self, condition: str) -> str:
        """Return where the first row is for which a condition holds, as a file and a line."""
        numbered = f"(SELECT *, row_number() OVER () AS number FROM {self._rows})"  # noqa: S608 - quoted
        query = f"SELECT number FROM {numbered} WHERE {condition} LIMIT 1"  # noqa: S608 - ours
        ((number,),) = self._run(query).fetchall()
        rows = chain.from_iterable(map(self._lines, self._paths)) if self.dialect else iter(())
        with suppress(csv.Error):  # an unclosed quote further up, which is named as well
            for path, line in islice(rows, number - 1, None):
                return f"{path}, line {line}"
        return f"{self.place}, row {number}"

    def _lines(self, path: Path) -> Iterator[tuple[Path, int]]:
        """Yield the first line of each row of a text file, as Python reads it."""
        assert self.dialect
        _, separator, quote, escape, packed, encoding, skip, _ = self.dialect
        options: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
        if escape != quote:
            options |= {"escapechar": escape}
        with dialect.unpacked(path, packed) as raw:
            text = io.TextIOWrapper(raw, encoding, errors="replace", newline="")
            for _ in range(skip):
                text.readline()
            reader = csv.reader(text, delimiter=separator[0], skipinitialspace=True, **options)
            line = skip + 1
            for row in reader:
                cells, more = row[: len(self.names)], row[len(self.names) :]
                missing = all(cell.strip() in self._nulls for cell in cells)
                if len(cells) == len(self.names) and not missing and not any(more):
                    yield path, line
                line = skip + reader.line_num + 1

    def _opened(self, separator: str | None, encoding: str | None) -> tuple[str, list[str], str]:
        """Return the source of the rows as SQL, the text of each column, and a last option."""
        first, files = self._paths[0], ", ".join(literal(glob.escape(str(p))) for p in self._paths)
        parquet = dialect.begins(first).startswith(b"PAR1")
        if parquet or _ending(first).endswith(_JSON):
            source = f"read_parquet([{files}]" if parquet else f"read_json([{files}]"
            source += "" if parquet else ", sample_size=-1, maximum_depth=1"
            last = ", union_by_name=true)"
            answer = self._run(f"SELECT * FROM {source}{last} LIMIT 0")  # noqa: S608 - quoted
            names = [column[0] for column in answer.description]
            self.names = [normal(name) for name in names]
            quoted = ['"' + name.replace('"', '""') + '"' for name in names]
            as_text = "CAST({} AS VARCHAR)" if parquet else "({} ->> '$')"
            return source, [as_text.format(name) for name in quoted], last
        found = [dialect.find(path, separator, encoding) for path in self._paths]
        for path, other in zip(self._paths, found, strict=True):
            if other != found[0]:
                raise SourceError(
                    f"{path} is laid out otherwise than {first}: names, separator, quotes, packing"
                    " and encoding have to be the same in all files"
                )
        self.dialect = at = found[0]
        self.names, self.unnamed = [normal(name) for name in at.names], at.unnamed
        columns = ", ".join(f"c{number}: 'VARCHAR'" for number in range(len(at.names)))
        source = (
            f"read_csv([{files}], auto_detect=false, header=false, skip={at.skip},"
            f" columns={{{columns}}}, delim={literal(at.separator)}, quote={literal(at.quote)},"
            f" escape={literal(at.escape if at.quote else '')}, encoding='{at.encoding}',"
            f" compression='{at.packed}', buffer_size={_BUFFER}"
        )
        cell = "c{}" if at.quote else f"trim(c{{}}, {literal(_AROUND)})"
        cells = [cell.format(number) for number in range(len(at.names))]
        return source, cells, ", ignore_errors=true)"

    def _counted(self) -> tuple[int, list[str]]:
        """Read everything once; return how many rows there are, and what is wrong with lines."""
        problems: list[str] = []
        rows = self._rows
        if self.dialect:
            keep = f", store_rejects=true, rejects_limit={_REJECTS}"
            rows = f"(SELECT {self._values} FROM {self._source}{keep}))"  # noqa: S608 - quoted
        query = f"SELECT count(*), count({self._anything}) FROM {rows}"  # noqa: S608 - quoted
        ((lines, size),) = self._run(query).fetchall()
        if size < lines:
            self._rows = f"(SELECT * FROM {self._rows} WHERE {self._anything} IS NOT NULL)"  # noqa: S608 - quoted
        # DuckDB makes this table for the first line that it cannot read.
        if self._run("FROM duckdb_tables() WHERE table_name = 'reject_errors'").fetchone():
            assert self.dialect
            rejects = self._run(
                "SELECT file_path, line, error_type, coalesce(csv_line, '!'), error_message"
                " FROM reject_errors JOIN reject_scans USING (scan_id, file_id)"
                " ORDER BY file_id, line, column_idx"
            ).fetchall()
            separators = f"{self.dialect.separator} \t\r\n"
            # A line that is too short stands there once for each cell that it lacks.
            lines = {(path, line): (kind, *rest) for path, line, kind, *rest in reversed(rejects)}
            wrong = sorted((at, *what) for at, what in lines.items() if what[1].strip(separators))
            problems = [self._problem(*each) for each in wrong[:3]]
            if more := len(wrong) - len(problems):
                problems[-1] += f" (and {more} lines more)"
            if len(rejects) == _REJECTS and not problems:
                problems = [f"{self.place}: too many lines are blank; delete them"]
        return size, problems

    def _problem(self, at: tuple[str, int], kind: str, text: str, message: str) -> str:
        place = f"{at[0]}, line {at[1]}"
        if "COLUMNS" in kind:
            found = message.rpartition(" ")[2]
            return (
                f"{place}: {found} cells, expected {len(self.names)}: {shown(text)};"
                " if it is a title, a total or a note, delete it"
            )
        if "UNQUOTED" in kind:
            return f"{place}: a quote that is not closed, or text behind a quote: {shown(text)}"
        if "UNICODE" in kind or "ENCODING" in kind:
            return dialect.not_encoded(place, self.dialect.encoding if self.dialect else "utf-8")
        return f"{place}: {message.splitlines()[0]}"

    def _run(self, query: str) -> Any:
        return self._guarded(lambda: self._database.execute(query))

    def _guarded(self, call: Any) -> Any:
        try:
            return call()
        except duckdb.OutOfMemoryException:
            raise SourceError(
                f"{self.place}: {len(self.names)} columns are too many, or a row is too long"
            ) from None
        except duckdb.Error as error:
            if self.dialect and f"not {self.dialect.encoding} encoded" in str(error):
                wrong = dialect.not_encoded(self.place, self.dialect.encoding)
                raise SourceError(wrong) from None
            what = str(error).splitlines()[0].partition(": ")[2] or str(error)
            raise SourceError(f"{self.place}: {what}") from None


def literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def is_there(stream: str) -> bool:
    """Tell whether a name is that of a file, a folder, or a pattern of files."""
    return Path(stream).exists() or bool(glob.glob(stream))  # noqa: PTH207 - may be absolute


def _files(stream: str) -> list[Path]:
    path = Path(stream)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            each
            for each in path.iterdir()
            if each.is_file() and not each.name.startswith(".") and _ending(each).endswith(_ENDINGS)
        ]
    else:
        found = [Path(name) for name in glob.glob(stream, recursive=True)]  # noqa: PTH207 - may be absolute
        found = [path for path in found if path.is_file()]
    if not found:
        endings = ", ".join(_ENDINGS)
        raise SourceError(
            f"{stream}: no file there that ends in {endings}, or these with .gz, .zst"
        )
    return sorted(found)


def _ending(path: Path) -> str:
    """Return the name of a file without what says how it is packed."""
    return path.name.lower().removesuffix(".gz").removesuffix(".zst")
