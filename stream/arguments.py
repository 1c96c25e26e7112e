"""The command line of everything that can be run: help, or one line for a wrong argument."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import NoReturn

from pydantic_settings import BaseSettings

from stream.quoting import one_line
from stream.settings import described

_WIDTH = 96


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        line = one_line(f"{self.prog}: {message}; {self.prog} --help shows what is allowed")
        self.exit(2, f"{line}\n")


def argument_parser(
    command: str, description: str | None, settings: type[BaseSettings] | None = None
) -> argparse.ArgumentParser:
    """Return a parser that knows ``--help``, and ends with status 2 and one line on an error.

    Parameters
    ----------
    command : str
        As it is typed, for instance ``python -m predictor.app``.
    description : str or None
        What it does; a module's docstring.
    settings : type of BaseSettings or None
        Shown as a table below the arguments, with their defaults.
    """
    return _Parser(
        prog=command,
        description=description and description.replace("``", ""),
        epilog=_table(settings) if settings else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type of arguments: a whole number from `least` to `most`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most and int(text) > most):
            allowed = f"to {most}" if most else "on"
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least} {allowed}, got {text!r}"
            )
        return int(text)

    return read


def _table(settings: type[BaseSettings]) -> str:
    lines = ["settings, read from the environment, with their defaults:"]
    for setting in described(settings):
        lines.append(f"  {setting.name} ({setting.default})")
        lines += textwrap.wrap(
            setting.description.replace("`", ""),
            width=_WIDTH,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
        )
    return "\n".join(lines)
