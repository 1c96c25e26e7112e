"""Settings that all three services read from the environment, once, at the start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 2**30
SHOWN = 200
"""Characters of a wrong value that are shown."""

TOPIC = r"^[A-Za-z0-9._-]{1,200}$"


class SettingsError(ValueError):
    """A wrong setting; the message names the variable, the value and what is allowed."""


class StreamSettings(BaseSettings):
    """Where Kafka is, what the topics are called, how large they may grow.

    Every field is an environment variable of the same name in capitals; an empty one counts as
    not given.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    kafka_bootstrap_servers: str = Field(
        "localhost:9092",
        pattern=r"^[^,:\s]+:\d+(,[^,:\s]+:\d+)*$",
        description="Brokers to start from, `host:port`, separated by commas",
    )
    data_topic: str = Field("queueing.data", pattern=TOPIC, description="Topic of labelled records")
    model_topic: str = Field("queueing.model", pattern=TOPIC, description="Topic of models")
    prediction_topic: str = Field(
        "streaming.prediction", pattern=TOPIC, description="Topic of predictions"
    )
    data_partitions: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Partitions of the data topic; more grow it, fewer only warn",
    )
    replication_factor: int = Field(
        1, ge=1, le=9, description="Copies of each topic that is made; 3 on a cluster"
    )
    data_retention_bytes: int = Field(
        GIB, ge=1_000_000, description="Size that a data partition is kept to, in bytes"
    )
    prediction_retention_bytes: int = Field(
        GIB,
        ge=1_000_000,
        description="Size that a partition of predictions or rejected records is kept to, in bytes",
    )
    model_retention_bytes: int = Field(
        GIB, ge=1_000_000, description="Size that the model topic is kept to, in bytes"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level that is logged; DEBUG includes the Kafka client's own log"
    )
    health_file: Path | None = Field(
        None,
        description="File that the service touches at each turn of its loop, at most once a second",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers"
    )
    kafka_ssl_cafile: str | None = Field(None, description="CA certificates, PEM file")
    kafka_ssl_certfile: str | None = Field(None, description="Client certificate, PEM file")
    kafka_ssl_keyfile: str | None = Field(None, description="Client key, PEM file")
    kafka_ssl_crlfile: str | None = Field(None, description="Revoked certificates, PEM file")
    kafka_ssl_password: SecretStr | None = Field(None, description="Password of the client key")
    kafka_ssl_ciphers: str | None = Field(None, description="Allowed ciphers, OpenSSL list")
    kafka_ssl_check_hostname: bool = Field(
        True, description="Whether the certificate must name the broker's host"
    )
    kafka_sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"] | None
    ) = Field(
        None,
        description="SASL mechanism: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, or with a package"
        " of its own installed `GSSAPI` (gssapi), `AWS_MSK_IAM` (botocore)",
    )
    kafka_sasl_plain_username: str | None = Field(None, description="User for PLAIN and SCRAM")
    kafka_sasl_plain_password: SecretStr | None = Field(
        None, description="Password for PLAIN and SCRAM"
    )
    kafka_sasl_kerberos_name: str | None = Field(None, description="Kerberos name of the service")
    kafka_sasl_kerberos_service_name: str | None = Field(None, description="Kerberos service")
    kafka_sasl_kerberos_domain_name: str | None = Field(None, description="Kerberos domain")

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_security_setting(cls, values: Any) -> Any:
        known = {name.upper() for name in cls.model_fields}
        for name in os.environ:
            if name.startswith(("KAFKA_SSL_", "KAFKA_SASL_")) and name not in known:
                allowed = ", ".join(sorted(n for n in known if n.startswith(name[:9])))
                raise ValueError(f"{name} is not a setting; allowed are {allowed}")
        return values

    @model_validator(mode="after")
    def _security_settings_fit_together(self) -> Self:
        protocol = self.kafka_security_protocol
        for kind in ("SSL", "SASL"):
            given = [
                name.upper()
                for name in sorted(self.model_fields_set)
                if name.startswith(f"kafka_{kind.lower()}_")
            ]
            if given and kind not in protocol.split("_"):
                raise ValueError(
                    f"{given[0]} is given, but KAFKA_SECURITY_PROTOCOL={protocol} is without {kind}"
                )
        if protocol.startswith("SASL"):
            with_password = self.kafka_sasl_mechanism not in ("GSSAPI", "AWS_MSK_IAM")
            for name in ("mechanism", *(("plain_username", "plain_password") * with_password)):
                if getattr(self, f"kafka_sasl_{name}") is None:
                    raise ValueError(
                        f"KAFKA_SASL_{name.upper()} is missing: KAFKA_SECURITY_PROTOCOL={protocol}"
                    )
        return self

    @property
    def schema_topic(self) -> str:
        """Topic that names the features and the label."""
        return f"{self.data_topic}.schema"

    @property
    def rejected_topic(self) -> str:
        """Topic of records that could not be predicted."""
        return f"{self.data_topic}.rejected"

    @property
    def status_topic(self) -> str:
        """Topic that tells what predictors did with each model."""
        return f"{self.model_topic}.status"

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the service has to do with, and makes where they are missing."""
        return (
            self.data_topic,
            self.schema_topic,
            self.model_topic,
            self.status_topic,
            self.prediction_topic,
            self.rejected_topic,
        )

    def sasl(self) -> dict[str, Any]:
        """Return the SASL settings under kafka-python's names, those not given left out."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name.startswith("kafka_sasl_") and value is not None:
                secret = isinstance(value, SecretStr)
                found[name.removeprefix("kafka_")] = value.get_secret_value() if secret else value
        return found


class ModelLimits(StreamSettings):
    """What a model may cost: the predictor refuses it beyond, and so does who publishes it."""

    model_max_bytes: int = Field(
        512 * 2**20, ge=1_000, description="Largest model that is loaded, in bytes when unpacked"
    )
    model_max_microseconds: float = Field(
        1000.0,
        gt=0,
        description="Longest that a model may take for a record, in µs, 500 at a time",
    )
    model_load_seconds: float = Field(
        60.0, gt=0, description="Longest that loading and probing a model may take, in seconds"
    )


S = TypeVar("S", bound=BaseSettings)


def read(settings: type[S]) -> S:
    """Read settings from the environment.

    Raises
    ------
    SettingsError
        One line for the first wrong variable; passwords are never shown.
    """
    try:
        return settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise SettingsError(first["msg"].removeprefix("Value error, ")) from None
        name = str(first["loc"][0])
        field = settings.model_fields.get(name.lower())
        secret = field is not None and "Secret" in str(field.annotation)
        given = str(first["input"])
        if len(given) > SHOWN or not given.isprintable():
            given = f"{given[:SHOWN]!r}…"
        value = "" if secret else f"={given}"
        raise SettingsError(f"{name.upper()}{value}: {first['msg']}") from None
