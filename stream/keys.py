"""The keys that sign models, and the folder of trusted public keys."""

from __future__ import annotations

import hashlib
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

from stream.key_files import (
    KeyFileError,
    check_not_replaceable,
    check_not_writable,
    check_private,
    create_file,
    read_file,
)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the raw public key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


class SigningKey:
    """A private key that signs models."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, value: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) over `value`, 64 bytes."""
        return self._key.sign(value)

    def share(self, folder: Path) -> Path:
        """Add the public key to a folder of trusted keys, as `trust` does."""
        return trust(self._key.public_key(), folder)


def signing_key(path: Path) -> SigningKey:
    """Read the private key. Create it first, with mode 0600, if there is none.

    Raises
    ------
    KeyFileError
        When the file is not an unencrypted Ed25519 key in PEM, or others may read it or own it.
    """
    if not path.exists():
        create_file(
            path,
            Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            mode=0o600,
        )
    content = read_file(path, check_private)
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
        When the file is not an Ed25519 public key in PEM, or everyone may write it.
    """
    content = read_file(path, check_not_writable)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        what = "a private key" if b"PRIVATE KEY" in content else "not a public key in PEM"
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
        Why the other files are ignored; each names the file.
    """
    keys, problems = {}, []
    try:
        check_not_writable(folder, folder.stat())
        check_not_replaceable(folder)
        for path in sorted(folder.glob("*.pem")):
            try:
                # Kubernetes mounts keys as links within the folder.
                if not (target := path.resolve()).is_relative_to(folder.resolve()):
                    raise KeyFileError(f"{path}: a link out of the folder, to {target}")
                keys[path] = public_key(path)
            except (KeyFileError, OSError, RuntimeError) as error:  # circular links, before 3.13
                problems.append(str(error))
    except FileNotFoundError:
        pass  # nobody is trusted yet
    except (KeyFileError, OSError) as error:
        problems.append(str(error))
    return keys, problems


def trust(key: Ed25519PublicKey, folder: Path) -> Path:
    """Add a public key to a folder of trusted keys, as ``<fingerprint>.pem``.

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
        create_file(path, pem, mode=0o644)
    return path


def revoke(name: str, folder: Path) -> Path:
    """Stop trusting the key with the fingerprint `name`, and stop `trust` from adding it again.

    Returns
    -------
    Path
        The file that marks it as revoked, ``<fingerprint>.revoked``.

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


class TrustedKeys:
    """The public keys that a folder held when this was made.

    Parameters
    ----------
    folder : Path
        Holds one ``*.pem`` file for each key. If it is empty or missing, nothing is trusted.
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
