from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream.key_files import KeyFileError
from stream.seal import HEADER, SHORT_HEADER, Seal, read_seal

SEAL = Seal(b"a secret of the predictors")
OTHERS = [("group", b"a"), ("incarnation", b"b")]


def test_what_was_sealed_holds_as_it_was_sealed() -> None:
    for headers in ([], OTHERS, [("none", None)]):
        assert SEAL.holds("topic", b"value", SEAL.headers("topic", b"value", headers))
    assert SEAL.headers("topic", b"value", OTHERS)[:-1] == OTHERS


def test_a_seal_holds_for_no_other_topic_value_headers_or_secret() -> None:
    sealed = SEAL.headers("topic", b"value", OTHERS)
    assert not SEAL.holds("topi", b"cvalue", sealed)
    assert not SEAL.holds("topic", b"valuf", sealed)
    assert not SEAL.holds("topic", None, sealed)
    assert not SEAL.holds("topic", b"value", sealed[1:])
    assert not SEAL.holds("topic", b"value", [*sealed, sealed[-1]])
    assert not SEAL.holds("topic", b"value", sealed[::-1])
    assert not SEAL.holds("topic", b"value", [("groupa", b""), *sealed[1:]])
    assert not Seal(b"another").holds("topic", b"value", sealed)


def test_the_seal_of_a_json_object_is_its_last_field_and_holds_for_nothing_else() -> None:
    sealed = SEAL.sealed("group data 0 100", '{"n":1}')
    assert list(json.loads(sealed)) == ["n", HEADER]
    assert SEAL.holds_in("group data 0 100", sealed)
    forged = (
        sealed.replace("1", "2", 1),
        '{"n":1}',
        "",
        "}",
        sealed + " ",
        f'{{"m":1,{sealed[1:]}',
    )
    assert not any(SEAL.holds_in("group data 0 100", text) for text in forged)
    assert not SEAL.holds_in("group data 0 101", sealed)
    assert not Seal(b"another").holds_in("group data 0 100", sealed)


@pytest.mark.parametrize("headers", [[], [(HEADER, None)], [(HEADER, b"")], [(HEADER, bytes(32))]])
def test_what_was_not_sealed_does_not_hold(headers: list[tuple[str, bytes | None]]) -> None:
    assert not SEAL.holds("topic", b"value", headers)


def test_the_secret_is_made_once_and_the_same_for_all(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secret"
    assert read_seal(path) is None
    first = read_seal(path, make=True)
    second = read_seal(path, make=True)
    assert first
    assert second
    assert second.holds("topic", b"value", first.headers("topic", b"value"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_secret_that_others_may_read_or_that_is_none_is_refused_with_its_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "secret"
    for content in (b"", b"no digits", b"00" * 31, b"\xff" * 64):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match="secret: expected 64 hexadecimal digits"):
            read_seal(path)
    path.write_text("00" * 32)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_seal(path)


def test_a_short_seal_holds_for_its_value_and_context_alone() -> None:
    short = SEAL.short("topic", "group")
    headers = [("group", b"a"), (SHORT_HEADER, short.of(b"value"))]
    assert len(headers[1][1]) == 16
    assert short.holds(b"value", headers)
    assert not short.holds(b"valuf", headers)
    assert not short.holds(None, headers)
    assert not short.holds(b"value", [(SHORT_HEADER, None)])
    assert not short.holds(b"value", headers[:1])
    assert not SEAL.short("topic", "another").holds(b"value", headers)
    assert not SEAL.short("topicg", "roup").holds(b"value", headers)
    assert not Seal(b"another").short("topic", "group").holds(b"value", headers)
