"""What services say of brokers that answer, and yet cannot be used as they are."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from local.kafka import LocalKafka, free_port
from local.process import Process
from modelgenerator.publish.__main__ import main as publish
from stream import reading
from tests.services import Services, await_line
from tests.topics import Topics, assert_exactly_once, await_answered, regression
from tests.unit.classifiers import envelope, pickled

NO_HOST = "no-such-host.invalid"
TAKES_NOTHING = [
    ("max.message.bytes", "100", "larger than the topic's max.message.bytes allows; raise it"),
    ("cleanup.policy", "compact", "cleanup.policy"),
]
"""A setting of a topic with which it takes no record, and what is then said of it."""


class Listeners:
    """A broker with a listener for each way to be reached, or not.

    Attributes
    ----------
    misnamed, closed, ipv6, controller : str
        Addresses: of a listener that advertises a name without an address, of one that advertises
        a port where nobody listens, of one on ``::1``, and of the controller.
    """

    def __init__(self, folder: Path) -> None:
        plain, misnamed, closed, ipv6, controller = (free_port() for _ in range(5))
        self.misnamed, self.closed = f"127.0.0.1:{misnamed}", f"127.0.0.1:{closed}"
        self.ipv6, self.controller = f"[::1]:{ipv6}", f"127.0.0.1:{controller}"
        self.misnamed_port, self.plain = misnamed, f"127.0.0.1:{plain}"
        listeners = {
            "PLAINTEXT": (self.plain, self.plain),
            "MISNAMED": (self.misnamed, f"{NO_HOST}:{misnamed}"),
            "CLOSED": (self.closed, "127.0.0.1:1"),
            **({"IPV6": (self.ipv6, self.ipv6)} if has_ipv6() else {}),
        }
        self.broker = LocalKafka(
            folder,
            plain,
            {
                "controller.quorum.voters": f"1@{self.controller}",
                "listeners": f"CONTROLLER://{self.controller},"
                + ",".join(f"{name}://{at}" for name, (at, _) in listeners.items()),
                "advertised.listeners": ",".join(
                    f"{name}://{to}" for name, (_, to) in listeners.items()
                ),
                "listener.security.protocol.map": ",".join(
                    f"{name}:PLAINTEXT" for name in ("CONTROLLER", *listeners)
                ),
            },
        )


def has_ipv6() -> bool:
    """Tell whether this machine has an IPv6 address of its own."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    """A broker of this module."""
    found = Listeners(tmp_path_factory.mktemp("listeners"))
    with found.broker:
        yield found


@pytest.fixture(scope="module")
def kafka(listeners: Listeners) -> str:
    """Where the test itself connects."""
    return listeners.plain


def last_line(process: Process) -> str:
    """Return the one error of a service that ended by itself with status 1."""
    assert process.wait(120) == 1, process.log()
    assert "Traceback" not in process.log()
    (line,) = (line for line in process.log().splitlines() if " ERROR " in line)
    return line.split(": ", 1)[1]


def configure(topics: Topics, topic: str, **options: str) -> None:
    """Change settings of a topic: ``max_message_bytes="100"``."""
    changed = {name.replace("_", "."): value for name, value in options.items()}
    topics.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changed)])


@pytest.mark.parametrize("service", ["datagenerator", "modelgenerator", "predictor"])
def test_a_broker_that_advertises_a_name_without_an_address_is_named_with_it(
    listeners: Listeners, start: Services, service: str
) -> None:
    process = start(service, KAFKA_BOOTSTRAP_SERVERS=listeners.misnamed)
    await_line(
        process,
        f"{listeners.misnamed} answers, but its advertised listeners are not reachable: broker 1"
        f" advertises {NO_HOST}:{listeners.misnamed_port} ({NO_HOST} does not resolve); look at"
        " advertised.listeners of the broker; retrying",
    )
    assert "no broker answers" not in process.log()
    assert process.log().count("WARNING") == 1


def test_a_broker_that_advertises_an_address_where_nobody_answers_is_named_with_it(
    listeners: Listeners, start: Services
) -> None:
    process = start("datagenerator", KAFKA_BOOTSTRAP_SERVERS=listeners.closed)
    await_line(process, "broker 1 advertises 127.0.0.1:1 (connection refused); look at advertised")


def test_a_command_says_the_same_and_ends(listeners: Listeners, start: Services) -> None:
    env = {"KAFKA_BOOTSTRAP_SERVERS": listeners.misnamed}
    run = start.python("-m", "predictor.verify", env=env)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert f"broker 1 advertises {NO_HOST}:{listeners.misnamed_port}" in line


def test_of_several_addresses_it_is_said_what_is_wrong_with_each(start: Services) -> None:
    process = start("predictor", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:1, {NO_HOST}")
    await_line(
        process,
        f"no broker answers at 127.0.0.1:1,{NO_HOST}:9092 with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"
        f" (127.0.0.1:1: connection refused, {NO_HOST}:9092: {NO_HOST} does not resolve); retrying",
    )


def test_what_is_no_broker_is_said_to_take_connections_only(start: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = start("predictor", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{silent.getsockname()[1]}")
        await_line(process, "(it takes connections, but does not answer as a broker")


def test_a_listener_of_ipv6_is_used_like_any_other(
    listeners: Listeners, start: Services, topics: Topics
) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6 address")
    process = start("datagenerator", KAFKA_BOOTSTRAP_SERVERS=listeners.ipv6, COUNT="20", RATE="0")
    await_line(process, "nothing more to send")
    assert reading.bounds(topics.consumer, TopicPartition(topics.settings.data_topic, 0)) == (0, 20)


@pytest.mark.parametrize(("setting", "value", "line"), TAKES_NOTHING)
def test_a_data_topic_that_takes_no_record_ends_the_datagenerator_with_one_line(
    start: Services, topics: Topics, setting: str, value: str, line: str
) -> None:
    configure(topics, topics.settings.data_topic, **{setting: value})
    last = last_line(start("datagenerator", RATE="0"))
    assert last.startswith(f"{topics.settings.data_topic}: a record of ")
    assert line in last


@pytest.mark.parametrize(("setting", "value", "line"), TAKES_NOTHING)
def test_a_prediction_topic_that_takes_no_prediction_ends_the_predictor_with_one_line(
    start: Services, topics: Topics, setting: str, value: str, line: str
) -> None:
    configure(topics, topics.settings.prediction_topic, **{setting: value})
    topics.publish(1)
    topics.write(10)
    last = last_line(start("predictor"))
    assert last.startswith(f"{topics.settings.prediction_topic}: a record of ")
    assert line in last


def test_a_topic_that_takes_less_than_a_batch_gets_smaller_batches(
    start: Services, topics: Topics
) -> None:
    for topic in (topics.settings.data_topic, topics.settings.prediction_topic):
        configure(topics, topic, max_message_bytes="10000")
    topics.publish(1)
    topics.write(2_000)
    start("predictor")
    await_answered(topics, 2_000)
    assert_exactly_once(topics)


def test_a_model_is_published_in_parts_that_the_model_topic_takes(
    start: Services, topics: Topics
) -> None:
    configure(topics, topics.settings.model_topic, max_message_bytes="100000")
    model = regression(padding=1_000_000)
    version = topics.publish_next(envelope(), pickled(model))
    topics.write(10)
    await_line(start("predictor"), f"model {version} ")
    await_answered(topics, 10)
    assert len(topics.models()) > 10
    assert {prediction["model"] for prediction in topics.predictions()} == {version}


def test_a_model_topic_that_takes_no_model_ends_publish_and_not_the_modelgenerator(
    start: Services, topics: Topics, tmp_path: Path
) -> None:
    model_topic = topics.settings.model_topic
    configure(topics, model_topic, max_message_bytes="300")
    topics.write(300)
    process = start("modelgenerator", RETRAIN_EVERY="100")
    refused = "larger than the topic's max.message.bytes allows; raise it"
    await_line(process, refused)
    joblib.dump(regression(padding=10_000), tmp_path / "model.joblib")
    run = start.python("-m", "modelgenerator.publish", str(tmp_path / "model.joblib"))
    assert run.returncode == 1
    lines = run.stderr.splitlines()  # the modelgenerator may have tried again meanwhile
    (line,) = (each for each in lines if "fenced by another publisher" not in each)
    assert re.search(rf"not published: {model_topic}: a record of [0-9,]+ bytes: {refused}", line)
    configure(topics, model_topic, max_message_bytes="1000000")
    topics.write(1_000)
    await_line(process, "model=1 ")
    assert process.log().count(refused) == 1


def test_brokers_that_allow_no_transaction_as_long_as_a_publication_end_it_with_one_line(
    topics: Topics,
    settings_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in settings_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("modelgenerator.publisher.TRANSACTION_SECONDS", 1_000)  # 900 are allowed
    topics.write(10)
    joblib.dump(regression(), tmp_path / "model.joblib")
    assert publish([str(tmp_path / "model.joblib")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "transaction.max.timeout.ms is too short; it must be at least 60000" in line


def test_a_topic_that_the_broker_does_not_allow_ends_the_start_with_one_line(
    start: Services, topics: Topics
) -> None:
    twin = topics.settings.data_topic.replace(".", "_")  # one name among the broker's metrics
    line = last_line(start("datagenerator", DATA_TOPIC=twin))
    assert line.startswith(f"{twin}: the broker does not allow this topic; look at DATA_TOPIC")
    assert "collides" in line


def test_fewer_brokers_than_replication_factor_are_waited_for(
    start: Services, settings_env: dict[str, str]
) -> None:
    process = start("datagenerator", REPLICATION_FACTOR="3")
    await_line(process, "fewer brokers are up than REPLICATION_FACTOR asks for")
    assert f"{settings_env['DATA_TOPIC']}: " in process.log()
    assert process.status is None


def test_a_controller_is_no_broker(listeners: Listeners, start: Services) -> None:
    process = start("predictor", KAFKA_BOOTSTRAP_SERVERS=listeners.controller)
    await_line(process, "(it takes connections, but does not answer as a broker")
