"""What a person publishes: an older model again, and the end of a pin.

A model that is published by hand is pinned: the modelgenerator publishes nothing after it, which
would undo it within seconds, until `unpin`. The pin is a field of the newest model, signed like
all of it, and looked at within the transaction of a publication: nobody but a holder of a trusted
key sets it or takes it away, and nothing comes between.
"""

from __future__ import annotations

from dataclasses import replace

from modelgenerator.model_topic import newest_envelope, serving, stored
from modelgenerator.publication import NotPublished, publish
from modelgenerator.settings import Settings
from stream import clients
from stream.keys import KeyFileError, SigningKey, fingerprint, public_keys, signing_key
from stream.models import Envelope, now
from stream.service import Fatal, Stop


def own_key(settings: Settings) -> SigningKey:
    """Return the key that a person's command signs with; unlike a service's, it is never made.

    Raises
    ------
    Fatal
        When it is not there, cannot be used, or its public half is not among the trusted keys.
    """
    path, folder = settings.signing_key, settings.trusted_keys
    if not path.exists():
        raise Fatal(f"SIGNING_KEY={path}: no such file; see python -m modelgenerator.keys make -h")
    try:
        key = signing_key(path)
    except KeyFileError as error:
        raise Fatal(f"SIGNING_KEY={error}") from None
    if key.fingerprint not in map(fingerprint, public_keys(folder)[0].values()):
        raise Fatal(
            f"TRUSTED_KEYS={folder}: does not hold the public half of SIGNING_KEY={path},"
            f" {key.fingerprint}; predictors would refuse what it signs"
        )
    return key


def pinned(settings: Settings, stop: Stop) -> Envelope | None:
    """Return the newest model if it is pinned."""
    consumer = clients.consumer(settings)
    try:
        newest = newest_envelope(consumer, settings, stop)
        return newest if newest and newest.pinned else None
    finally:
        clients.close(consumer)


def publish_again(
    settings: Settings, version: int, key: SigningKey, stop: Stop, reason: str = "rollback"
) -> int:
    """Publish a model of the topic again, pinned, as a new version that names what it restores.

    Parameters
    ----------
    settings : Settings
    version : int
        What to restore.
    key : SigningKey
    stop : Stop
    reason : str
        Why, as the envelope says it.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    Fatal
        When the topic has no such model that is whole and signed by a trusted key.
    """
    envelope, pickle = _stored(settings, version, stop)
    again = replace(envelope, pinned=True, reason=reason, restores=version, created=now())
    return publish(settings, again, pickle, key, stop)


def unpin(settings: Settings, key: SigningKey, stop: Stop) -> int:
    """Let the modelgenerator publish again: publish the model being served once more, not pinned.

    That is the pinned one, or where predictors refused or barred it, the newest that they did not.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    Fatal
        When no model is pinned, or another was published meanwhile.
    """
    held = pinned(settings, stop)
    if held is None:
        raise Fatal(f"{settings.model_topic}: the newest model is not pinned")
    consumer = clients.consumer(settings)
    try:
        served = serving(consumer, settings, stop) or held
    finally:
        clients.close(consumer)
    envelope, pickle = _stored(settings, served.version, stop)

    def still_pinned(newest: Envelope | None) -> None:
        if newest is None or newest.version != held.version:
            raise NotPublished("another model was published meanwhile; look at it and try again")

    again = replace(envelope, pinned=False, reason="unpin", restores=served.version, created=now())
    try:
        return publish(settings, again, pickle, key, stop, still_pinned)
    except NotPublished as error:
        raise Fatal(f"{settings.model_topic}: {error}") from None


def _stored(settings: Settings, version: int, stop: Stop) -> tuple[Envelope, bytes]:
    consumer = clients.consumer(settings)
    try:
        return stored(consumer, settings, version, stop)
    finally:
        clients.close(consumer)
