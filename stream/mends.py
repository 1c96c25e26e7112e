"""What kafka-python 3.0.12 does otherwise than it means to; imported, it is mended.

Waiting for a transaction: it has no end when the producer is closed meanwhile. Who was given up
there, a thread and all that the producer holds, would be kept for ever.

A client that finds no broker when it is made: it raises, and leaves its thread and its connections.

A wrong password: the client means to raise the broker's answer. But the answer comes together with
the end of the connection and is dropped then, and a connection keeps it to itself anyhow, so the
client tries again for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import (
    IllegalSaslStateError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.connection import KafkaConnection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.producer.transaction_manager import TransactionalRequestResult

LONGEST_WAIT_MS = 120_000
"""Longer than any transaction of the services may take."""

_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)


def _clean(initialize: Callable[..., None]) -> Callable[..., None]:
    def initialize_or_close(client: Any, *topics: str, **options: Any) -> None:
        try:
            initialize(client, *topics, **options)
        except BaseException:
            if hasattr(client, "_net"):
                client._client.close()
                client._net.close()
            raise

    return initialize_or_close


def _data_first(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    def receive_data_first(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return data, None if data else error  # it comes again, alone

    return receive_data_first


async def _authenticate(connection: Any, timeout_at: float | None = None) -> None:
    try:
        await _client_authenticate(connection, timeout_at)
    except _REFUSALS as error:
        connection.refusal = error
        raise


async def _initialize(connection: Any, timeout_at: float | None = None) -> None:
    connection.refusal = None
    await _client_initialize(connection, timeout_at)
    if connection.refusal:
        # Of this class alone the client remembers that it was refused.
        raise SaslAuthenticationFailedError(*connection.refusal.args or (connection.refusal,))


def _wait(result: Any, timeout_ms: float | None = None) -> bool:
    done = _client_wait(result, LONGEST_WAIT_MS if timeout_ms is None else timeout_ms)
    if timeout_ms is None and not done:
        raise KafkaTimeoutError(f"no answer within {LONGEST_WAIT_MS / 1_000:g} s")
    return bool(done)


for _class in (KafkaConsumer, KafkaAdminClient):
    _class.__init__ = _clean(_class.__init__)
_client_wait = TransactionalRequestResult.wait
TransactionalRequestResult.wait = _wait
_client_authenticate = KafkaConnection._sasl_authenticate
_client_initialize = KafkaConnection.initialize
KafkaConnection._sasl_authenticate = _authenticate
KafkaConnection.initialize = _initialize
for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = _data_first(_transport._sock_recv)
