"""The key that models are signed with."""

from __future__ import annotations

import logging

from modelgenerator.settings import Settings
from stream.key_files import KeyFileError
from stream.keys import SigningKey, TrustedKeys, signing_key
from stream.service import Fatal

log = logging.getLogger("modelgenerator")


def own_key(settings: Settings, *, make: bool) -> SigningKey:
    """Return the key to sign with; its public half is among the trusted keys.

    Parameters
    ----------
    make : bool
        Whether to make the key if there is none, and to share its public half. A service does so
        on its first start; a person's command never does.

    Raises
    ------
    Fatal
        When there is no such key, it cannot be used, or it is not trusted.
    """
    path = settings.signing_key
    if not make and not path.exists():
        raise Fatal(f"SIGNING_KEY={path}: no such file; see python -m modelgenerator.keys make -h")
    try:
        key = signing_key(path)
    except KeyFileError as error:
        raise Fatal(f"SIGNING_KEY={error}") from None
    except OSError as error:
        raise Fatal(f"SIGNING_KEY={path}: {error.strerror}") from None
    try:
        if make:
            shared = key.share(settings.trusted_keys)
            log.info("signing with key %s, shared as %s", key.fingerprint, shared)
    except KeyFileError as error:
        raise Fatal(f"TRUSTED_KEYS: {error}") from None
    except OSError as error:
        raise Fatal(f"TRUSTED_KEYS: {error.filename}: {error.strerror}") from None
    check_trusted(key, settings)
    return key


def check_trusted(key: SigningKey, settings: Settings) -> frozenset[str]:
    """Return the fingerprints of the keys that are trusted now.

    Raises
    ------
    Fatal
        When the key is not among them: then its models do not count.
    """
    trusted = TrustedKeys(settings.trusted_keys)
    if key.fingerprint not in trusted.fingerprints():
        raise Fatal(f"signing key {key.fingerprint} is not trusted; {trusted}")
    return trusted.fingerprints()
