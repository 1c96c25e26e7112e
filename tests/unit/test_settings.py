from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dashboard.settings import DashboardSettings
from datagenerator.settings import Settings as DatageneratorSettings
from modelgenerator.settings import Settings as ModelgeneratorSettings
from predictor.settings import PredictorSettings
from stream.settings import SettingsError, StreamSettings, misspelt, read
from tests.services import ROOT

SERVICES = (DatageneratorSettings, ModelgeneratorSettings, PredictorSettings, DashboardSettings)
ALL = {name.upper() for service in SERVICES for name in service.model_fields}
IN_WORDS = "allowed are ASCII letters, digits, dots, underscores and hyphens, at most 200"


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without any variable."""
    for name in os.environ:
        monkeypatch.delenv(name)


def line(settings: type[StreamSettings] = StreamSettings) -> str:
    """Return the one line of settings that are wrong."""
    with pytest.raises(SettingsError) as raised:
        read(settings)
    found = str(raised.value)
    assert "\n" not in found
    assert "^[" not in found, "a regular expression"
    return found


def test_whatever_compose_gives_a_service_is_a_setting_of_one_of_them() -> None:
    given = re.findall(r"^ {2,6}([A-Z][A-Z_]+):", (ROOT / "docker-compose.yml").read_text(), re.M)
    assert len(given) > 40
    assert set(given) <= ALL


@pytest.mark.parametrize(
    ("given", "brokers"),
    [
        ("kafka:9092", "kafka:9092"),
        ("kafka", "kafka:9092"),
        ("kafka-1:9092, kafka_2 ,10.0.0.3:9094", "kafka-1:9092,kafka_2:9092,10.0.0.3:9094"),
        ("kafka-1:9092,,kafka-2:9093,", "kafka-1:9092,kafka-2:9093"),
        ("[::1]:9094", "[::1]:9094"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:9092"),
        ("kafka://kafka:9094/", "kafka:9094"),
        ("tcp://10.0.0.1:9092", "10.0.0.1:9092"),
        ("PLAINTEXT://kafka:9092,PLAINTEXT://[::1]", "kafka:9092,[::1]:9092"),
    ],
)
def test_addresses_are_read_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, given: str, brokers: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", given)
    assert read(StreamSettings).kafka_bootstrap_servers == brokers


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("::1", "'::1' is an IPv6 address without brackets"),
        ("::1:9092", "'::1:9092' is an IPv6 address without brackets"),
        ("[kafka]:9092", "'[kafka]:9092' is not an IPv6 address in brackets"),
        ("[::1]9092", "'[::1]9092' is not an IPv6 address in brackets"),
        ("kafka:", "the port of 'kafka:' is not a number from 1 to 65535"),
        ("kafka:port", "the port of 'kafka:port' is not a number from 1 to 65535"),
        ("kafka:0", "the port of 'kafka:0' is not a number from 1 to 65535"),
        ("kafka:65536", "the port of 'kafka:65536' is not a number from 1 to 65535"),
        ("kafka:9092 kafka-2:9092", "the port of 'kafka:9092 kafka-2:9092' is not a number"),
        (":9092", "':9092' has no name of a host"),
        ("two words:9092", "'two words:9092' has no name of a host"),
        ("kafka..local:9092", "'kafka..local:9092' has no name of a host"),
        ("kafka://kafka:9092/topic", "the port of 'kafka://kafka:9092/topic' is not a number"),
        ("http://kafka:9092", "'http':// is not a scheme of Kafka's"),
        (" , ", "allowed is host:port, separated by commas"),
        ("k" * 100_000, "has no name of a host"),
        ("kafka\n:9092", r"'kafka\n:9092' has no name of a host"),
    ],
)
def test_an_address_that_says_nothing_plain_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, given: str, reason: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", given)
    found = line()
    assert found.startswith("KAFKA_BOOTSTRAP_SERVERS=")
    assert reason in found
    assert "allowed is host:port, separated by commas" in found
    assert len(found) < 1_000


def test_a_password_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka://user:very-secret@kafka:9092")
    found = line()
    assert "very-secret" not in found
    assert "KAFKA_SASL_PLAIN_PASSWORD" in found


def test_a_scheme_that_names_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "SSL://kafka:9093")
    assert "says SSL://, and KAFKA_SECURITY_PROTOCOL is PLAINTEXT" in line()
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    assert read(StreamSettings).kafka_bootstrap_servers == "kafka:9093"


@pytest.mark.parametrize("variable", ["DATA_TOPIC", "MODEL_TOPIC", "PREDICTION_TOPIC"])
@pytest.mark.parametrize("value", ["two words", "a/b", "ä", "x" * 201, "a\nb"])
def test_a_topic_that_kafka_does_not_allow_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert line().endswith(IN_WORDS)


@pytest.mark.parametrize("value", [".", ".."])
def test_dots_alone_are_no_topic(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DATA_TOPIC", value)
    assert line() == f"DATA_TOPIC={value}: Kafka allows no topic whose name is only dots"


@pytest.mark.parametrize("variable", ["GROUP_ID", "REPLICA"])
def test_a_group_or_replica_of_other_characters_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "two words")
    assert line(PredictorSettings) == f"{variable}=two words: {IN_WORDS}"


@pytest.mark.parametrize(
    ("names", "both"),
    [
        ({"DATA_TOPIC": "a", "PREDICTION_TOPIC": "a"}, "DATA_TOPIC and PREDICTION_TOPIC"),
        ({"DATA_TOPIC": "a", "MODEL_TOPIC": "a.schema"}, "DATA_TOPIC and MODEL_TOPIC"),
        ({"MODEL_TOPIC": "a", "PREDICTION_TOPIC": "a.status"}, "MODEL_TOPIC and PREDICTION_TOPIC"),
    ],
)
def test_two_settings_that_name_one_topic_are_refused(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], both: str
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert line().startswith(f"{both} both name the topic a")


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATA_PARTITIONS": "none",
        "KAFKA_SASL_MECHANISM": "magic",
        "LOG_LEVEL": "loud",
    }.items():
        monkeypatch.setenv(name, value)
    partitions, *others = line().split("; ")
    assert partitions == "DATA_PARTITIONS=none: allowed is a whole number, 1 or more, at most 10000"
    assert [other.partition(":")[0] for other in others] == [
        "LOG_LEVEL=loud",
        "KAFKA_SASL_MECHANISM=magic",
    ]


def test_a_switch_says_what_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPEAT", "often")
    assert line(DatageneratorSettings) == (
        "REPEAT=often: allowed is 1, true, yes or on, and 0, false, no or off"
    )


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("RATES", "RATE"),
        ("RTAE", "RATE"),
        ("WINDO", "WINDOW"),
        ("LABLE", "LABEL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("GROUPID", "GROUP_ID"),
        ("DATA_TOPICS", "DATA_TOPIC"),
        ("DRIFT_EVRY", "DRIFT_EVERY"),
        ("TRUSTED_KEY", "TRUSTED_KEYS"),
        ("COMMIT_INTERVAL", "COMMIT_INTERVAL_MS"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("SECURITY_PROTOCOL", "KAFKA_SECURITY_PROTOCOL"),
        ("rates", "RATE"),
    ],
)
def test_a_variable_with_nearly_the_name_of_a_setting_is_named_with_it_by_who_reads_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, setting: str
) -> None:
    monkeypatch.setenv(variable, "5")
    readers = [service for service in SERVICES if setting.lower() in service.model_fields]
    assert [service for service in SERVICES if list(misspelt(service))] == readers
    assert list(misspelt(readers[0])) == [
        f"{variable} is not a setting and is ignored; the setting is called {setting}"
    ]


@pytest.mark.parametrize(
    ("variable", "given", "read_as"),
    [
        ("RATE", '"5"', 5.0),
        ("RATE", "'5'", 5.0),
        ("RATE", " 5\r", 5.0),
        ("RATE", "1e3", 1000.0),
        ("RATE", "1_000", 1000.0),
        ("RATE", " ", 100.0),
        ("RATE", '""', 100.0),
        ("COUNT", "1e6", 1_000_000),
        ("COUNT", "2.5E3", 2_500),
        ("COUNT", "5.0", 5),
        ("REPEAT", '"yes"', True),
        ("REPEAT", "ON\r\n", True),
        ("STREAM", '"agrawal"', "agrawal"),
        ("STREAM", "\ufeffsea\u200b", "sea"),
        ("DATA_TOPIC", " a.b ", "a.b"),
        ("LOG_LEVEL", "info", "INFO"),
        ("HEALTH_FILE", "'run/alive'", Path("run/alive")),
        ("KAFKA_BOOTSTRAP_SERVERS", '"KAFKA:9092/"', "KAFKA:9092"),
    ],
)
def test_a_value_is_read_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, read_as: object
) -> None:
    monkeypatch.setenv(variable, given)
    assert getattr(read(DatageneratorSettings), variable.lower()) == read_as


@pytest.mark.parametrize(
    ("service", "variable", "given", "message"),
    [
        (DatageneratorSettings, "RATE", "1,000", "allowed is a number, 0 or more"),
        (DatageneratorSettings, "RATE", "inf", "allowed is a number, 0 or more"),
        (
            DatageneratorSettings,
            "RATE",
            "5 # a second",
            "allowed is a number, 0 or more; a comment needs a line of its own",
        ),
        (DatageneratorSettings, "COUNT", "2.5", "allowed is a whole number, 0 or more"),
        (DatageneratorSettings, "COUNT", "15e-1", "allowed is a whole number, 0 or more"),
        (
            ModelgeneratorSettings,
            "WINDOW",
            "1e9",
            "allowed is a whole number, 200 or more, at most 1000000",
        ),
        (PredictorSettings, "MODEL_MAX_MICROSECONDS", "0", "allowed is a number, more than 0"),
        (PredictorSettings, "LOG_LEVEL", "TRACE", "allowed is DEBUG, INFO, WARNING, ERROR"),
        (PredictorSettings, "KAFKA_SECURITY_PROTOCOL", "TLS", "allowed is PLAINTEXT, SSL, "),
        (PredictorSettings, "LOG_FILE", r"C:\logs\predictor.log", "a path of Windows, and "),
    ],
)
def test_a_value_that_is_none_says_in_words_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
    service: type[StreamSettings],
    variable: str,
    given: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, given)
    found = line(service)
    assert found.startswith(f"{variable}=")
    assert message in found


def test_a_password_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"MECHANISM": "plain", "PLAIN_USERNAME": "a", "PLAIN_PASSWORD": ' "secret" '}
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "sasl_ssl")
    for name, value in sasl.items():
        monkeypatch.setenv(f"KAFKA_SASL_{name}", value)
    assert ' "secret" ' in read(StreamSettings).sasl().values()


def test_a_path_may_begin_at_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LOG_FILE", "~/predictor.log")
    assert read(PredictorSettings).log_file == Path("/home/somebody/predictor.log")


def test_a_line_of_a_shell_script_in_a_file_of_variables_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("export RATE", "5")
    assert list(misspelt(DatageneratorSettings)) == [
        "export RATE is not a setting and is ignored; the setting is called RATE"
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_a_setting_of_any_service_or_empty_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, service: type[StreamSettings]
) -> None:
    for name in ALL:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("window", "2000")
    monkeypatch.setenv("RATES", "")
    assert list(misspelt(service)) == []


OF_PLATFORMS = {
    "KAFKA_PORT": "tcp://10.0.0.1:9092",
    "KAFKA_SERVICE_HOST": "10.0.0.1",
    "KAFKA_SERVICE_PORT": "9092",
    "KAFKA_SERVICE_PORT_CLIENTS": "9092",
    "KAFKA_PORT_9092_TCP": "tcp://10.0.0.1:9092",
    "KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
    "KAFKA_PORT_9092_TCP_PORT": "9092",
    "KAFKA_PORT_9092_TCP_PROTO": "tcp",
    "KAFKA_SSL_SERVICE_HOST": "10.0.0.1",
    "KAFKA_SSL_SERVICE_PORT": "9093",
    "KAFKA_SSL_PORT": "tcp://10.0.0.1:9093",
    "KAFKA_SSL_PORT_9093_TCP": "tcp://10.0.0.1:9093",
    "KAFKA_SASL_SERVICE_PORT_TCP_CLIENTS": "9094",
    "KAFKA_SSL_NAME": "/predictor/kafka-ssl",
    "KAFKA_SSL_ENV_PATH": "/bin",
    "LOG_PORT": "tcp://10.0.0.1:514",
    "STREAM_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_PORT_443_TCP": "tcp://10.0.0.1:443",
}
"""What Kubernetes and Docker links put into a container for each service beside it."""

OF_OTHERS = (  # noqa: SIM905 - as a list it would take a line for each
    "PATH HOME HOSTNAME LANG LANGUAGE LC_ALL PWD OLDPWD TERM SHLVL USER LOGNAME SHELL MAIL TZ "
    "DISPLAY WINDOWID WINDIR COLUMNS LINES EDITOR PAGER TMPDIR GPG_KEY PYTHON_VERSION "
    "PYTHONPATH VIRTUAL_ENV OMP_NUM_THREADS SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE "
    "MAKEFLAGS MAKELEVEL RATE_LIMIT SAMPLE_RATE BITRATE FRAMERATE BAUD_RATE DATE GATEWAY RACE SEND "
    "FEED COUNTRY GROUPS STREAM_URL LOG_SIZE LOG_TIME LOG_FORMAT LOG_DIR MODEL_PATH MODEL_NAME "
    "DATA_FOLDER DATA_DIR CPUS PREDICTOR_MEMORY MODELGENERATOR_MEMORY DATAGENERATOR_MEMORY "
    "COMPOSE_PROJECT_NAME COMPOSE_IGNORE_ORPHANS KAFKA_HEAP_OPTS KAFKA_OPTS KAFKA_HOME "
    "KAFKA_ADVERTISED_LISTENERS KAFKA_LISTENER_SECURITY_PROTOCOL_MAP KAFKA_BROKER_ID KAFKA_ACLS "
    "COMMAND_CONFIG SECONDS"
).split()


@pytest.mark.parametrize("service", SERVICES)
def test_variables_of_platforms_shells_and_other_programs_neither_end_nor_warn_a_start(
    monkeypatch: pytest.MonkeyPatch, service: type[StreamSettings]
) -> None:
    for name, value in (OF_PLATFORMS | dict.fromkeys(OF_OTHERS, "1")).items():
        monkeypatch.setenv(name, value)
    read(service)
    assert list(misspelt(service)) == []


def test_a_misspelt_setting_of_security_still_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "very-secret")
    found = line()
    assert found.startswith("KAFKA_SASL_PASSWORD is not a setting; allowed are KAFKA_SASL_KERBEROS")
    assert "very-secret" not in found


@pytest.mark.parametrize("given", ["/dev/stdout", "/dev/full", "/dev", "pipe"])
def test_a_log_file_that_cannot_be_read_back_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    if given == "/dev/stdout" and Path(given).is_file():
        given = "/dev/null"  # the output of this run goes to a file
    monkeypatch.setenv("LOG_FILE", given)
    found = line(PredictorSettings)
    assert found.startswith(f"LOG_FILE={given}: it is no regular file; a file is needed")


@pytest.mark.parametrize(
    ("given", "port"), [("9100", 9_100), ("", 0), ("tcp://10.0.0.7:80", 0), ("udp://[::1]:80", 0)]
)
def test_a_port_that_a_container_platform_gives_for_a_link_is_no_port_of_ours(
    monkeypatch: pytest.MonkeyPatch, given: str, port: int
) -> None:
    monkeypatch.setenv("METRICS_PORT", given)
    assert read(StreamSettings).metrics_port == port


@pytest.mark.parametrize("given", ["65536", "-1", "http"])
def test_a_port_for_metrics_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("METRICS_PORT", given)
    allowed = "allowed is a whole number, 0 or more, at most 65535"
    assert line() == f"METRICS_PORT={given}: {allowed}"
