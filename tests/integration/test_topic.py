from __future__ import annotations

import os
import signal
import subprocess
import sys

import pexpect
import pytest

from tests.services import ROOT, Services, eventually
from tests.topics import Topics

COMMAND = (sys.executable, "-m", "local.topic")
VALUES = [b'{"id":1}', b"\xc3\xa9 \x1b[31m \xff", b"x" * 3_000]


def test_a_topic_is_shown_from_its_beginning_as_it_was_written(
    topics: Topics, start: Services
) -> None:
    topics.write_values([*VALUES, None, b"more"])
    command = [*COMMAND, topics.settings.data_topic, "--count", "4"]
    shown = subprocess.run(command, cwd=ROOT, env=start.env, capture_output=True, timeout=60)
    assert shown.stdout == b"".join(value + b"\n" for value in [*VALUES, b"null"])
    assert (shown.returncode, shown.stderr) == (0, b"")


def test_on_a_terminal_what_is_not_printable_is_escaped_and_a_long_line_is_cut(
    topics: Topics, start: Services
) -> None:
    topics.write_values(VALUES)
    terminal = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], topics.settings.data_topic, "--count", "3"],
        cwd=ROOT,
        env=os.environ | start.env | {"LC_ALL": "C.UTF-8"},
        encoding="utf-8",
        timeout=60,
    )
    terminal.expect(pexpect.EOF)
    assert str(terminal.before).splitlines() == [
        '{"id":1}',
        r"é \x1b[31m \xff",
        "x" * 1_999 + "…",
    ]


def test_from_the_end_only_new_records_are_shown_and_ctrl_c_ends_it_without_a_word(
    topics: Topics, start: Services
) -> None:
    topics.write_values([b"old"])
    shown = start.run("topic", "local.topic", topics.settings.data_topic, "--from", "end")

    def is_new_shown() -> bool:
        topics.write_values([b"new"])
        return "new" in shown.log()

    eventually(is_new_shown)
    shown.send(signal.SIGINT)
    assert shown.wait(60) == 0
    assert {*shown.log().splitlines()} == {"new"}


@pytest.mark.parametrize("more", [0, 5_000])
def test_it_ends_without_a_word_once_its_reader_has_gone(
    topics: Topics, start: Services, more: int
) -> None:
    topics.write(1 + more)
    with subprocess.Popen(
        [*COMMAND, topics.settings.data_topic],
        cwd=ROOT,
        env=start.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as shown:
        assert shown.stdout
        assert shown.stderr
        try:
            assert shown.stdout.readline().startswith(b'{"id":0,')
            shown.stdout.close()
            assert shown.wait(60) == 0
            assert shown.stderr.read() == b""
        finally:
            shown.kill()


def test_an_unknown_topic_is_refused_with_those_that_exist(topics: Topics, start: Services) -> None:
    name = topics.settings.data_topic
    shown = start.python(*COMMAND[1:], f"{name}s")
    assert shown.returncode == 1
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"no topic {name}s at {topics.settings.kafka_bootstrap_servers}; there")
    listed = start.python(*COMMAND[1:]).stdout.splitlines()
    assert {name, topics.settings.schema_topic} < {*listed}
    assert not [topic for topic in listed if topic.startswith("__")]
