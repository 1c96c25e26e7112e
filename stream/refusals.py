"""The brokers' errors, sorted into those that a retry may cure and those that it cannot."""

from __future__ import annotations

from collections.abc import Iterator

from kafka.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    GroupMaxSizeReachedError,
    InconsistentGroupProtocolError,
    InvalidCommitOffsetSizeError,
    InvalidConfigurationError,
    InvalidGroupIdError,
    InvalidRecordError,
    InvalidReplicationFactorError,
    InvalidSessionTimeoutError,
    InvalidTimestampError,
    InvalidTopicError,
    InvalidTransactionTimeoutError,
    KafkaError,
    KafkaStorageError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    OffsetMetadataTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    ThrottlingQuotaExceededError,
    TransactionalIdAuthorizationFailedError,
    UnsupportedForMessageFormatError,
    UnsupportedVersionError,
)

from stream import kafka_workarounds
from stream.service import Fatal
from stream.settings import StreamSettings
from stream.tls import tls

PERMANENT: dict[type[KafkaError], str] = {
    MessageSizeTooLargeError: "larger than the topic's max.message.bytes allows; raise it",
    RecordListTooLargeError: "larger than the topic's segment.bytes allows; raise it",
    InvalidRecordError: "the broker takes no such record; if the topic's cleanup.policy is compact,"
    " set it to delete, as records without a key cannot be compacted",
    InvalidTimestampError: "the broker does not accept the time of a record; set this machine's"
    " clock, or look at the topic's message.timestamp.before.max.ms and .after.max.ms",
    UnsupportedForMessageFormatError: "the topic's message.format.version is older than 0.11 and"
    " knows no transactions; raise it",
    InvalidTopicError: "the broker does not allow this topic; look at DATA_TOPIC, MODEL_TOPIC and"
    " PREDICTION_TOPIC",
    InvalidConfigurationError: "the broker does not allow the settings of this topic; look at"
    " DATA_RETENTION_BYTES, PREDICTION_RETENTION_BYTES and MODEL_RETENTION_BYTES, or create the"
    " topic yourself",
    PolicyViolationError: "a policy of the cluster forbids it; create the topic yourself, or ask"
    " whoever runs the cluster",
    InvalidTransactionTimeoutError: "the brokers' transaction.max.timeout.ms is too short; it must"
    " be at least 60000",
    InvalidSessionTimeoutError: "6000 ms must be between the brokers' group.min.session.timeout.ms"
    " and group.max.session.timeout.ms",
    InvalidGroupIdError: "the broker does not allow this group; look at GROUP_ID",
    InconsistentGroupProtocolError: "another program is in this group and assigns its partitions"
    " differently; give each its own GROUP_ID",
    OffsetMetadataTooLargeError: "the brokers' offset.metadata.max.bytes is too small for the"
    " counts; it must be at least 1024 (4096 is the default)",
    InvalidCommitOffsetSizeError: "a commit is larger than the brokers' offset topic allows; raise"
    " the max.message.bytes of __consumer_offsets",
    UnsupportedVersionError: "the brokers are older than Kafka 2.5, or KAFKA_BOOTSTRAP_SERVERS"
    " names a controller",
}
"""Errors that stay until somebody changes something, and what that is."""

TEMPORARY: dict[type[KafkaError], str] = {
    InvalidReplicationFactorError: "fewer brokers are up than REPLICATION_FACTOR asks for",
    NotEnoughReplicasError: "fewer replicas are in sync than the topic's min.insync.replicas",
    NotEnoughReplicasAfterAppendError: "fewer replicas are in sync than the topic's"
    " min.insync.replicas",
    CoordinatorNotAvailableError: "the cluster is not ready for groups and transactions; if it"
    " stays so, offsets.topic.replication.factor or transaction.state.log.replication.factor is"
    " more than there are brokers",
    KafkaStorageError: "a disk of the broker is full or broken",
    ThrottlingQuotaExceededError: "a quota of the cluster is used up for now",
    GroupMaxSizeReachedError: "the group has as many members as the brokers' group.max.size allows",
}
"""Errors that may pass by themselves although they have a cause that somebody can look at.

All that are in neither table may pass, too: a connection that was cut, a leader that moved.
"""

_TOLD = 300
"""Characters of a broker's own explanation that are repeated."""


class TopicError(KafkaError):  # type: ignore[misc] # kafka-python carries no types
    """What the brokers answered, and the topic that kafka-python's error does not name.

    Parameters
    ----------
    topic : str
        The topic that was to be written, or created.
    cause : BaseException
        What the client raised.
    size : int, optional
        Bytes of the record that was not accepted.
    """

    def __init__(self, topic: str, cause: BaseException, size: int | None = None) -> None:
        super().__init__(cause)
        self.subject = topic if size is None else f"{topic}: a record of {size:,} bytes"

    def __str__(self) -> str:
        return f"{self.subject}: {self.args[0]!r}"


def raise_if_refused(
    error: BaseException, settings: StreamSettings, right: str = "Read", transaction: str = ""
) -> None:
    """End the service if retries are useless until somebody grants a right or changes a setting.

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
    """Say in one line why retries are useless, or return ``None`` where they may help.

    Parameters
    ----------
    error : BaseException
        What a client raised; it may carry the broker's answer.
    right : str
        What the client was about to do to the topic: ``Read`` or ``Write``.
    transaction : str
        Its transactional id, which the broker does not repeat.

    Returns
    -------
    str or None
        Names the variable, the setting of the topic or the brokers, or the missing right.
    """
    if isinstance(error, TopicError):
        right = "Write"
    user = f"user {settings.kafka_sasl_plain_username or '(anonymous)'}"
    for found in causes(error):
        if isinstance(found, SaslAuthenticationFailedError):
            return (
                f"{settings.kafka_bootstrap_servers}: the broker refuses {user}:"
                f" {' '.join(map(str, found.args)) or type(found).__name__};"
                " look at KAFKA_SASL_MECHANISM, KAFKA_SASL_PLAIN_USERNAME and"
                " KAFKA_SASL_PLAIN_PASSWORD"
            )
        if isinstance(found, AuthorizationError):
            return (
                f"{user} lacks the right to {_right(found, right, transaction)};"
                " acls.sh grants what each service needs"
            )
    return explained(error, settings, PERMANENT) or tls(settings).problem


def explained(
    error: BaseException, settings: StreamSettings, table: dict[type[KafkaError], str]
) -> str | None:
    """Return the line on an error that is in a table, or ``None`` where it is not."""
    subject = getattr(error, "subject", settings.kafka_bootstrap_servers)
    for found in causes(error):
        for kind, advice in table.items():
            if isinstance(found, kind):
                told = " ".join(str(part) for part in found.args if part)
                said = f" ({' '.join(told[:_TOLD].split())})" if told else ""
                return f"{subject}: {advice}{said}"
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it carries: kafka-python wraps what the broker answered."""
    yield error
    for part in error.args:
        if isinstance(part, BaseException):
            yield from causes(part)
    yield from kafka_workarounds.errors_in_text(error)


def _right(error: AuthorizationError, right: str, transaction: str) -> str:
    name, *more = error.args or ("",)
    if isinstance(error, GroupAuthorizationFailedError):
        return f"{more[0] if more else 'Read'} the group {name or '(see GROUP_ID)'}"
    if isinstance(error, TransactionalIdAuthorizationFailedError):
        return f"Write under the transactional id {transaction}"
    if isinstance(error, ClusterAuthorizationFailedError):
        return "IdempotentWrite on the cluster"
    topics = [name] if isinstance(name, str) else sorted(name)
    return f"{more[0] if more else right} the topic {', '.join(topics)}"
