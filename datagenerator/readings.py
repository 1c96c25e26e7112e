"""How a cell of a table is read as a number, a category or a time."""

from __future__ import annotations

from typing import NamedTuple

from datagenerator.table import literal
from stream.records import Type


class Reading(NamedTuple):
    """A way to read a cell.

    Attributes
    ----------
    kind : str
        ``number``, ``category`` or ``time``.
    sql : str
        Its value as an expression over the text ``{v}``; null where it cannot be read so.
    """

    kind: Type
    sql: str

    def of(self, text: str) -> str:
        """Return the value of a text, both as expressions."""
        return self.sql.replace("{v}", text)


def _number(pattern: str, marks: str, decimal: str) -> str:
    cleaned = f"replace(translate({{v}}, {literal(marks)}, ''), '{decimal}', '.')"
    fits = f"regexp_full_match({{v}}, {literal(pattern)})"
    return f"CASE WHEN {fits} THEN TRY_CAST({cleaned} AS DOUBLE) END"


_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799
"""Seconds since 1970; what is before or after has no form in ISO 8601 that all readers know."""


def _date(pattern: str, date: str) -> str:
    formats = ", ".join(literal(date + time) for time in ("", " %H:%M", " %H:%M:%S"))
    return _time(pattern, f"TRY_STRPTIME({{v}}, [{formats}])")


def _time(pattern: str, time: str) -> str:
    fits = f"regexp_matches({{v}}, {literal(pattern)})"
    known = f"epoch({time}) BETWEEN {_YEAR_1} AND {_YEAR_9999}"
    return f"CASE WHEN {fits} AND {known} THEN epoch({time}) END"


# DuckDB reads 1_000 as a number, but a file does not mean it.
_PLAIN = "CASE WHEN NOT contains({v}, '_') THEN TRY_CAST({v} AS DOUBLE) END"
_BLANKS = "' \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
_GROUPED = _number(
    rf"[+-]?(?:[1-9]\d{{0,2}}(?:[,{_BLANKS}]\d{{3}})+|\d+)(?:\.\d*)? ?%?|[+-]?\.\d+ ?%",
    *(f",{_BLANKS}%", "."),
)
_COMMA = _number(
    rf"[+-]?(?:[1-9]\d{{0,2}}(?:[.{_BLANKS}]\d{{3}})+|\d*)(?:,\d+)?(?:[eE][+-]?\d+)? ?%?",
    *(f".{_BLANKS}%", ","),
)

PLAIN, GROUPED, COMMA = "number", "number 1,000.5", "number 1.000,5"
BOOLEAN = "true/false"
DAY_FIRST, MONTH_FIRST = "time 31/12/2026", "time 12/31/2026"

READINGS = {
    PLAIN: Reading("number", _PLAIN),
    GROUPED: Reading("number", f"coalesce({_PLAIN}, {_GROUPED})"),
    COMMA: Reading("number", _COMMA),
    BOOLEAN: Reading(
        "number",
        "CASE WHEN lower({v}) IN ('true', 'yes', 't', 'y') THEN 1::DOUBLE"
        " WHEN lower({v}) IN ('false', 'no', 'f', 'n') THEN 0::DOUBLE END",
    ),
    "time": Reading("time", _time(r"^\d{4}[-/]\d", "TRY_CAST({v} AS TIMESTAMPTZ)")),
    "time 31.12.2026": Reading("time", _date(r"^\d{1,2}\.\d", "%d.%m.%Y")),
    DAY_FIRST: Reading("time", _date(r"^\d{1,2}/\d", "%d/%m/%Y")),
    MONTH_FIRST: Reading("time", _date(r"^\d{1,2}/\d", "%m/%d/%Y")),
    "category": Reading("category", "nfc_normalize({v})"),
}
"""Booleans are 1 and 0, times are seconds since 1970, a percent sign is left out."""

KINDS = ("number", "category", "time")


def in_iso(seconds: str) -> str:
    """Return seconds since 1970 as a text in ISO 8601: a date where it is midnight in UTC."""
    at = f"make_timestamp(CAST(round({seconds} * 1e6) AS BIGINT))"
    text = f"replace(CAST({at} AS VARCHAR), ' ', 'T')"
    return f"CASE WHEN {seconds} % 86400 = 0 THEN left({text}, 10) ELSE {text} || 'Z' END"
