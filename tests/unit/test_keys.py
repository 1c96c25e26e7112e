from __future__ import annotations

import errno
import os
import stat
import threading
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from modelgenerator import keys
from modelgenerator.settings import Settings
from modelgenerator.signing import own_key
from stream.key_files import KeyFileError
from stream.keys import TrustedKeys, revoke, signing_key
from stream.service import Fatal
from tests.unit.classifiers import new_key


def test_a_missing_private_key_is_made_readable_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "key.pem"
    made = signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing_key(path).fingerprint == made.fingerprint
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    signing_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=r"key\.pem: others may read .* chmod 600"):
        signing_key(path)


def private_bytes(key: object, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined] # any kind of private key
    return pem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        private_bytes(rsa.generate_private_key(65537, 2048)),
        private_bytes(ed448.Ed448PrivateKey.generate()),
        private_bytes(Ed25519PrivateKey.generate(), b"secret"),
    ],
    ids=["empty", "garbage", "rsa", "ed448", "encrypted"],
)
def test_a_file_that_is_no_plain_ed25519_key_is_refused_by_name(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"key\.pem: (not an unencrypted|expected an Ed25519)"):
        signing_key(path)
    assert path.read_bytes() == content


def test_a_shared_key_is_trusted_and_named_by_its_fingerprint(tmp_path: Path) -> None:
    key = new_key()
    path = key.share(tmp_path / "trusted")
    assert path.name == f"{key.fingerprint}.pem"
    assert b"PRIVATE" not in path.read_bytes()
    assert TrustedKeys(path.parent).signer(b"value", key.sign(b"value")) == key.fingerprint


def test_sharing_twice_changes_nothing(tmp_path: Path) -> None:
    key = new_key()
    before = key.share(tmp_path).stat()
    assert key.share(tmp_path).stat() == before


def test_no_folder_and_an_empty_folder_trust_nobody(tmp_path: Path) -> None:
    key = new_key()
    assert TrustedKeys(tmp_path / "absent").signer(b"value", key.sign(b"value")) is None
    assert TrustedKeys(tmp_path).signer(b"value", key.sign(b"value")) is None


def test_a_strangers_signature_is_not_trusted(tmp_path: Path) -> None:
    new_key().share(tmp_path)
    assert TrustedKeys(tmp_path).signer(b"value", new_key().sign(b"value")) is None


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64), bytes(65), bytes(10_000)])
def test_a_malformed_signature_is_not_trusted(tmp_path: Path, signature: bytes) -> None:
    new_key().share(tmp_path)
    assert TrustedKeys(tmp_path).signer(b"value", signature) is None


def test_a_key_that_is_added_to_the_folder_counts_when_it_is_read_again(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    trusted = partial(TrustedKeys, tmp_path)
    assert trusted().signer(b"value", first.sign(b"value")) is None
    first.share(tmp_path)
    assert trusted().signer(b"value", first.sign(b"value")) == first.fingerprint
    second.share(tmp_path)
    assert trusted().signer(b"value", second.sign(b"value")) == second.fingerprint
    assert trusted().signer(b"value", first.sign(b"value")) == first.fingerprint


def test_files_that_are_no_public_key_do_not_harm_the_others(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "a.pem").write_bytes(b"garbage")
    (tmp_path / "b.pem").write_bytes(private_bytes(Ed25519PrivateKey.generate()))
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    (tmp_path / "c.pem").write_bytes(
        rsa_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "d.pem").mkdir()
    key.share(tmp_path)
    trusted = partial(TrustedKeys, tmp_path)
    assert trusted().signer(b"value", key.sign(b"value")) == key.fingerprint
    assert str(trusted()).split("; ") == [
        f"trusted in {tmp_path}: {key.fingerprint}",
        f"{tmp_path}/a.pem: not a public key in PEM",
        f"{tmp_path}/b.pem: a private key",
        f"{tmp_path}/c.pem: expected an Ed25519 key, got RSAPublicKey",
        f"[Errno 21] Is a directory: '{tmp_path}/d.pem'",
    ]
    assert trusted().fingerprints() == {key.fingerprint}


def test_a_half_written_key_trusts_nobody_until_it_is_whole(tmp_path: Path) -> None:
    key = new_key()
    path = key.share(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert TrustedKeys(tmp_path).signer(b"value", key.sign(b"value")) is None
    path.write_bytes(whole)
    assert TrustedKeys(tmp_path).signer(b"value", key.sign(b"value")) == key.fingerprint


def test_a_link_within_the_folder_is_followed_as_kubernetes_mounts_keys(tmp_path: Path) -> None:
    key = new_key()
    folder = tmp_path / "mounted"
    content = folder / "..2026_11_24"
    stored = key.share(content).rename(content / "trainer.pem")
    (folder / "..data").symlink_to(content.name)
    (folder / "trainer.pem").symlink_to(Path("..data", stored.name))
    assert TrustedKeys(folder).fingerprints() == {key.fingerprint}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    key = new_key()
    folder = tmp_path / "trusted"
    folder.mkdir()
    target = key.share(tmp_path / "elsewhere")
    (folder / "a.pem").symlink_to(target)
    (folder / "b.pem").symlink_to("/dev/zero")
    (folder / "c.pem").symlink_to("c.pem")
    trusted = partial(TrustedKeys, folder)
    assert trusted().signer(b"value", key.sign(b"value")) is None
    assert f"{folder}/a.pem: a link out of the folder, to {target}" in str(trusted())
    assert f"{folder}/b.pem: a link out of the folder, to /dev/zero" in str(trusted())
    assert "c.pem" in str(trusted())


def test_a_folder_that_is_itself_a_link_is_followed(tmp_path: Path) -> None:
    key = new_key()
    key.share(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert TrustedKeys(tmp_path / "link").fingerprints() == {key.fingerprint}


def test_a_pipe_or_a_huge_file_among_the_keys_is_not_read(tmp_path: Path) -> None:
    key = new_key()
    os.mkfifo(tmp_path / "a.pem")
    with (tmp_path / "b.pem").open("wb") as file:
        file.truncate(10**10)
    key.share(tmp_path)
    trusted = partial(TrustedKeys, tmp_path)
    assert trusted().fingerprints() == {key.fingerprint}
    assert f"{tmp_path}/a.pem: not a regular file" in str(trusted())
    assert f"{tmp_path}/b.pem: at most 10000 bytes, got 10000000000" in str(trusted())


def test_a_folder_that_everyone_may_write_trusts_nobody(tmp_path: Path) -> None:
    key = new_key()
    key.share(tmp_path)
    tmp_path.chmod(0o1777)
    trusted = partial(TrustedKeys, tmp_path)
    assert trusted().signer(b"value", key.sign(b"value")) is None
    assert f"{tmp_path}: everyone may write here; run: chmod o-w {tmp_path}" in str(trusted())
    tmp_path.chmod(0o775)
    assert trusted().fingerprints() == {key.fingerprint}


def test_a_key_file_that_everyone_may_write_is_not_trusted(tmp_path: Path) -> None:
    key = new_key()
    path = key.share(tmp_path)
    path.chmod(0o666)
    assert f"{path}: everyone may write here" in str(TrustedKeys(tmp_path))
    assert TrustedKeys(tmp_path).fingerprints() == set()


def test_what_everyone_may_write_is_trusted_where_it_is_mounted_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    key.share(tmp_path)
    tmp_path.chmod(0o1777)  # as Kubernetes mounts a secret
    mounted = os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 0))
    monkeypatch.setattr(os, "statvfs", lambda _: mounted)
    assert TrustedKeys(tmp_path).fingerprints() == {key.fingerprint}


@pytest.mark.parametrize(
    ("owner", "us", "mode", "refusal"),
    [
        (10001, 10001, 0o400, None),
        (10001, 10001, 0o440, "others may read"),
        (0, 10001, 0o440, None),  # as Kubernetes mounts a secret for the group of a container
        (0, 10001, 0o460, "others may read"),
        (0, 10001, 0o444, "others may read"),
        (0, 0, 0o440, "others may read"),
        (10002, 10001, 0o400, "belongs to user 10002, not to 10001"),
    ],
)
def test_a_private_key_is_ours_or_roots_and_nobody_elses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: int,
    us: int,
    mode: int,
    refusal: str | None,
) -> None:
    path = tmp_path / "key.pem"
    made = signing_key(path)
    found = list(path.stat())
    found[stat.ST_MODE], found[stat.ST_UID] = stat.S_IFREG | mode, owner
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(found))
    monkeypatch.setattr(os, "geteuid", lambda: us)
    if refusal is None:
        assert signing_key(path).fingerprint == made.fingerprint
    else:
        with pytest.raises(KeyFileError, match=refusal):
            signing_key(path)


def test_while_keys_are_rotated_both_are_trusted_and_a_revoked_one_is_not_trusted_again(
    tmp_path: Path,
) -> None:
    old, new = new_key(), new_key()
    trusted = partial(TrustedKeys, tmp_path)
    old.share(tmp_path)
    new.share(tmp_path)
    assert {trusted().signer(b"v", key.sign(b"v")) for key in (old, new)} == {
        old.fingerprint,
        new.fingerprint,
    }
    mark = revoke(old.fingerprint, tmp_path)
    assert mark.name == f"{old.fingerprint}.revoked"
    assert trusted().signer(b"v", old.sign(b"v")) is None
    assert trusted().signer(b"v", new.sign(b"v")) == new.fingerprint
    with pytest.raises(KeyFileError, match="this key was revoked; delete the file"):
        old.share(tmp_path)
    with pytest.raises(KeyFileError, match=f"no key {old.fingerprint} is trusted here"):
        revoke(old.fingerprint, tmp_path)


def test_a_key_that_stands_in_two_files_is_revoked_in_both(tmp_path: Path) -> None:
    key = new_key()
    path = key.share(tmp_path)
    (tmp_path / "copy.pem").write_bytes(path.read_bytes())
    revoke(key.fingerprint, tmp_path)
    assert TrustedKeys(tmp_path).fingerprints() == set()


def test_keys_may_come_and_go_while_the_folder_is_read(tmp_path: Path) -> None:
    kept = new_key()
    kept.share(tmp_path)
    trusted, end = partial(TrustedKeys, tmp_path), threading.Event()

    def change() -> None:
        while not end.is_set():
            key = new_key()
            key.share(tmp_path).unlink()
            key.share(tmp_path)
            revoke(key.fingerprint, tmp_path).unlink()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert trusted().signer(b"v", kept.sign(b"v")) == kept.fingerprint
    finally:
        end.set()
        thread.join()


def test_the_command_trusts_revokes_and_names_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trusted"
    monkeypatch.setenv("SIGNING_KEY", str(tmp_path / "none.pem"))
    monkeypatch.setenv("TRUSTED_KEYS", str(folder))
    key = new_key()
    theirs = key.share(tmp_path / "theirs")
    assert keys.main(["fingerprint", str(theirs)]) == 0
    assert capsys.readouterr().out == f"{key.fingerprint}\n"
    assert keys.main(["trust", str(theirs)]) == 0
    assert capsys.readouterr().out == f"trusted {key.fingerprint} {folder / theirs.name}\n"
    mark = folder / f"{key.fingerprint}.revoked"
    assert keys.main(["revoke", key.fingerprint]) == 0
    assert capsys.readouterr().out == f"revoked {key.fingerprint} {mark}\n"
    assert keys.main(["trust", str(theirs)]) == 1
    assert "this key was revoked" in capsys.readouterr().err
    assert keys.main([]) == 0
    assert f"revoked {key.fingerprint} {mark}\n" in capsys.readouterr().out
    assert keys.main(["trust", str(tmp_path / "absent.pem")]) == 1
    assert "absent.pem" in capsys.readouterr().err


def test_the_command_says_which_files_trust_nobody_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNING_KEY", str(tmp_path / "none.pem"))
    monkeypatch.setenv("TRUSTED_KEYS", str(tmp_path))
    (tmp_path / "a.pem").write_bytes(b"garbage")
    assert keys.main([]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/a.pem: not a public key in PEM\n"


def test_the_command_makes_a_pair_and_lists_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "key.pem", tmp_path / "trusted"
    monkeypatch.setenv("SIGNING_KEY", str(path))
    monkeypatch.setenv("TRUSTED_KEYS", str(folder))
    assert keys.main([]) == 0
    assert capsys.readouterr().out == f"signing not made yet {path}\n"
    assert not path.exists()

    assert keys.main(["make", str(path), "--trust", str(folder)]) == 0
    made = capsys.readouterr().out
    print_ = signing_key(path).fingerprint
    assert made == f"signing {print_} {path}\ntrusted {print_} {folder / print_}.pem\n"
    assert keys.main(["list"]) == 0
    assert capsys.readouterr().out == made


def test_the_command_never_overwrites_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.pem"
    before = signing_key(path).fingerprint
    assert keys.main(["make", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert signing_key(path).fingerprint == before


def test_the_command_warns_of_a_misspelt_setting_and_names_a_wrong_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNING_KEYS", str(tmp_path / "key.pem"))
    assert keys.main(["list"]) == 0
    assert capsys.readouterr().err == (
        "SIGNING_KEYS is not a setting and is ignored; the setting is called SIGNING_KEY\n"
    )
    monkeypatch.setenv("WINDOW", "many")
    assert keys.main(["list"]) == 2
    assert "WINDOW=many: " in capsys.readouterr().err


def test_a_folder_below_one_that_everyone_may_write_trusts_nobody(tmp_path: Path) -> None:
    key = new_key()
    above = tmp_path / "everyones"
    folder = above / "keys" / "trusted"
    key.share(folder)
    assert TrustedKeys(folder).fingerprints() == {key.fingerprint}
    above.chmod(0o777)
    assert TrustedKeys(folder).fingerprints() == frozenset()
    assert f"{above}: everyone may write here; run: chmod o-w {above}" in str(TrustedKeys(folder))
    above.chmod(0o1777)  # as /tmp: only its owner may replace what is in it
    assert TrustedKeys(folder).fingerprints() == {key.fingerprint}


@pytest.mark.parametrize("variable", ["SIGNING_KEY", "TRUSTED_KEYS"])
def test_a_key_for_which_there_is_no_room_is_named_and_is_made_once_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    paths = {"SIGNING_KEY": tmp_path / "own" / "key.pem", "TRUSTED_KEYS": tmp_path / "trusted"}
    settings = Settings.model_validate({name.lower(): path for name, path in paths.items()})
    full, link = paths[variable], os.link

    def fail(source: str, target: Path) -> None:
        if target.is_relative_to(full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)
        link(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "link", fail)
        with pytest.raises(Fatal, match=rf"^{variable}.*{tmp_path}.*\.pem: No space left"):
            own_key(settings, make=True)
    assert not [*tmp_path.glob("*/tmp*")]
    assert own_key(settings, make=True).fingerprint
