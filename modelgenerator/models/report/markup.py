"""HTML from functions; the one place where text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stream.quoting import one_line

_EMPTY = {"meta"}


class Markup(str):
    """HTML; any other text is escaped where it becomes a part of some."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    *children
        `Markup` as it is; all else as text, escaped, on one line, in at most 2,000 characters.
    **attributes
        With ``_`` for ``-``, and one more at the end of a word of Python.

    Examples
    --------
    >>> print(tag("td", "<b>", tag("b", 1), class_="right"))
    <td class="right">&lt;b&gt;<b>1</b></td>
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"'
        for key, value in attributes.items()
    )
    inside = joined(children)
    return Markup(f"<{name}{given}>" + ("" if name in _EMPTY else f"{inside}</{name}>"))


def joined(children: Iterable[object]) -> Markup:
    """Return several elements and texts as one."""
    return Markup("".join(c if isinstance(c, Markup) else _text(c) for c in children))


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0
) -> Markup:
    """Return a table whose first cell of each row is its head.

    Parameters
    ----------
    numbers : int
        Of the columns, so many at the end hold numbers.
    """
    first = len(heads) - numbers

    def cells(name: str, row: Sequence[object], **attributes: object) -> list[Markup]:
        right = [{"class_": "number"} if column >= first else {} for column in range(len(heads))]
        return [tag(name, c, **r, **attributes) for c, r in zip(row, right, strict=True)]

    body = (tag("tr", tag("th", row[0], scope="row"), *cells("td", row)[1:]) for row in rows)
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *cells("th", heads, scope="col"))),
            tag("tbody", *body),
        ),
        class_="wide",
        tabindex=0,  # who has no mouse scrolls it, too
    )


def more(summary: str, *children: object) -> Markup:
    """Return what is shown when one asks for it."""
    return tag("details", tag("summary", summary), *children)


def _text(value: object) -> str:
    return escape(one_line(str(value)))
