"""Services on a broker that wants TLS and a password, and lets nobody do what is not granted."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
from kafka.errors import TopicAuthorizationFailedError

from datagenerator.settings import Settings
from datagenerator.sources import open_source
from stream import clients, reading
from stream.settings import StreamSettings
from tests.secured import SecuredKafka
from tests.services import SERVICES, Services, await_line, eventually, last_error
from tests.topics import Topics, assert_exactly_once

TOPICS = {
    "DATA_TOPIC": "secured.data",
    "MODEL_TOPIC": "secured.model",
    "PREDICTION_TOPIC": "secured.prediction",
    "GROUP_ID": "secured",
}
ALL = (
    "secured.data",
    "secured.data.schema",
    "secured.model",
    "secured.model.status",
    "secured.prediction",
    "secured.data.rejected",
)
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
        broker.apply({**TOPICS, "VERIFIER": "verifier", "OPERATOR": "operator"}, "--add")
        yield broker


@pytest.fixture
def settings_env(kafka: SecuredKafka, tmp_path: Path) -> dict[str, str]:
    """Settings of services, without who they are."""
    return TOPICS | {
        "LOG_FILE": str(tmp_path / "predictor.log"),
        "SIGNING_KEY": str(tmp_path / "signing" / "key.pem"),
        "TRUSTED_KEYS": str(tmp_path / "trusted"),
        "PREDICTOR_SECRET": str(tmp_path / "secret"),
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
    kafka.admin.create_acls(acls)
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
    make = {"CREATE", "ALTER"}
    assert rights == {
        "datagenerator": {
            "data": {"READ", "WRITE"} | make,
            "data.schema": {"READ", "WRITE"} | make,
        },
        "modelgenerator": {
            "data": {"READ"} | make,
            "data.schema": {"READ"} | make,
            "model": {"READ", "WRITE"} | make,
            "model.status": {"READ"} | make,
        },
        "predictor": {
            "data": {"READ"} | make,
            "data.schema": {"READ"} | make,
            "model": {"READ"} | make,
            "model.status": {"READ", "WRITE"} | make,
            "prediction": {"READ", "WRITE"} | make,
            "data.rejected": {"READ", "WRITE"} | make,
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
        before = reading.bounds(topics.consumer, TopicPartition(topic, 0))
        producer = clients.producer(settings(env | kafka.user(user)))
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send(topic, b"{}", partition=0).get(30)
        clients.close(producer)
        assert reading.bounds(topics.consumer, TopicPartition(topic, 0)) == before


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


@pytest.fixture
def own(kafka: SecuredKafka, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Settings of the test itself, with topics of its own to which the services have all rights."""
    name = f"t{uuid.uuid4().hex[:12]}"
    names = [f"topic:{name}.", f"group:{name}", f"transactional_id:{name}"]
    with ruled(kafka, ALLOW, "*", [ACLOperation.ALL], *names, prefixed=True):
        yield env | {
            "DATA_TOPIC": f"{name}.data",
            "MODEL_TOPIC": f"{name}.model",
            "PREDICTION_TOPIC": f"{name}.prediction",
            "GROUP_ID": name,
        }


@pytest.mark.parametrize(
    ("service", "operation", "kind", "name"),
    [
        ("datagenerator", WRITE, "topic", ".data"),
        ("datagenerator", READ, "topic", ".data.schema"),
        ("modelgenerator", READ, "topic", ".data"),
        ("modelgenerator", READ, "topic", ".model"),
        ("modelgenerator", WRITE, "topic", ".model"),
        ("modelgenerator", WRITE, "transactional_id", ".model-publisher"),
        ("predictor", READ, "topic", ".data"),
        ("predictor", READ, "topic", ".model"),
        ("predictor", READ, "group", ""),
        ("predictor", WRITE, "topic", ".prediction"),
        ("predictor", WRITE, "topic", ".data.rejected"),
        ("predictor", WRITE, "topic", ".model.status"),
        ("predictor", WRITE, "transactional_id", "-p1"),
        ("predictor", CREATE, "topic", ".data.rejected"),
    ],
)
def test_a_missing_right_ends_a_service_with_one_line(
    kafka: SecuredKafka,
    start: Services,
    own: dict[str, str],
    service: str,
    operation: ACLOperation,
    kind: str,
    name: str,
) -> None:
    name = own["GROUP_ID"] + name
    lacks = f"{operation.name.capitalize()} the {kind} {name}".replace(
        "Write the transactional_id", "Write under the transactional id"
    )
    with Topics(own) as topics, ruled(kafka, DENY, service, [operation], f"{kind}:{name}"):
        if service == "predictor":
            topics.publish(1)
        if service != "datagenerator":
            topics.write(300)
            topics.write_values([b"no record"])
        else:
            topics.describe(open_source(Settings.model_validate({})).schema)
        if operation is CREATE:
            kafka.admin.delete_topics([name])
            eventually(lambda: name not in kafka.admin.list_topics())
        names = {setting: own[setting] for setting in TOPICS}
        process = start(service, **names | kafka.user(service), REPLICA="p1", RETRAIN_EVERY="100")
        assert last_error(process) == (
            f"user {service} lacks the right to {lacks}; acls.sh grants what each service needs"
        )


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
