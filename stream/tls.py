"""TLS to the brokers, with a readable reason when it fails."""

from __future__ import annotations

import socket
import ssl
from functools import cache
from typing import Any

from stream.settings import StreamSettings

_OTHER_HOST = (62, 64)
"""OpenSSL's error codes: the certificate names another host, or another address."""

_DATES = (9, 10)
"""OpenSSL's error codes: the certificate is not valid yet, or has expired."""

_REVOCATION = (3, 12, 23)
"""OpenSSL's error codes: no revocation list, an expired one, or the certificate is on it."""

_PASSING = (
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLEOFError,  # these three: the broker went away
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
)


class Tls:
    """Stands in for the SSL context that kafka-python expects.

    It reads the files at each connection, so that renewed certificates count at once. It keeps the
    reason why the last connection failed, because kafka-python drops it and retries for ever.

    Attributes
    ----------
    problem : str or None
        Why the last connection failed, in one line; ``None`` if it succeeded.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self.problem: str | None = None

    def wrap_socket(self, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
        """Do what `ssl.SSLContext.wrap_socket` does."""
        context = self._context()
        tls = self

        class Socket(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                try:
                    super().do_handshake(block)
                except _PASSING:
                    raise
                except ssl.SSLError as error:
                    tls.problem = tls._explain(error, self.server_hostname)
                    raise
                tls.problem = None

            def recv(self, *arguments: Any) -> bytes:
                try:
                    return super().recv(*arguments)
                except _PASSING:
                    raise
                except ssl.SSLError as error:  # TLS 1.3: the broker refuses our certificate
                    tls.problem = tls._explain(error, self.server_hostname)
                    raise

        context.sslsocket_class = Socket
        return context.wrap_socket(sock, **options)

    def _context(self) -> ssl.SSLContext:
        s, variable, path = self._settings, "KAFKA_SSL_CAFILE", self._settings.kafka_ssl_cafile
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = s.kafka_ssl_check_hostname
        try:
            if path:
                context.load_verify_locations(path)
            else:
                context.load_default_certs()
            if s.kafka_ssl_crlfile:
                variable, path = "KAFKA_SSL_CRLFILE", s.kafka_ssl_crlfile
                context.load_verify_locations(path)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            if s.kafka_ssl_certfile:
                variable = "KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE, KAFKA_SSL_PASSWORD"
                path = s.kafka_ssl_certfile
                # Without a password OpenSSL would ask on the terminal.
                password = s.kafka_ssl_password.get_secret_value() if s.kafka_ssl_password else ""
                context.load_cert_chain(path, s.kafka_ssl_keyfile, password)
            if s.kafka_ssl_ciphers:
                variable, path = "KAFKA_SSL_CIPHERS", s.kafka_ssl_ciphers
                context.set_ciphers(path)
        except OSError as error:  # ssl.SSLError is one
            self.problem = f"{variable}: {path}: {error.strerror or error.args[0]}"
            raise
        return context

    def _explain(self, error: ssl.SSLError, host: str | None) -> str:
        if not isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"{host}: no TLS connection: {error.reason or error}; check"
                " KAFKA_SECURITY_PROTOCOL, and KAFKA_SSL_CERTFILE if the broker asks for one"
            )
        what = f"{host}: the broker's certificate is refused: {error.verify_message}"
        if error.verify_code in _OTHER_HOST:
            return (
                f"{what}; use a name of the certificate in KAFKA_BOOTSTRAP_SERVERS and in the"
                " broker's advertised.listeners, or add this name to the certificate"
            )
        if error.verify_code in _DATES:
            return f"{what}; renew it, or correct this machine's clock"
        if error.verify_code in _REVOCATION:
            return f"{what}; KAFKA_SSL_CRLFILE is {self._settings.kafka_ssl_crlfile}"
        return (
            f"{what}; KAFKA_SSL_CAFILE must hold the certificate of the authority that signed it;"
            f" it is {self._settings.kafka_ssl_cafile or 'not set, so the system decides'}"
        )


@cache
def tls(settings: StreamSettings) -> Tls:
    """Return the one `Tls` that all clients of a process share, and with it its `problem`."""
    return Tls(settings)
