import copy
import pickle
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.errors import ConfigurationError, FormatError
from cryptocore.signing import KEY_RECORD, SEALED_BATCH, SignatureInvalid, Signer, signer_id_of, verify

# RFC 8032, section 7.1, TEST 1: the public key that belongs to this private key.
PRIVATE = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


@given(st.binary(max_size=300))
def test_a_signature_holds_for_its_label_and_message_only(message: bytes) -> None:
    signer = Signer.from_private_bytes(PRIVATE)
    signature = signer.sign(SEALED_BATCH, message)

    verify(signer.public_key, SEALED_BATCH, message, signature)
    for key, label, said, made in (
        (signer.public_key, KEY_RECORD, message, signature),
        (signer.public_key, SEALED_BATCH, message + b"\0", signature),
        (signer.public_key, SEALED_BATCH, message, signature[:-1]),
        (signer.public_key, SEALED_BATCH, message, bytes(64)),
        (Signer.generate().public_key, SEALED_BATCH, message, signature),
        (b"short", SEALED_BATCH, message, signature),
    ):
        with pytest.raises(SignatureInvalid) as caught:
            verify(key, label, said, made)
        assert isinstance(caught.value, FormatError)
        assert caught.value.field == "signature"


def test_the_label_ends_with_a_zero_byte() -> None:
    signer = Signer.from_private_bytes(PRIVATE)

    assert signer.sign("ab", b"c") != signer.sign("a", b"bc")
    assert signer.sign("ab", b"c") == Ed25519PrivateKey.from_private_bytes(PRIVATE).sign(b"ab\0c")


def test_a_signer_is_named_by_its_public_key() -> None:
    signer = Signer.from_private_bytes(PRIVATE)

    assert signer.public_key == PUBLIC
    assert signer.signer_id == signer_id_of(PUBLIC) == sha256(PUBLIC).digest()[:16]


def test_a_signer_shows_no_private_key() -> None:
    signer = Signer.from_private_bytes(PRIVATE)

    assert PRIVATE.hex() not in repr(signer)
    assert repr(PRIVATE) not in repr(signer)
    assert not hasattr(signer, "__dict__")
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            use(signer)


@pytest.mark.parametrize("content", [PRIVATE, PRIVATE.hex().encode(), PRIVATE.hex().encode() + b"\n"])
def test_a_key_file_holds_bytes_or_hex(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "signer.key"
    path.write_bytes(content)
    path.chmod(0o600)

    assert Signer.from_file(path).public_key == PUBLIC


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signer.key"
    path.write_bytes(PRIVATE)
    path.chmod(mode)

    with pytest.raises(ConfigurationError, match="only its owner can read"):
        Signer.from_file(path)


@pytest.mark.parametrize("content", [b"", PRIVATE[1:], PRIVATE.hex().encode() + b"00", b"z" * 64, b"\xff" * 64])
def test_a_file_that_holds_no_key_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "signer.key"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError) as caught:
        Signer.from_file(path)

    assert PRIVATE.hex()[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        Signer.from_file(tmp_path / "none")


def test_a_key_is_written_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    signer = Signer.generate()

    signer.write_file(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.from_file(path).public_key == signer.public_key
    with pytest.raises(ConfigurationError, match="exists"):
        signer.write_file(path)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="32 bytes, not 31"):
        Signer.from_private_bytes(PRIVATE[1:])
