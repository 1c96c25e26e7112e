"""Files that a command writes: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from stream.service import Fatal


@contextmanager
def whole_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a path to write to, whose file takes its place at the end of the block.

    It stands in a folder of its own beside `path`, which may hold other files meanwhile.

    Raises
    ------
    Fatal
        When `path` exists and is not to be overwritten, or its folder cannot be written.
    """
    if path.exists() and not overwrite:
        raise Fatal(f"{path}: exists already; --force overwrites it")
    try:
        folder = TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as error:
        raise Fatal(f"{path}: cannot be written: {error.strerror}") from None
    with folder as name:
        written = Path(name, path.name)
        yield written
        with written.open("rb") as file:
            os.fsync(file.fileno())
        try:
            if overwrite:
                written.replace(path)
            else:
                os.link(written, path)
        except FileExistsError:
            raise Fatal(f"{path}: exists already; --force overwrites it") from None
        except OSError as error:
            raise Fatal(f"{path}: cannot be written: {error.strerror}") from None
