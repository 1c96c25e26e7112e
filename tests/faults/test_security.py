"""Services on a broker that wants TLS and a password, and lets nobody do what is not granted."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka import TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.structs import OffsetAndMetadata

from datagenerator.settings import Settings
from datagenerator.sources import open_source
from modelgenerator.settings import Settings as ModelgeneratorSettings
from predictor.settings import PredictorSettings
from stream import clients
from stream.settings import StreamSettings
from stream.topics import ensure_topics
from tests.secured import SecuredKafka, granted
from tests.services import SERVICES, Services, await_line, eventually, last_error
from tests.topics import Topics, assert_exactly_once, await_answered, await_no_members

TOPICS = {
    "DATA_TOPIC": "secured.data",
    "MODEL_TOPIC": "secured.model",
    "PREDICTION_TOPIC": "secured.prediction",
    "GROUP_ID": "secured",
}
PEOPLE = {"VERIFIER": "verifier", "OPERATOR": "operator"}
ALL = (
    "secured.data",
    "secured.data.schema",
    "secured.model",
    "secured.model.status",
    "secured.prediction",
    "secured.data.rejected",
    "secured.label",
    "secured.label.rejected",
)
SETTINGS: dict[str, type[StreamSettings]] = {
    "datagenerator": Settings,
    "modelgenerator": ModelgeneratorSettings,
    "predictor": PredictorSettings,
}
KEY_PASSWORD = "of-the-key"  # noqa: S105 - of a key that a test makes
ALLOW, DENY = ACLPermissionType.ALLOW, ACLPermissionType.DENY
READ, WRITE, CREATE, ALTER, DESCRIBE = (
    ACLOperation.READ,
    ACLOperation.WRITE,
    ACLOperation.CREATE,
    ACLOperation.ALTER,
    ACLOperation.DESCRIBE,
)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """A broker with rights as ``acls.sh`` grants them."""
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as broker:
        broker.add_users("verifier", "operator")
        broker.rule(granted(TOPICS | PEOPLE))
        yield broker


@pytest.fixture
def settings_env(kafka: SecuredKafka, tmp_path: Path) -> dict[str, str]:
    """Settings of services, without who they are."""
    return TOPICS | {
        "LOG_FILE": str(tmp_path / "predictor.log"),
        "SIGNING_KEY": str(tmp_path / "signing" / "key.pem"),
        "TRUSTED_KEYS": str(tmp_path / "trusted"),
        "PREDICTOR_SECRET": str(tmp_path / "secret"),
        "MODEL_MAX_MICROSECONDS": "10000",  # as in tests/conftest.py
    }


@pytest.fixture
def env(kafka: SecuredKafka, settings_env: dict[str, str]) -> dict[str, str]:
    """Settings of the test itself, which may do everything."""
    return settings_env | {"KAFKA_BOOTSTRAP_SERVERS": kafka.plain}


def settings(env: Mapping[str, str]) -> StreamSettings:
    return StreamSettings.model_validate({name.lower(): value for name, value in env.items()})


@contextmanager
def ruled(
    kafka: SecuredKafka,
    permission: ACLPermissionType,
    user: str,
    operations: Iterable[ACLOperation],
    *resources: str,
    prefixed: bool = False,
) -> Iterator[None]:
    """Grant or take away rights: on ``topic:NAME``, ``group:NAME``, ``transactional_id:NAME``."""
    pattern = ACLResourcePatternType.PREFIXED if prefixed else ACLResourcePatternType.LITERAL
    acls = [
        ACL(
            f"User:{user}",
            "*",
            operation,
            permission,
            ResourcePattern(ResourceType[kind.upper()], name, pattern),
        )
        for kind, name in (resource.split(":") for resource in resources)
        for operation in operations
    ]
    kafka.rule(acls)
    try:
        yield
    finally:
        kafka.admin.delete_acls(
            [
                ACLFilter(f"User:{user}", "*", acl.operation, permission, acl.resource_pattern)
                for acl in acls
            ]
        )


def test_each_service_does_its_work_with_its_own_rights_over_tls_and_scram(
    kafka: SecuredKafka, start: Services, env: dict[str, str]
) -> None:
    stream = {"STREAM": "sea", "RATE": "300", "COUNT": "2000", "DATA_PARTITIONS": "2"}
    services = [start(name, **kafka.user(name), **stream) for name in reversed(SERVICES)]
    eventually(
        lambda: set(ALL) <= set(kafka.admin.list_topics()), 120, "the services make the topics"
    )
    with Topics(env, partitions=2) as topics:
        eventually(lambda: topics.answered() == 2_000, 240, lambda: f"{topics.answered()} of 2000")
        assert_exactly_once(topics)
        eventually(lambda: topics.statuses(), 60, "the predictor says which model serves")
    assert [service.stop(20) for service in services] == [0, 0, 0]
    topics.check(topics.log)
    for service in services:
        assert "-password" not in service.log()
        assert "Traceback" not in service.log()

    verified = start.python("-m", "predictor.verify", env=kafka.user("verifier"))
    assert (verified.returncode, verified.stderr) == (0, "")
    status = start.python("-m", "predictor.status", env=kafka.user("verifier"))
    assert (status.returncode, status.stderr) == (0, "")
    topic = ("secured.prediction", "--count", "2000")
    shown = start.python("-m", "local.topic", *topic, env=kafka.user("verifier"))
    assert (shown.stdout.count("\n"), shown.stderr) == (2_000, "")
    forgotten = start.python("-m", "predictor.reset", "--yes", env=kafka.user("operator"))
    assert (forgotten.returncode, forgotten.stderr) == (0, "")


def test_the_broker_knows_the_rights_that_are_documented_and_no_others(
    kafka: SecuredKafka, env: dict[str, str]
) -> None:
    rights: dict[str, dict[str, set[str]]] = {}
    implied = {"DESCRIBE", "DESCRIBE_CONFIGS"}
    with Topics(env):
        for user in SERVICES:
            with clients.admin(settings(env | kafka.user(user))) as admin:
                rights[user] = {
                    topic["name"].removeprefix("secured."): set(topic["authorized_operations"])
                    - implied
                    for topic in admin.describe_topics(list(ALL))
                    if not topic["error_code"]
                }
    read, write = {"READ", "CREATE"}, {"READ", "WRITE", "CREATE"}
    assert rights == {
        "datagenerator": {
            "data": write | {"ALTER"},
            "data.schema": write,
            "label": write | {"ALTER"},
        },
        "modelgenerator": {
            "data": read | {"ALTER"},
            "data.schema": read,
            "label": read | {"ALTER"},
            "model": write,
            "model.status": read,
            "prediction": {"READ"},
        },
        "predictor": {
            "data": read | {"ALTER"},
            "data.schema": read,
            "label": read | {"ALTER"},
            "model": read,
            "model.status": write,
            "prediction": write | {"ALTER"},
            "data.rejected": write | {"ALTER"},
            "label.rejected": write | {"ALTER"},
        },
    }


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("predictor", "secured.model"),
        ("predictor", "secured.data"),
        ("modelgenerator", "secured.prediction"),
        ("datagenerator", "secured.model"),
    ],
)
def test_a_record_that_a_service_may_not_write_is_refused(
    kafka: SecuredKafka, env: dict[str, str], user: str, topic: str
) -> None:
    with Topics(env) as topics:
        refused = f"by {user}".encode()
        producer = clients.producer(settings(env | kafka.user(user)))
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send(topic, refused, partition=0).get(30)
        clients.close(producer)
        # Its end may move: a service that was told to end may have left a transaction open.
        assert refused not in {record.value for record in topics.records(topic)}


def test_write_on_a_topic_alone_allows_no_transaction_no_commit_no_deletion_and_no_reading(
    kafka: SecuredKafka, env: dict[str, str]
) -> None:
    kafka.add_users("writer")
    writer, place = settings(env | kafka.user("writer")), TopicPartition("secured.data", 0)
    with Topics(env), ruled(kafka, ALLOW, "writer", [WRITE], "topic:secured.data"):
        with clients.closing(clients.producer(writer)) as producer:
            producer.send(place.topic, b"{}", partition=0).get(30)
        with (
            clients.closing(clients.producer(writer, transactional_id="secured-p1")) as producer,
            pytest.raises(TransactionalIdAuthorizationFailedError),
        ):
            producer.init_transactions()
        with (
            clients.closing(clients.consumer(writer, group_id="secured")) as consumer,
            pytest.raises(GroupAuthorizationFailedError),
        ):
            consumer.commit({place: OffsetAndMetadata(0, "", -1)})
        with clients.closing(clients.consumer(writer)) as consumer:
            consumer.assign([place])
            consumer.seek(place, 0)
            with pytest.raises(TopicAuthorizationFailedError):
                eventually(lambda: consumer.poll(timeout_ms=200), 60)
        with clients.admin(writer) as admin, pytest.raises(TopicAuthorizationFailedError):
            admin.delete_records({place: -1}, 10_000)


def test_the_datagenerator_cannot_read_predictions(
    kafka: SecuredKafka, env: dict[str, str]
) -> None:
    with Topics(env):
        place = TopicPartition("secured.prediction", 0)
        # Without Describe, it would not even find the partition.
        with ruled(kafka, ALLOW, "datagenerator", [DESCRIBE], f"topic:{place.topic}"):
            consumer = clients.consumer(settings(env | kafka.user("datagenerator")))
            consumer.assign([place])
            consumer.seek(place, 0)
            with pytest.raises(TopicAuthorizationFailedError):
                eventually(lambda: consumer.poll(timeout_ms=200), 60)
            clients.close(consumer)


def test_services_need_no_right_to_create_topics_that_are_there(
    kafka: SecuredKafka, start: Services, env: dict[str, str]
) -> None:
    resources = [f"topic:{topic}" for topic in ALL]
    with (
        Topics(env) as topics,
        ruled(kafka, DENY, "*", [CREATE, ALTER], *resources),
    ):
        before = topics.answered()
        services = [start(name, **kafka.user(name), RATE="300") for name in SERVICES]
        eventually(lambda: topics.answered() > before, 120, "predictions go on")
        assert [service.stop(20) for service in services] == [0, 0, 0]


class Own(NamedTuple):
    """A stream of its own, whose services have the rights of ``acls.sh``.

    Attributes
    ----------
    env : dict of str to str
        Settings of the test itself, which may do everything.
    names : dict of str to str
        The settings that name topics and group.
    """

    env: dict[str, str]
    names: dict[str, str]
    kafka: SecuredKafka

    @contextmanager
    def granted(self, *lacking: ACL) -> Iterator[None]:
        """Grant all rights but these."""
        acls = [_renamed(each, self.env["GROUP_ID"]) for each in RIGHTS if each not in lacking]
        self.kafka.rule(acls)
        try:
            yield
        finally:
            self.kafka.admin.delete_acls(
                [
                    ACLFilter(each.principal, "*", each.operation, ALLOW, each.resource_pattern)
                    for each in acls
                ]
            )

    @contextmanager
    def without(self, acl: ACL) -> Iterator[str]:
        """Grant all but one of the rights; return the name of what that is on."""
        with self.granted(acl):
            yield _renamed(acl, self.env["GROUP_ID"]).resource_pattern.resource_name


RIGHTS = granted(TOPICS | PEOPLE)
MAKE = (CREATE, ALTER)


def _renamed(acl: ACL, name: str) -> ACL:
    of = acl.resource_pattern
    own = of.resource_name.replace(TOPICS["GROUP_ID"], name)
    pattern = ResourcePattern(of.resource_type, own, of.pattern_type)
    return ACL(acl.principal, acl.host, acl.operation, acl.permission_type, pattern)


def of(who: Iterable[str], operations: Container[ACLOperation]) -> list[Any]:
    """Return those of the rights that `who` has to these operations."""
    return [
        pytest.param(acl, id=f"{user} {acl.operation.name} {acl.resource_pattern.resource_name}")
        for acl in RIGHTS
        if (user := acl.principal.removeprefix("User:")) in who and acl.operation in operations
    ]


@pytest.fixture
def own(kafka: SecuredKafka, env: dict[str, str]) -> Own:
    """A stream of which no topic is there."""
    name = f"t{uuid.uuid4().hex[:12]}"
    names = {key: value.replace(TOPICS["GROUP_ID"], name) for key, value in TOPICS.items()}
    return Own(env | names, names, kafka)


@pytest.mark.parametrize("acl", of(SERVICES, {READ, WRITE}))
def test_without_any_right_to_read_or_write_a_service_ends_with_one_line(
    own: Own, start: Services, acl: ACL
) -> None:
    service = acl.principal.removeprefix("User:")
    with Topics(own.env) as topics, own.without(acl) as name:
        if service == "predictor":
            topics.publish(1)
        if service != "datagenerator":
            topics.write(300)
            topics.write_values([b"no record"])
        elif acl.operation is READ:
            topics.describe(open_source(Settings.model_validate({}), print).schema)
            topics.write(5, width=3, label=False)
        label = b"no label" if service == "predictor" else b'{"id":0,"label":1}'
        topics.producer.send(topics.settings.label_topic, label, partition=0).get(30)
        rights = own.names | own.kafka.user(service)
        process = start(service, **rights, REPLICA="p1", RETRAIN_EVERY="100", LABEL_DELAY="1")
        line = last_error(process)
    kind = acl.resource_pattern.resource_type.name.lower().replace("_", " ")
    # With no other right there, Describe is lacking too, and is noticed first.
    right = (
        f"({acl.operation.name.title()}|Describe)" if kind != "transactional id" else "Write under"
    )
    assert re.fullmatch(
        f"user {service} lacks the right to {right} the {kind} .*{name}.*; acls.sh grants what each"
        " service needs",
        line,
    )


@pytest.mark.parametrize("acl", of(SERVICES, MAKE))
def test_without_any_right_to_create_a_topic_or_add_partitions_that_topic_is_named(
    own: Own, acl: ACL
) -> None:
    user = acl.principal.removeprefix("User:")
    given = {name.lower(): value for name, value in (own.env | own.kafka.user(user)).items()}
    wanted = SETTINGS[user].model_validate(given | {"data_partitions": "2", "label_delay": "1"})
    with own.without(acl) as name:
        if acl.operation is ALTER:
            with Topics(own.env):
                pass
        with (
            clients.admin(wanted) as client,
            pytest.raises(TopicAuthorizationFailedError, match=acl.operation.name.title()) as error,
        ):
            ensure_topics(client, wanted, logging.getLogger("test"))
    assert error.value.args[0] == name


@pytest.mark.parametrize(
    ("user", "command"),
    [("verifier", ["predictor.verify"]), ("operator", ["predictor.reset", "--yes"])],
)
def test_without_any_of_their_rights_people_are_told_which_one_is_lacking(
    own: Own, start: Services, user: str, command: list[str]
) -> None:
    with Topics(own.env) as topics, own.granted():
        topics.publish(1)
        topics.write(20)
        topics.producer.send(topics.settings.label_topic, b"no label", partition=0).get(30)
        predictor = start("predictor", **own.names | own.kafka.user("predictor"))
        await_answered(topics)
        eventually(lambda: topics.records(topics.settings.label_rejected_topic))
        assert predictor.stop(20) == 0
        await_no_members(topics)
    for right in of([user], {READ, DESCRIBE, ACLOperation.DELETE}):
        with own.without(*right.values) as name:
            done = start.python("-m", *command, env=own.names | own.kafka.user(user))
        assert done.returncode == 1, right.id
        assert f"user {user} lacks the right to " in done.stderr
        assert name in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_wrong_password_ends_a_service_with_one_line(
    kafka: SecuredKafka, start: Services, service: str
) -> None:
    wrong = {"KAFKA_SASL_PLAIN_PASSWORD": "wrong-secret"}
    line = last_error(start(service, **kafka.user(service) | wrong))
    assert line.startswith(f"{kafka.secure}: the broker refuses user {service}: ")
    assert line.endswith(
        "; look at KAFKA_SASL_MECHANISM, KAFKA_SASL_PLAIN_USERNAME and KAFKA_SASL_PLAIN_PASSWORD"
    )
    assert "wrong-secret" not in line


@pytest.mark.parametrize("service", SERVICES)
def test_a_foreign_certificate_ends_a_service_with_one_line(
    kafka: SecuredKafka, start: Services, service: str
) -> None:
    foreign = {"KAFKA_SSL_CAFILE": str(kafka.foreign.path)}
    assert last_error(start(service, **kafka.user(service) | foreign)) == (
        "localhost: the broker's certificate is refused: self-signed certificate in certificate"
        " chain; KAFKA_SSL_CAFILE must hold the certificate of the authority that signed it; it is"
        f" {kafka.foreign.path}"
    )


def test_a_certificate_for_another_host_ends_a_service_with_one_line(
    kafka: SecuredKafka, start: Services
) -> None:
    misnamed = kafka.user("predictor") | {"KAFKA_BOOTSTRAP_SERVERS": kafka.misnamed}
    line = last_error(start("predictor", **misnamed))
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in line
    assert "use a name of the certificate in KAFKA_BOOTSTRAP_SERVERS" in line
    unchecked = start("predictor", **misnamed, KAFKA_SSL_CHECK_HOSTNAME="0")
    await_line(unchecked, "partitions 0@")
    assert unchecked.stop(20) == 0


def test_a_broker_that_comes_back_with_a_foreign_certificate_ends_the_services(
    kafka: SecuredKafka, start: Services, tmp_path: Path
) -> None:
    # Here the authority in the services' file changes; to them that is the same.
    authority = tmp_path / "ca.pem"
    authority.write_bytes(kafka.authority.path.read_bytes())
    services = [
        start(name, **kafka.user(name) | {"KAFKA_SSL_CAFILE": str(authority)}, RATE="50")
        for name in SERVICES
    ]
    running = ("first_id=", "from offset=", "partitions 0@")
    eventually(lambda: all(line in s.log() for s, line in zip(services, running, strict=True)), 120)
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(kafka.foreign.path.read_bytes())
    foreign.replace(authority)  # atomically: half a file would be another fault
    kafka.broker.kill()
    kafka.broker.start()
    for service in services:
        assert "KAFKA_SSL_CAFILE must hold the certificate" in last_error(service)


def test_a_revoked_certificate_is_refused(kafka: SecuredKafka, start: Services) -> None:
    line = last_error(
        start(
            "predictor",
            **kafka.user("predictor") | {"KAFKA_BOOTSTRAP_SERVERS": kafka.misnamed},
            KAFKA_SSL_CRLFILE=str(kafka.crl),
            KAFKA_SSL_CHECK_HOSTNAME="0",
        )
    )
    assert line == (
        "localhost: the broker's certificate is refused: certificate revoked;"
        f" KAFKA_SSL_CRLFILE is {kafka.crl}"
    )


def test_a_client_certificate_takes_the_place_of_user_and_password(
    kafka: SecuredKafka, start: Services
) -> None:
    certificate = kafka.authority.issue("datagenerator", password=KEY_PASSWORD)
    mutual = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.mutual,
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(kafka.authority.path),
    }
    with_key = {"KAFKA_SSL_CERTFILE": str(certificate), "KAFKA_SSL_PASSWORD": KEY_PASSWORD}
    sources = ("topic:secured.data", "topic:secured.data.schema")
    with ruled(kafka, ALLOW, "CN=datagenerator", [READ, WRITE, CREATE], *sources):
        sending = start("datagenerator", **mutual | with_key)
        await_line(sending, "first_id=")
        assert sending.stop(20) == 0

    line = last_error(start("datagenerator", **mutual))
    assert "no TLS connection: TLSV13_ALERT_CERTIFICATE_REQUIRED" in line
    assert "KAFKA_SSL_CERTFILE" in line
    line = last_error(
        start("datagenerator", **mutual | with_key | {"KAFKA_SSL_PASSWORD": "another-one"})
    )
    assert line.startswith("KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE, KAFKA_SSL_PASSWORD: ")
    assert "another-one" not in line


def test_files_that_cannot_be_read_and_ciphers_unknown_are_named(
    kafka: SecuredKafka, start: Services, tmp_path: Path
) -> None:
    good, nowhere = kafka.user("predictor"), str(tmp_path / "nowhere.pem")
    wrong = [
        ("KAFKA_SSL_CAFILE", nowhere, "No such file or directory"),
        ("KAFKA_SSL_CRLFILE", nowhere, "No such file or directory"),
        ("KAFKA_SSL_CIPHERS", "NONE-SUCH", "No cipher can be selected."),
    ]
    ended = [start("predictor", **good | {name: value}) for name, value, _ in wrong]
    for process, (name, value, why) in zip(ended, wrong, strict=True):
        assert last_error(process) == f"{name}: {value}: {why}"


def test_scram_with_sha_256_and_a_cipher_of_choice_are_served_too(
    kafka: SecuredKafka, start: Services
) -> None:
    chosen = kafka.user("datagenerator", "SCRAM-SHA-256") | {
        "KAFKA_SSL_CIPHERS": "ECDHE-ECDSA-AES256-GCM-SHA384"
    }
    sending = start("datagenerator", **chosen)
    await_line(sending, "first_id=")
    assert sending.stop(20) == 0


def test_a_command_says_in_one_line_that_it_is_refused(
    kafka: SecuredKafka, start: Services
) -> None:
    user, verify = kafka.user("verifier"), ("-m", "predictor.verify")
    wrong = start.python(*verify, env=user | {"KAFKA_SASL_PLAIN_PASSWORD": "wrong"})
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(f"{kafka.secure}: the broker refuses user verifier: ")
    foreign = start.python(*verify, env=user | {"KAFKA_SSL_CAFILE": str(kafka.foreign.path)})
    assert foreign.returncode == 1
    assert foreign.stderr.startswith("localhost: the broker's certificate is refused: ")
    denied = start.python("-m", "predictor.reset", "--yes", env=user)
    assert denied.returncode == 1
    assert "user verifier lacks the right to Delete the group secured;" in denied.stderr
    assert (wrong.stderr + foreign.stderr + denied.stderr).count("\n") == 3
