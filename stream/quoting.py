"""Foreign text in a line: whatever it holds, the line stays one line, printable, and bounded."""

from __future__ import annotations

import logging

LINE = 2_000
"""Characters of a line of the log."""


def one_line(text: str, limit: int = LINE) -> str:
    r"""Return a text with what is not printable escaped, cut to `limit` characters.

    Examples
    --------
    >>> print(one_line("a\nb \x1b[31m\udc80 ä"))
    a\nb \x1b[31m\udc80 ä
    >>> one_line("long" * 100, 6)
    'longl…'
    """
    if len(text) <= limit and text.isprintable():
        return text
    start = text[:limit]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in start)
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def shown(text: object, limit: int = 40) -> str:
    r"""Return a foreign value as it stands in a message: quoted, escaped, cut to 40 characters.

    Examples
    --------
    >>> print(shown("a\nb"), shown("north-west", 5))
    'a\nb' 'north…'
    """
    start = repr(str(text)[:limit])
    return start if len(str(text)) <= limit else f"{start[:-1]}…{start[-1]}"


class OneLine(logging.Formatter):
    """A log format whose messages are lines, whatever they quote."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging calls it so
        """Fill in the format."""
        record.message = one_line(record.message)
        return super().formatMessage(record)
