"""Addresses of brokers: how people write them, and whether anything answers there."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address
from typing import NamedTuple

DEFAULT_PORT = 9092
CONNECT_SECONDS = 2.0
SCHEMES = ("kafka", "tcp", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
"""What may stand before ``://``. The last four are Kafka's names of security protocols."""

_ALLOWED = (
    "allowed is host:port, separated by commas; without a port it is 9092, and an IPv6 address"
    " stands in brackets: [::1]:9092"
)
_SHOWN = 60


class Address(NamedTuple):
    """Where a broker listens; an IPv6 address is without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> list[Address]:
    """Read the addresses of a comma-separated list.

    Blanks, empty parts and the schemes of `SCHEMES` are dropped, and a missing port is 9092.

    Raises
    ------
    ValueError
        In words, saying which part is wrong and what is allowed.

    Examples
    --------
    >>> [str(address) for address in parse("kafka-1:9093, kafka-2, [::1]:9092,")]
    ['kafka-1:9093', 'kafka-2:9092', '[::1]:9092']
    """
    found = [_address(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError(_ALLOWED)
    return found


def schemes(text: str) -> set[str]:
    """Return what stands before ``://`` in a list of addresses, in small letters."""
    return {
        scheme.strip().lower()
        for scheme, mark, _ in (part.partition("://") for part in text.split(","))
        if mark
    }


def problem(address: Address) -> str | None:
    """Say why nothing can be reached at an address, or return ``None``.

    It resolves the name and opens a connection, which takes `CONNECT_SECONDS` at most for each
    address that the name has.
    """
    try:
        places = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"{address.host} does not resolve"
    reason = "nothing answers there"
    for family, kind, protocol, _, place in places:
        with socket.socket(family, kind, protocol) as client:
            client.settimeout(CONNECT_SECONDS)
            try:
                client.connect(place)
            except TimeoutError:
                reason = f"nothing answers there within {CONNECT_SECONDS:g} s"
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
            else:
                return None
    return reason


def _address(part: str) -> Address:
    scheme, mark, rest = part.partition("://")
    if not mark:
        rest = part
    elif scheme.lower() not in SCHEMES:
        raise ValueError(f"{_shown(scheme)}:// is not a scheme of Kafka's; {_ALLOWED}")
    if "@" in rest:
        raise ValueError(
            "the user belongs in KAFKA_SASL_PLAIN_USERNAME, the password in"
            " KAFKA_SASL_PLAIN_PASSWORD;"
            f" {_ALLOWED}"
        )
    host, port = _split(rest.removesuffix("/"))
    if not port.isdecimal() or not port.isascii() or not 1 <= int(port[:6]) <= 65_535:
        raise ValueError(f"the port of {_shown(part)} is not a number from 1 to 65535; {_ALLOWED}")
    return Address(host, int(port))


def _split(text: str) -> tuple[str, str]:
    """Return host and port of an address without scheme; the host is checked."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if not _is_ipv6(host) or not (rest == "" or rest.startswith(":")):
            raise ValueError(f"{_shown(text)} is not an IPv6 address in brackets; {_ALLOWED}")
        return host, rest[1:] if rest else str(DEFAULT_PORT)
    if _is_ipv6(text):
        raise ValueError(f"{_shown(text)} is an IPv6 address without brackets; {_ALLOWED}")
    host, mark, port = text.partition(":")
    if not _is_name(host):
        raise ValueError(f"{_shown(text)} has no name of a host; {_ALLOWED}")
    return host, port if mark else str(DEFAULT_PORT)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    try:
        host.encode("idna")  # what resolving it does first; it raises no OSError
    except UnicodeError:
        return False
    return re.fullmatch(r"[\w.-]+", host) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
