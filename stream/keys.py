"""The keys that sign models and the folder of keys that are trusted."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
        """Put the public half into a folder of trusted keys, as ``<fingerprint>.pem``."""
        pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path = folder / f"{self.fingerprint}.pem"
        if not path.exists():
            _create(path, pem, mode=0o644)
        return path


def signing_key(path: Path) -> SigningKey:
    """Read the private key, made here (mode 0600) where there is none yet.

    Raises
    ------
    KeyFileError
        When the file is no unencrypted Ed25519 key in PEM, or others may read it.
    """
    if not path.exists():
        _create(
            path,
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            mode=0o600,
        )
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path}: others may read this private key; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in PEM: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return SigningKey(key)


def public_keys(folder: Path) -> dict[Path, Ed25519PublicKey]:
    """Return the Ed25519 public keys in a folder's ``*.pem`` files, by file."""
    keys = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            key = load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            continue  # a file that is no key trusts nobody; the others still count
        if isinstance(key, Ed25519PublicKey):
            keys[path] = key
    return keys


class TrustedKeys:
    """The public keys in a folder, read at each signature: what is put there counts at once, and
    so does what is taken away.

    Parameters
    ----------
    folder : Path
        Holds one ``*.pem`` a key. It may be empty or absent: then nothing is trusted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def signer(self, value: bytes, signature: bytes) -> str | None:
        """Return the fingerprint of the trusted key that signed `value`, or ``None``."""
        for key in public_keys(self._folder).values():
            with suppress(InvalidSignature):
                key.verify(signature, value)
                return fingerprint(key)
        return None

    def __str__(self) -> str:
        keys = sorted(fingerprint(key) for key in public_keys(self._folder).values())
        return f"trusted in {self._folder}: {', '.join(keys) or 'none'}"


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; the first of two writers wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
