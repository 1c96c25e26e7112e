"""Files that hold keys and secrets: who may read and write them, and how they are made."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FILE_BYTES = 10_000
"""Largest key file that is read."""


class KeyFileError(ValueError):
    """A key file cannot be used; the message names the file."""


def read_file(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes:
    """Return the content of a small file, after `check` of its owner and mode.

    Raises
    ------
    KeyFileError
    OSError
    """

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # a pipe would block for ever

    with open(path, "rb", opener=without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError(f"{path}: not a regular file")
        check(path, found)
        if found.st_size > FILE_BYTES:
            raise KeyFileError(f"{path}: at most {FILE_BYTES} bytes, got {found.st_size}")
        return file.read(FILE_BYTES)


def check_private(path: Path, found: os.stat_result) -> None:
    """Refuse a secret file that others than this user and root may read.

    A file of root may be readable by the group: Kubernetes mounts secrets like that.
    """
    if found.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path}: belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & (0o077 if found.st_uid == os.geteuid() else 0o037):
        raise KeyFileError(f"{path}: others may read this private key; run: chmod 600 {path}")


def check_not_writable(path: Path, found: os.stat_result) -> None:
    """Refuse a file or folder that everyone may write, unless it is mounted read-only."""
    if found.st_mode & stat.S_IWOTH and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise KeyFileError(f"{path}: everyone may write here; run: chmod o-w {path}")


def check_not_replaceable(folder: Path) -> None:
    """Refuse a folder that everyone may replace, as a folder above it is everyone's to write.

    In one with the sticky bit, as ``/tmp`` has it, only its owner may replace it.
    """
    for parent in folder.resolve().parents:
        found = parent.stat()
        if not found.st_mode & stat.S_ISVTX:
            check_not_writable(parent, found)


def create_file(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically. If there is one already, leave it as it is.

    Raises
    ------
    OSError
        It names the file that was to be written.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            os.fchmod(descriptor, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            Path(temporary).unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
