import copy
import pickle
from hashlib import shake_128

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.dek import Dek
from cryptocore.envelope import (
    HEADER_SIZE,
    MAX_PLAINTEXT,
    TAG_SIZE,
    Header,
    Owner,
    associated_data,
    decrypt_envelope,
    encrypt_envelope,
    place_of,
)
from cryptocore.errors import DecryptionFailed, EnvelopeInvalid

KEY_ID = bytes(range(16))
DEK = bytes(range(32))
OWNER = Owner.tenant("t-88", "crm")
RECORD = "tokens/8f3c/access"

parts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
owners = st.one_of(st.builds(Owner.tenant, parts, parts), st.builds(Owner.secret, parts))


def encrypted(plaintext: bytes = b"token", owner: Owner = OWNER, record: str | bytes = RECORD) -> bytes:
    return encrypt_envelope(Dek(DEK), key_id=KEY_ID, key_version=3, owner=owner, record=record, plaintext=plaintext)


# Both published by C2SP, https://c2sp.org/XAES-256-GCM; the second takes the other branch of the CMAC subkey.
@pytest.mark.parametrize(
    ("key", "subkey", "data", "ciphertext"),
    [
        (
            b"\x01" * 32,
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
            b"",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        ),
        (
            b"\x03" * 32,
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
            b"c2sp.org/XAES-256-GCM",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ],
)
def test_the_construction_agrees_with_the_published_vectors(
    key: bytes, subkey: str, data: bytes, ciphertext: str
) -> None:
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"

    assert Dek(key).subkey(nonce).hex() == subkey
    assert Dek(key).cipher(nonce).encrypt(nonce[12:], b"XAES-256-GCM", data).hex() == ciphertext


def test_the_construction_agrees_with_ten_thousand_accumulated_messages() -> None:
    stream = shake_128(b"").digest(10_000 * (32 + 24 + 2 + 2 * 255))
    at = 0
    ciphertexts = []

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return stream[at - size : at]

    for _ in range(10_000):
        key, nonce = read(32), read(24)
        plaintext = read(read(1)[0])
        data = read(read(1)[0])
        ciphertexts.append(Dek(key).cipher(nonce).encrypt(nonce[12:], plaintext, data))

    published = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    assert shake_128(b"".join(ciphertexts)).hexdigest(32) == published


@given(st.binary(max_size=2000), owners, st.text(min_size=1, max_size=100) | st.binary(min_size=1, max_size=1024))
def test_what_was_encrypted_opens_for_its_owner_and_record(plaintext: bytes, owner: Owner, record: str | bytes) -> None:
    envelope = encrypted(plaintext, owner, record)

    assert decrypt_envelope(Dek(DEK), envelope, owner=owner, record=record) == plaintext
    assert len(envelope) == HEADER_SIZE + len(plaintext) + TAG_SIZE


@given(st.integers(0, 8 * (HEADER_SIZE + 5 + TAG_SIZE) - 1))
def test_every_changed_bit_is_noticed(bit: int) -> None:
    changed = bytearray(encrypted())
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises((DecryptionFailed, EnvelopeInvalid)):
        decrypt_envelope(Dek(DEK), bytes(changed), owner=OWNER, record=RECORD)


@pytest.mark.parametrize(
    ("dek", "owner", "record"),
    [
        (DEK[::-1], OWNER, RECORD),
        (DEK, Owner.tenant("t-89", "crm"), RECORD),
        (DEK, Owner.tenant("t-88", "crM"), RECORD),
        (DEK, OWNER, "tokens/8f3c/refresh"),
    ],
)
def test_another_key_owner_or_record_opens_nothing(dek: bytes, owner: Owner, record: str) -> None:
    with pytest.raises(DecryptionFailed) as caught:
        decrypt_envelope(Dek(dek), encrypted(), owner=owner, record=record)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_owner_and_record_do_not_run_into_each_other() -> None:
    header = encrypted()[:HEADER_SIZE]

    variants = {
        associated_data(header, Owner.tenant("ab", "c"), "d"),
        associated_data(header, Owner.tenant("a", "bc"), "d"),
        associated_data(header, Owner.tenant("a", "b"), "cd"),
        associated_data(header, Owner.secret("ab"), "cd"),
    }

    assert len(variants) == 4


def test_no_nonce_repeats() -> None:
    assert len({Header.parse(encrypted()).nonce for _ in range(1000)}) == 1000


def test_the_header_is_read_without_a_key() -> None:
    envelope = encrypted()

    header = Header.parse(envelope)

    assert (header.key_id, header.key_version) == (KEY_ID, 3)
    assert header.encode() == envelope[:HEADER_SIZE]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (b"", "envelope"),
        (encrypted()[: HEADER_SIZE + TAG_SIZE - 1], "envelope"),
        (encrypted() + bytes(MAX_PLAINTEXT), "envelope"),
        (b"kt" + encrypted()[2:], "magic"),
        (b"KT\x02" + encrypted()[3:], "suite"),
        (encrypted()[:19] + bytes(4) + encrypted()[23:], "key_version"),
    ],
)
def test_what_is_no_envelope_is_named(changed: bytes, field: str) -> None:
    with pytest.raises(EnvelopeInvalid) as caught:
        decrypt_envelope(Dek(DEK), changed, owner=OWNER, record=RECORD)

    assert caught.value.field == field


def test_a_mebibyte_is_the_most() -> None:
    assert decrypt_envelope(Dek(DEK), encrypted(bytes(MAX_PLAINTEXT)), owner=OWNER, record=RECORD) == bytes(
        MAX_PLAINTEXT
    )
    with pytest.raises(EnvelopeInvalid, match=r"^plaintext: "):
        encrypted(bytes(MAX_PLAINTEXT + 1))


@pytest.mark.parametrize("record", ["", b"", b"r" * 1025, "ü" * 513])
def test_a_record_has_1_to_1024_bytes(record: str | bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match=r"^record: "):
        encrypted(record=record)


@pytest.mark.parametrize(
    ("key_id", "key_version", "dek", "field"),
    [
        (KEY_ID[1:], 1, DEK, "key_id"),
        (KEY_ID, 0, DEK, "key_version"),
        (KEY_ID, 2**32, DEK, "key_version"),
        (KEY_ID, 1, DEK[1:], "dek"),
    ],
)
def test_an_argument_beyond_its_limit_is_named(key_id: bytes, key_version: int, dek: bytes, field: str) -> None:
    with pytest.raises(EnvelopeInvalid) as caught:
        encrypt_envelope(Dek(dek), key_id=key_id, key_version=key_version, owner=OWNER, record=RECORD, plaintext=b"")

    assert caught.value.field == field


@given(owners)
def test_an_owner_is_read_back_from_its_bytes(owner: Owner) -> None:
    assert Owner.decode(owner.encode()) == owner


def test_an_owner_is_written_as_the_format_says() -> None:
    assert OWNER.encode() == b"\x01\x00\x04t-88\x00\x03crm"
    assert Owner.secret("smtp").encode() == b"\x02\x00\x04smtp"
    assert OWNER.ref().tenant_id == "t-88"


@given(st.binary(max_size=40))
def test_bytes_are_one_owner_or_none(raw: bytes) -> None:
    try:
        owner = Owner.decode(raw)
    except EnvelopeInvalid:
        return
    assert owner.encode() == raw


@pytest.mark.parametrize("name", ["", "a b", "ü", "x" * 129, "tab\t", "\x7f"])
def test_a_part_of_an_owner_is_visible_ascii(name: str) -> None:
    for make in (Owner.secret, lambda part: Owner.tenant(part, "i"), lambda part: Owner.tenant("t", part)):
        with pytest.raises(EnvelopeInvalid, match=r"^owner\."):
            make(name)
    with pytest.raises(EnvelopeInvalid):
        Owner(tenant_id="t")


def test_a_text_is_refused_with_what_to_do() -> None:
    with pytest.raises(EnvelopeInvalid, match="plaintext: not bytes: encode a text first"):
        place_of("tokens/17/access", "a token")  # type: ignore[arg-type]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24))
def test_message_keys_are_those_of_the_librarys_key_derivation(key: bytes, nonce: bytes) -> None:
    derived = KBKDFCMAC(
        algorithm=AES,
        mode=Mode.CounterMode,
        length=32,
        rlen=2,
        llen=None,
        location=CounterLocation.BeforeFixed,
        label=None,
        context=None,
        fixed=b"X\0" + nonce[:12],
    ).derive(key)

    assert Dek(key).subkey(nonce) == derived


def test_a_dek_does_not_show_itself() -> None:
    dek = Dek(DEK)

    assert DEK.hex() not in repr(dek) + str(dek)
    for act in (lambda: pickle.dumps(dek), lambda: copy.copy(dek), lambda: copy.deepcopy(dek), lambda: dek == Dek(DEK)):
        with pytest.raises(TypeError, match="a DEK is"):
            act()
