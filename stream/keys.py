"""The keys that sign models and the folder of keys that are trusted."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

FILE_BYTES = 10_000
"""Nothing larger is read as a key."""


class KeyFileError(ValueError):
    """A key file that cannot be used; the message names the file."""


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


class SigningKey:
    """A private key that signs models.

    Parameters
    ----------
    key : Ed25519PrivateKey
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, value: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) over `value`, 64 bytes."""
        return self._key.sign(value)

    def share(self, folder: Path) -> Path:
        """Put the public half into a folder of trusted keys, as ``<fingerprint>.pem``.

        Raises
        ------
        KeyFileError
            When the key was revoked there.
        """
        return trust(self._key.public_key(), folder)


def signing_key(path: Path) -> SigningKey:
    """Read the private key, made here (mode 0600) where there is none yet.

    Raises
    ------
    KeyFileError
        When the file is no unencrypted Ed25519 key in PEM, or others may read it or own it.
    """
    if not path.exists():
        _create(
            path,
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            mode=0o600,
        )
    content = _read(path, _keep_private)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in PEM: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return SigningKey(key)


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises
    ------
    KeyFileError
    """
    content = _read(path, _keep_unchanged)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        what = "a private key" if b"PRIVATE KEY" in content else "no public key in PEM"
        raise KeyFileError(f"{path}: {what}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return key


def public_keys(folder: Path) -> tuple[dict[Path, Ed25519PublicKey], list[str]]:
    """Read the Ed25519 public keys in a folder's ``*.pem`` files.

    Returns
    -------
    keys : dict of Path to Ed25519PublicKey
    problems : list of str
        Why the other files trust nobody; each names the file. They do no harm to the keys.
    """
    keys, problems = {}, []
    try:
        _keep_unchanged(folder, folder.stat())
        for path in sorted(folder.glob("*.pem")):
            try:
                # Kubernetes mounts keys as links, but within the folder.
                if not (target := path.resolve()).is_relative_to(folder.resolve()):
                    raise KeyFileError(f"{path}: a link out of the folder, to {target}")
                keys[path] = public_key(path)
            except (KeyFileError, OSError, RuntimeError) as error:  # links in a circle, up to 3.12
                problems.append(str(error))
    except FileNotFoundError:
        pass  # nobody is trusted yet
    except (KeyFileError, OSError) as error:
        problems.append(str(error))
    return keys, problems


def trust(key: Ed25519PublicKey, folder: Path) -> Path:
    """Put a public key into a folder of trusted keys, as ``<fingerprint>.pem``.

    Raises
    ------
    KeyFileError
        When the key was revoked there.
    """
    path = folder / f"{fingerprint(key)}.pem"
    revoked = path.with_suffix(".revoked")
    if revoked.exists():
        raise KeyFileError(f"{revoked}: this key was revoked; delete the file to trust it again")
    if not path.exists():
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _create(path, pem, mode=0o644)
    return path


def revoke(name: str, folder: Path) -> Path:
    """Trust a key no longer, and leave a mark that it is not to be trusted again by itself.

    Parameters
    ----------
    name : str
        The key's fingerprint.
    folder : Path

    Returns
    -------
    Path
        The mark, ``<fingerprint>.revoked``.

    Raises
    ------
    KeyFileError
        When no such key is trusted.
    """
    paths = [path for path, key in public_keys(folder)[0].items() if fingerprint(key) == name]
    if not paths:
        raise KeyFileError(f"{folder}: no key {name} is trusted here")
    mark = folder / f"{name}.revoked"
    for path in paths:
        path.rename(mark)
    return mark


class KeySet:
    """The public keys that a folder of trusted keys held when it was read.

    Parameters
    ----------
    folder : Path
        Holds one ``*.pem`` a key. It may be empty or absent: then nothing is trusted.
    """

    def __init__(self, folder: Path) -> None:
        keys, problems = public_keys(folder)
        self._keys = {fingerprint(key): key for key in keys.values()}
        names = ", ".join(sorted(self._keys)) or "none"
        self._text = "; ".join([f"trusted in {folder}: {names}", *problems])

    def signer(self, value: bytes, signature: bytes) -> str | None:
        """Return the fingerprint of the key that signed `value`, or ``None``."""
        for name, key in self._keys.items():
            with suppress(InvalidSignature):
                key.verify(signature, value)
                return name
        return None

    def fingerprints(self) -> frozenset[str]:
        """Return the fingerprints of the keys."""
        return frozenset(self._keys)

    def __str__(self) -> str:
        return self._text


class TrustedKeys:
    """A folder of public keys that is read at each question: a key that is put there counts at
    once, and one that is taken away no longer does.

    Parameters
    ----------
    folder : Path
        As for `KeySet`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> KeySet:
        """Return the keys that the folder holds now, for many questions at once."""
        return KeySet(self._folder)

    def signer(self, value: bytes, signature: bytes) -> str | None:
        """Return the fingerprint of the trusted key that signed `value`, or ``None``."""
        return self.read().signer(value, signature)

    def fingerprints(self) -> frozenset[str]:
        """Return the fingerprints of the keys that are trusted now."""
        return self.read().fingerprints()

    def __str__(self) -> str:
        return str(self.read())


def _read(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes:
    """Return the content of a small file; its owner and mode are checked while it is open."""

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)  # a pipe would hold the caller for ever

    with open(path, "rb", opener=without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError(f"{path}: not a file")
        check(path, found)
        if found.st_size > FILE_BYTES:
            raise KeyFileError(f"{path}: {found.st_size} bytes; a key has at most {FILE_BYTES}")
        return file.read(FILE_BYTES)


def _keep_private(path: Path, found: os.stat_result) -> None:
    """Refuse a private key that anybody but us and root may read.

    Root's own file may be readable to our group: so Kubernetes gives a secret to a container.
    """
    if found.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path}: belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & (0o077 if found.st_uid == os.geteuid() else 0o037):
        raise KeyFileError(f"{path}: others may read this private key; run: chmod 600 {path}")


def _keep_unchanged(path: Path, found: os.stat_result) -> None:
    """Refuse what everyone may write, unless it is mounted read-only."""
    if found.st_mode & stat.S_IWOTH and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise KeyFileError(f"{path}: everyone may write here; run: chmod o-w {path}")


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; the first of two writers wins."""
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
