from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgenerator.intake import Intake
from modelgenerator.join import Join
from modelgenerator.training.recipes import recipes
from modelgenerator.training.trainer import Trainer
from stream.quoting import LINE, OneLine, one_line
from tests.services import ROOT


@given(st.text(st.characters()), st.integers(2, 50))
def test_whatever_a_text_holds_it_is_shown_in_one_printable_bounded_line(
    text: str, limit: int
) -> None:
    shown = one_line(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=50))
def test_a_text_that_is_printable_and_short_is_shown_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    "message", ["a\nERROR forged", "\x1b[2J", "\u202e", "\udc80", "x" * 1_000_000, "\r", "\x85"]
)
def test_a_line_of_the_log_stays_one(message: str) -> None:
    record = logging.LogRecord("s", logging.INFO, "", 0, "it said %s", (message,), None)
    line = OneLine("%(levelname)s %(name)s: %(message)s").format(record)
    assert line.startswith("INFO s: it said ")
    assert line.isprintable()
    assert len(line) < LINE + 100


def test_names_of_unknown_fields_are_quoted_so_that_what_is_needed_follows() -> None:
    intake = Intake(Trainer(recipes(), 200, 100), Join(200), has_model=False)
    intake.sort(0, 0, b'{"id":1,"features":[0.5],"la\\nbel\\u001b[31m":1,"%s":2}' % (b"x" * 10**6))
    assert str(intake).isprintable()
    assert r"la\nbel\x1b[31m" in str(intake)
    assert len(str(intake)) < 300


def test_a_service_logs_a_setting_with_a_newline_in_one_line() -> None:
    env = {"PATH": os.environ["PATH"], "STREAM": "a\n2026-01-01 ERROR forged\x1b[2J"}
    command = [sys.executable, "-m", "datagenerator.app"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("\n") == 1
    assert r"STREAM=a\n2026-01-01 ERROR forged\x1b[2J: there is no such file" in done.stdout
