"""A broker with TLS, SASL and access rights, and the certificates that it needs."""

from __future__ import annotations

import os
import subprocess
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import product
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from local.kafka import LocalKafka, free_port
from stream import clients
from stream.settings import StreamSettings
from tests.services import ROOT, SERVICES, eventually


class Authority:
    """A certificate authority of a test.

    Parameters
    ----------
    folder : Path
        Gets ``ca.pem`` and what is issued.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, folder.name)])
        own = self._builder(self._name, self._key, days=1).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path = folder / "ca.pem"
        self.path.write_bytes(own.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, *hosts: str, days: int = 1, password: str | None = None) -> Path:
        """Return a file with a key, its certificate for `hosts`, and the authority's own.

        Negative `days` make one that has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            for host in hosts
        ]
        builder = self._builder(subject, key, days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._last = builder.sign(self._key, SHA256())
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                Encoding.PEM,
                PrivateFormat.PKCS8,
                BestAvailableEncryption(password.encode()) if password else NoEncryption(),
            )
            + self._last.public_bytes(Encoding.PEM)
            + self.path.read_bytes()
        )
        return path

    def revoke_last(self) -> Path:
        """Return a list of revoked certificates with the last one issued on it."""
        now = datetime.now(UTC)
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(self._last.serial_number)
            .revocation_date(now)
            .build()
        )
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(days=1))
            .next_update(now + timedelta(days=1))
            .add_revoked_certificate(revoked)
            .sign(self._key, SHA256())
        )
        path = self._folder / "crl.pem"
        path.write_bytes(crl.public_bytes(Encoding.PEM))
        return path

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3))
            .not_valid_after(now + timedelta(days=days))
        )


class SecuredKafka:
    """A broker that accepts TLS connections only, and enforces access rights.

    Its listeners: `secure` (SASL_SSL, SCRAM), `misnamed` (the same with a certificate for another
    host), `mutual` (TLS with a client certificate). The plaintext one that `LocalKafka` needs is
    the super user's, on a port that only the test knows.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = Authority(folder / "authority")
        self.foreign = Authority(folder / "foreign")
        good = self.authority.issue("broker", "localhost", "127.0.0.1")
        misnamed = self.authority.issue("misnamed", "kafka.example.com")
        self.crl = self.authority.revoke_last()
        ports = {
            name: free_port() for name in ("plain", "secure", "misnamed", "mutual", "controller")
        }
        self.secure = f"localhost:{ports['secure']}"
        self.misnamed = f"localhost:{ports['misnamed']}"
        self.mutual = f"localhost:{ports['mutual']}"
        plain, controller = (f"127.0.0.1:{ports[name]}" for name in ("plain", "controller"))
        properties = {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{plain},CONTROLLER://{controller},SECURE://{self.secure},"
            f"MISNAMED://{self.misnamed},MUTUAL://{self.mutual}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            "SECURE:SASL_SSL,MISNAMED:SASL_SSL,MUTUAL:SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(good),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.path),
            "listener.name.misnamed.ssl.keystore.location": str(misnamed),
            "listener.name.misnamed.ssl.keystore.type": "PEM",
            "listener.name.mutual.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS;User:admin",
        }
        for listener in ("secure", "misnamed"):
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                )
        self.broker = LocalKafka(folder / "broker", ports["plain"], properties)

    def __enter__(self) -> SecuredKafka:
        self.broker.start()
        self.admin = clients.admin(
            StreamSettings.model_validate({"kafka_bootstrap_servers": self.plain})
        )
        self.add_users("admin", *SERVICES)
        return self

    def __exit__(self, *_: object) -> None:
        clients.close(self.admin)
        self.broker.stop()

    @property
    def plain(self) -> str:
        """Where the test itself connects, with all rights."""
        return self.broker.bootstrap_servers

    def add_users(self, *names: str) -> None:
        """Make users whose passwords are ``<name>-password``."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            failed = self.admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(name, mechanism, f"{name}-password", 4096)
                    for name in names
                ]
            )
            assert not any(failed.values()), failed

    def rule(self, acls: list[ACL]) -> None:
        """Make access rules, and wait until the broker, which hears of them later, has them."""
        self.admin.create_acls(acls)
        eventually(lambda: set(acls) <= set(self.admin.describe_acls(_ANY)[0]))

    def user(self, name: str, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Return the settings of a service that connects as this user."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.secure,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SSL_CAFILE": str(self.authority.path),
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_PLAIN_USERNAME": name,
            "KAFKA_SASL_PLAIN_PASSWORD": f"{name}-password",
        }


_ANY = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


def granted(env: Mapping[str, str]) -> list[ACL]:
    """Return what ``acls.sh --add`` asks ``kafka-acls`` for, which starts a Java for each call."""
    asked = subprocess.run(
        [ROOT / "acls.sh", "--add"],
        env={"PATH": os.environ["PATH"], **env, "KAFKA_ACLS": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [acl for line in asked.stdout.splitlines() for acl in _acls(line)]


def _acls(line: str) -> Iterator[ACL]:
    """Read the arguments of one call of ``kafka-acls``."""
    parser = ArgumentParser()
    for option in ("--add", "--force"):
        parser.add_argument(option, action="store_true", required=True)
    for option in ("--bootstrap-server", "--allow-principal"):
        parser.add_argument(option, required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    for option in ("--operation", "--topic", "--group", "--transactional-id"):
        parser.add_argument(option, action="append", default=[])
    call = parser.parse_args(line.split())
    for kind in ("topic", "group", "transactional_id"):
        for name, operation in product(getattr(call, kind), call.operation):
            yield ACL(
                call.allow_principal,
                "*",
                ACLOperation[operation.upper()],
                ACLPermissionType.ALLOW,
                ResourcePattern(
                    ResourceType[kind.upper()],
                    name,
                    ACLResourcePatternType[call.resource_pattern_type.upper()],
                ),
            )
