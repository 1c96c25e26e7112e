"""How people write environment variables: names that are nearly right, values with quotes."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping

_PLATFORM = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?"
    r"|ENV_\w+)",
    re.DOTALL,
)
"""Names that Kubernetes and Docker links make of a service's name, such as ``KAFKA_PORT``."""

_PREFIX = "KAFKA_"

_BLANK = f"{string.whitespace}\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"


def plain(value: str) -> str:
    r"""Return a value without what stands around it by mistake.

    That is blanks, the end of a line of Windows, marks without a width, and a pair of quotes, which
    ``docker run --env-file`` and Kubernetes leave where they are.

    Examples
    --------
    >>> plain(' "sea"\r')
    'sea'
    """
    value = value.strip(_BLANK)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip(_BLANK)
    return value


def set_by_platform(name: str, value: str = "") -> bool:
    """Tell whether a container platform gives a variable to say where a service is.

    Parameters
    ----------
    name, value : str
        A Docker link called ``kafka-ssl`` gives ``KAFKA_SSL_NAME=/app/kafka-ssl``, for instance.
    """
    return bool(_PLATFORM.fullmatch(name)) or (name.endswith("_NAME") and value.startswith("/"))


def misspelt(environment: Mapping[str, str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables that look like misspelt settings, each with the setting it resembles.

    Parameters
    ----------
    environment : mapping of str to str
        Empty variables count as not given.
    names : iterable of str
        Of the settings, in capitals.
    """
    known = set(names)
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if upper.startswith("EXPORT "):  # a line of a shell script in a file of variables
            upper = upper.removeprefix("EXPORT ").strip()
            if upper in known:
                yield name, upper
        if value and upper not in known and not set_by_platform(upper, value):
            setting = nearest(upper, known)
            if setting:
                yield name, setting


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the setting that a name is nearly, or ``None``.

    Nearly: with the same first letter and one letter more, less, another, or two of them swapped;
    two such differences from 9 letters on, three from 15 on. In names of up to 5 letters another
    letter makes another word (``RACE`` is not ``RATE``). A name without ``KAFKA_`` counts, too.

    Examples
    --------
    >>> nearest("WINDO", ["RATE", "WINDOW"])
    'WINDOW'
    """
    found = [(distance(name, setting), setting) for setting in names if _comparable(name, setting)]
    near = min((pair for pair in found if pair[0] <= _allowed(pair[1])), default=(0, None))[1]
    return near or next((s for s in names if s == f"{_PREFIX}{name}"), None)


def distance(a: str, b: str) -> int:
    """Return how many letters are added, left out, replaced or swapped with the next one.

    This is the restricted Damerau-Levenshtein distance (optimal string alignment).
    """
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _comparable(name: str, setting: str) -> bool:
    if name[:1] != setting[0] or len(name) < 4:
        return False
    short = len(setting) <= 5 and len(name) == len(setting)
    return not short or sorted(name) == sorted(setting)


def _allowed(setting: str) -> int:
    return 1 + (len(setting) >= 9) + (len(setting) >= 15)
