"""Errors that no retry cures: credentials, certificates and rights, explained in one line."""

from __future__ import annotations

from kafka.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailedError,
    TransactionalIdAuthorizationFailedError,
)

from stream.service import Fatal
from stream.settings import StreamSettings
from stream.tls import tls


def raise_if_refused(
    error: BaseException, settings: StreamSettings, right: str = "Read", transaction: str = ""
) -> None:
    """End the service if a retry is useless until somebody grants a right or changes a setting.

    Parameters
    ----------
    error, settings, right, transaction
        As for `refusal`.

    Raises
    ------
    Fatal
    """
    if line := refusal(error, settings, right, transaction):
        raise Fatal(line) from None


def refusal(
    error: BaseException, settings: StreamSettings, right: str = "Read", transaction: str = ""
) -> str | None:
    """Say in one line what is refused: the credentials, the broker's certificate, or a right.

    Parameters
    ----------
    error : BaseException
        What a client raised; it may carry the broker's answer as an argument.
    settings : StreamSettings
    right : str
        What the client was about to do to the topic: ``Read`` or ``Write``.
    transaction : str
        Its transactional id.

    Returns
    -------
    str or None
        Naming the variable, or the operation and the topic; ``None`` where nothing is refused.
    """
    user = f"user {settings.kafka_sasl_plain_username or '(anonymous)'}"
    for found in (error, *error.args):
        if isinstance(found, SaslAuthenticationFailedError):
            return (
                f"{settings.kafka_bootstrap_servers}: the broker refuses {user}:"
                f" {' '.join(map(str, found.args)) or type(found).__name__};"
                " look at KAFKA_SASL_MECHANISM, KAFKA_SASL_PLAIN_USERNAME and"
                " KAFKA_SASL_PLAIN_PASSWORD"
            )
        if isinstance(found, AuthorizationError):
            return (
                f"{user} lacks the right to {_right(found, settings, right, transaction)};"
                " acls.sh grants what each service needs"
            )
    return tls(settings).problem


def _right(
    error: AuthorizationError, settings: StreamSettings, right: str, transaction: str
) -> str:
    topics, *more = error.args or ("",)
    if isinstance(error, GroupAuthorizationFailedError):
        return f"{more[0] if more else 'Read'} the group {topics}"
    if isinstance(error, TransactionalIdAuthorizationFailedError):
        return f"Write under the transactional id {transaction}"
    if isinstance(error, ClusterAuthorizationFailedError):
        return "IdempotentWrite on the cluster"
    names = [topics] if isinstance(topics, str) else sorted(topics)
    return f"{more[0] if more else right} the topic {', '.join(names)}"
