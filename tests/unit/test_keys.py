from __future__ import annotations

import stat
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
from stream.keys import KeyFileError, SigningKey, TrustedKeys, signing_key


def new_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


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


def test_the_folder_is_read_again_when_a_signature_is_unknown(tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    trusted = TrustedKeys(tmp_path)
    assert trusted.signer(b"value", first.sign(b"value")) is None
    first.share(tmp_path)
    assert trusted.signer(b"value", first.sign(b"value")) == first.fingerprint
    second.share(tmp_path)
    assert trusted.signer(b"value", second.sign(b"value")) == second.fingerprint
    assert trusted.signer(b"value", first.sign(b"value")) == first.fingerprint


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
    trusted = TrustedKeys(tmp_path)
    assert trusted.signer(b"value", key.sign(b"value")) == key.fingerprint
    assert str(trusted) == f"trusted in {tmp_path}: {key.fingerprint}"


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
