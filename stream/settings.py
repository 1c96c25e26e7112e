"""Settings that all three services read from the environment, once, at the start."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream import addresses, spelling
from stream.quoting import one_line

GIB = 2**30
SHOWN = 200
"""Characters of a wrong value that are shown."""


class SettingsError(ValueError):
    """A wrong setting; the message names the variable, the value and what is allowed."""


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", text):
        raise ValueError(
            "allowed are ASCII letters, digits, dots, underscores and hyphens, at most 200"
        )
    return text


def _topic(text: str) -> str:
    if text in (".", ".."):
        raise ValueError("Kafka allows no topic whose name is only dots")
    return _name(text)


def _stream_id(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,300}", text):
        raise ValueError("allowed are ASCII characters without blanks, at most 300")
    return text


def _brokers(text: str) -> str:
    return ",".join(map(str, addresses.parse(text)))


Name = Annotated[str, AfterValidator(_name)]
"""Name of a group or a replica."""

TopicName = Annotated[str, AfterValidator(_topic)]
"""Name of a topic; Kafka allows 249 characters, and some topics have a suffix to it."""

StreamId = Annotated[str, AfterValidator(_stream_id)]
"""Id of a stream."""

Brokers = Annotated[str, AfterValidator(_brokers)]
"""Addresses, as ``host:port``, separated by commas without blanks."""


class StreamSettings(BaseSettings):
    """Where Kafka is, what the topics are called, how large they may grow.

    Each field is an environment variable of the same name in capitals. An empty variable counts
    as not given.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    kafka_bootstrap_servers: Brokers = Field(
        "localhost:9092",
        description="Brokers to connect to first, `host:port`, separated by commas; the port is"
        " 9092 where none is given, and an IPv6 address stands in brackets: `[::1]:9092`",
    )
    data_topic: TopicName = Field("queueing.data", description="Topic of records")
    model_topic: TopicName = Field("queueing.model", description="Topic of models")
    prediction_topic: TopicName = Field("streaming.prediction", description="Topic of predictions")
    label_topic: TopicName = Field(
        "queueing.label",
        description="Topic of labels that come later. For another data topic, the default is its"
        " name with `.label` in place of `.data`",
    )
    data_partitions: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Partitions of the data topic; a topic with fewer gets more, one with more"
        " keeps them and a warning is logged",
    )
    replication_factor: int = Field(
        1, ge=1, le=9, description="Copies of each topic that is created; 3 on a cluster"
    )
    data_retention_bytes: int = Field(
        GIB,
        ge=1_000_000,
        description="Size above which the oldest records of a data partition are deleted, in bytes",
    )
    prediction_retention_bytes: int = Field(
        GIB,
        ge=1_000_000,
        description="The same for a partition of predictions or of rejected records",
    )
    model_retention_bytes: int = Field(
        GIB, ge=1_000_000, description="The same for the model topic and the status topic"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged; DEBUG includes the Kafka client's own log"
    )
    health_file: Path | None = Field(
        None,
        description="File that the loop of the service touches, at most once a second",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port on which Prometheus finds metrics of the service; 0 is none",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address to listen on with `METRICS_PORT`; with `0.0.0.0`, whoever reaches the"
        " machine can read the metrics",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Protocol of the brokers' listener"
    )
    kafka_ssl_cafile: str | None = Field(
        None,
        description="Certificates of the authorities to trust, PEM file; else the system's",
    )
    kafka_ssl_certfile: str | None = Field(None, description="Client certificate, PEM file")
    kafka_ssl_keyfile: str | None = Field(None, description="Client key, PEM file")
    kafka_ssl_crlfile: str | None = Field(None, description="Revoked certificates, PEM file")
    kafka_ssl_password: SecretStr | None = Field(None, description="Password of the client key")
    kafka_ssl_ciphers: str | None = Field(None, description="Allowed ciphers, in OpenSSL's format")
    kafka_ssl_check_hostname: bool = Field(
        True, description="Whether the certificate must name the broker's host"
    )
    kafka_sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "AWS_MSK_IAM"] | None
    ) = Field(
        None,
        description="SASL mechanism: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`; `GSSAPI` and"
        " `AWS_MSK_IAM` need the package gssapi or botocore",
    )
    kafka_sasl_plain_username: str | None = Field(None, description="User, for PLAIN and SCRAM")
    kafka_sasl_plain_password: SecretStr | None = Field(
        None, description="Password, for PLAIN and SCRAM"
    )
    kafka_sasl_kerberos_name: str | None = Field(None, description="Kerberos name of the service")
    kafka_sasl_kerberos_service_name: str | None = Field(None, description="Kerberos service")
    kafka_sasl_kerberos_domain_name: str | None = Field(None, description="Kerberos domain")

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_security_setting(cls, values: Any) -> Any:
        known = {name.upper() for name in cls.model_fields}
        for name, value in os.environ.items():
            if (
                name.startswith(("KAFKA_SSL_", "KAFKA_SASL_"))
                and name not in known
                and not spelling.set_by_platform(name, value)
            ):
                allowed = ", ".join(sorted(n for n in known if n.startswith(name[:9])))
                raise ValueError(f"{name} is not a setting; allowed are {allowed}")
        return values

    @model_validator(mode="before")
    @classmethod
    def _the_scheme_of_an_address_fits_the_protocol(cls, values: Any) -> Any:
        protocol = values.get("kafka_security_protocol") or "PLAINTEXT"
        named = addresses.schemes(str(values.get("kafka_bootstrap_servers", "")))
        for scheme in sorted(named & {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"}):
            if scheme.upper() != protocol:
                raise ValueError(
                    f"KAFKA_BOOTSTRAP_SERVERS says {scheme.upper()}://, and"
                    f" KAFKA_SECURITY_PROTOCOL is {protocol}: the latter counts, so give it there"
                )
        return values

    @model_validator(mode="before")
    @classmethod
    def _each_stream_has_its_own_label_topic(cls, values: Any) -> Any:
        if data := values.get("data_topic"):
            values.setdefault("label_topic", f"{str(data).removesuffix('.data')}.label")
        return values

    @model_validator(mode="before")  # of several, the last one runs first
    @classmethod
    def _values_as_people_write_them(cls, values: Any) -> Any:
        found = {}
        for name, value in values.items():
            field = cls.model_fields.get(name)
            if field and isinstance(value, str) and not _is_secret(field):
                value = _plain(name.upper(), field, spelling.plain(value))
            # A link of Kubernetes to a service called metrics gives METRICS_PORT=tcp://10.0.0.7:80.
            linked = name.endswith("_port") and str(value).startswith(("tcp://", "udp://"))
            if value != "" and not linked:
                found[name] = value
        return found

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
                    f"{given[0]} is given, but KAFKA_SECURITY_PROTOCOL={protocol} does not use"
                    f" {kind}"
                )
        if protocol.startswith("SASL"):
            with_password = self.kafka_sasl_mechanism not in ("GSSAPI", "AWS_MSK_IAM")
            for name in ("mechanism", *(("plain_username", "plain_password") * with_password)):
                if getattr(self, f"kafka_sasl_{name}") is None:
                    raise ValueError(
                        f"KAFKA_SASL_{name.upper()} is missing: KAFKA_SECURITY_PROTOCOL={protocol}"
                        " needs it"
                    )
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        names = {
            "DATA_TOPIC": (self.data_topic, self.schema_topic, self.rejected_topic),
            "MODEL_TOPIC": (self.model_topic, self.status_topic),
            "PREDICTION_TOPIC": (self.prediction_topic,),
            "LABEL_TOPIC": (self.label_topic, self.label_rejected_topic),
        }
        used: dict[str, str] = {}
        for variable, topics in names.items():
            for topic in topics:
                if topic in used:
                    raise ValueError(
                        f"{used[topic]} and {variable} both name the topic {topic}; each needs its"
                        " own"
                    )
                used[topic] = variable
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
    def label_rejected_topic(self) -> str:
        """Topic of labels that could not be used."""
        return f"{self.label_topic}.rejected"

    @property
    def status_topic(self) -> str:
        """Topic that tells what predictors did with each model."""
        return f"{self.model_topic}.status"

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that the service uses, and creates where they are missing."""
        return (
            self.data_topic,
            self.schema_topic,
            self.model_topic,
            self.status_topic,
            self.prediction_topic,
            self.rejected_topic,
            self.label_topic,
            self.label_rejected_topic,
        )

    @property
    def partitioned_topics(self) -> set[str]:
        """The topics with as many partitions as the data topic: one number, one set of records."""
        return {
            self.data_topic,
            self.prediction_topic,
            self.rejected_topic,
            self.label_topic,
            self.label_rejected_topic,
        }

    def sasl(self) -> dict[str, Any]:
        """Return the SASL settings that are given, under kafka-python's names."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name.startswith("kafka_sasl_") and value is not None:
                secret = isinstance(value, SecretStr)
                found[name.removeprefix("kafka_")] = value.get_secret_value() if secret else value
        return found


class ModelLimits(StreamSettings):
    """For which stream a model is, and what it may cost; others are refused."""

    stream_id: StreamId | None = Field(
        None,
        description="Which stream the models are for; a model that was signed for another stream is"
        " refused. By default the id of the Kafka cluster and the model topic. Give the id of the"
        " former stream where its topics were moved or mirrored",
    )

    predictor_secret: Path = Field(
        Path("keys/predictor/secret"),
        description="Secret with which predictors seal what they write, so that others cannot forge"
        " it; made on the first start, and the same for all predictors and the modelgenerator",
    )
    model_max_bytes: int = Field(
        512 * 2**20,
        ge=1_000,
        description="Largest model that is loaded, in bytes of its uncompressed pickle",
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
        One line for all wrong variables; passwords are never shown.
    """
    try:
        return settings()
    except ValidationError as error:
        # A setting of several kinds has an error for each: the first says what is allowed.
        wrong = {each["loc"][:1]: each for each in reversed(error.errors(include_url=False))}
        lines = (_line(settings, each) for each in reversed(wrong.values()))
        raise SettingsError("; ".join(lines)) from None


def _line(settings: type[BaseSettings], error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name, given = str(error["loc"][0]), str(error["input"])
    field = settings.model_fields.get(name.lower())
    if field and error["type"] != "value_error":
        message = f"allowed is {_allowed(field)}"
    if (field and _is_secret(field)) or "@" in given:  # user:password@host
        return f"{name.upper()}: {message}"
    comment = "; a comment needs a line of its own" if " #" in given else ""
    return f"{name.upper()}={one_line(given, SHOWN)}: {message}{comment}"


def _is_secret(field: FieldInfo) -> bool:
    return "Secret" in str(field.annotation)


def _choices(field: FieldInfo) -> list[str]:
    """Return the words that a setting may be, none where it may be any."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]


def _plain(name: str, field: FieldInfo, value: str) -> str:
    """Return a value as pydantic reads it: ``1e3`` is a whole number, ``ssl`` is ``SSL``."""
    if value.upper() in _choices(field):
        return value.upper()
    if field.annotation is int and re.fullmatch(r"\d{1,9}(\.\d{1,9})?[eE]\+?\d{1,2}", value):
        number = Decimal(value)
        return f"{number:f}" if number == number.to_integral_value() else value
    if "Path" in str(field.annotation):
        if os.name != "nt" and re.match(r"[A-Za-z]:[/\\]", value):
            raise ValueError(
                f"{name}={one_line(value, SHOWN)}: a path of Windows, and this is not Windows; in a"
                " container, give the path where the folder is mounted"
            )
        return os.path.expanduser(value)  # noqa: PTH111 - pathlib raises for an unknown user
    return value


def _allowed(field: FieldInfo) -> str:
    """Say in words what a setting may be."""
    if choices := _choices(field):
        return ", ".join(choices)
    if field.annotation is bool:
        return "1, true, yes or on, and 0, false, no or off"
    limits = {
        limit: getattr(each, limit)
        for each in field.metadata
        for limit in ("ge", "gt", "le")
        if hasattr(each, limit)
    }
    words = "a whole number" if field.annotation is int else "a number"
    words += f", {limits['ge']} or more" if "ge" in limits else ""
    words += f", more than {limits['gt']}" if "gt" in limits else ""
    return words + (f", at most {limits['le']}" if "le" in limits else "")


def misspelt(settings: type[BaseSettings]) -> Iterator[str]:
    """Yield a line for each environment variable that looks like a misspelt setting."""
    own = [name.upper() for name in settings.model_fields]
    for variable, setting in spelling.misspelt(os.environ, own):
        yield f"{variable} is not a setting and is ignored; the setting is called {setting}"


class Described(NamedTuple):
    """A setting as it is shown to people.

    Attributes
    ----------
    name : str
        In capitals.
    default : str
        The value where none is given; ``none`` where there is no value then.
    description : str
        What it is.
    """

    name: str
    default: str
    description: str


def described(settings: type[BaseSettings]) -> list[Described]:
    """Return the settings of a class, those that it inherits first, as they are declared."""
    found = []
    for name, field in settings.model_fields.items():
        default = field.default
        if field.default_factory is not None:
            shown = "host name"  # of REPLICA, the only one that is not the same everywhere
        elif default is None:
            shown = "none"
        else:
            shown = str(int(default) if isinstance(default, bool) else default)
        found.append(Described(name.upper(), shown, field.description or ""))
    return found
