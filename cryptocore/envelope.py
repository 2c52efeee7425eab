"""The envelope: whose data it is, where it lives, and its ciphertext under a DEK.

Encrypts and opens with a DEK that somebody else found, judged and unwrapped. The one suite is XAES-256-GCM: AES-256-GCM
under a subkey made for each message from half of its 192-bit nonce, so that random nonces are safe for 2^80 messages
and a fleet that shares a DEK needs no counter (https://c2sp.org/XAES-256-GCM).
"""

import os
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from cryptocore.dek import SUBKEY_NONCE_SIZE, Dek
from cryptocore.errors import DecryptionFailed, EnvelopeInvalid
from cryptocore.events import OwnerRef

KEY_ID_SIZE: Final = 16
NONCE_SIZE: Final = 24
TAG_SIZE: Final = 16
HEADER_SIZE: Final = 47
MAX_PLAINTEXT: Final = 1024 * 1024
MAX_RECORD: Final = 1024
MAX_OWNER_PART: Final = 128
MAX_KEY_VERSION: Final = 2**32 - 1
ENVELOPE_LABEL: Final = b"keytrail/envelope/v1\0"

_MAGIC: Final = b"KT"
_HEADER: Final = struct.Struct(">2sB16sI24s")
_LENGTH: Final = struct.Struct(">H")
_TENANT: Final = 0x01
_SECRET: Final = 0x02
_FIRST_VISIBLE: Final = 0x21
_LAST_VISIBLE: Final = 0x7E


class Suite(IntEnum):
    """How data is encrypted; the envelope's version byte."""

    XAES_256_GCM = 1


def lp16(part: bytes) -> bytes:
    """Put the length of `part`, two bytes, in front of it."""
    return _LENGTH.pack(len(part)) + part


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is: a tenant's integration, or a secret of our own. Made by `tenant`, `secret` and `decode`."""

    tenant_id: str | None = None
    integration_id: str | None = None
    secret_name: str | None = None
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoded", _encode_owner(self))

    @classmethod
    def tenant(cls, tenant_id: str, integration_id: str) -> "Owner":
        """Name an integration of a tenant.

        Raises:
            EnvelopeInvalid: a part is not 1 to 128 visible ASCII characters.
        """
        return cls(tenant_id=tenant_id, integration_id=integration_id)

    @classmethod
    def secret(cls, name: str) -> "Owner":
        """Name a secret of our own.

        Raises:
            EnvelopeInvalid: the name is not 1 to 128 visible ASCII characters.
        """
        return cls(secret_name=name)

    @classmethod
    def decode(cls, raw: bytes) -> "Owner":
        """Read what `encode` writes.

        Raises:
            EnvelopeInvalid: it is something else.
        """
        parts, rest = [], raw[1:]
        while rest:
            size = _LENGTH.unpack_from(rest)[0] if len(rest) >= _LENGTH.size else len(rest)
            parts.append(rest[_LENGTH.size : _LENGTH.size + size].decode("latin-1"))
            rest = rest[_LENGTH.size + size :]
        match raw[:1], parts:
            case b"\x01", [tenant_id, integration_id]:
                owner = cls.tenant(tenant_id, integration_id)
            case b"\x02", [name]:
                owner = cls.secret(name)
            case _:
                raise EnvelopeInvalid("owner", "neither a tenant's integration nor a secret's name")
        if owner.encode() != raw:
            raise EnvelopeInvalid("owner", "cut short")
        return owner

    def encode(self) -> bytes:
        """Give the canonical bytes."""
        return self._encoded

    def digest(self) -> bytes:
        """Give what key records hold: SHA-256 of the canonical bytes."""
        return sha256(self._encoded).digest()

    def ref(self) -> OwnerRef:
        """Give what audit events hold."""
        return OwnerRef(tenant_id=self.tenant_id, integration_id=self.integration_id, secret_name=self.secret_name)


def tenant_prefix(tenant_id: str) -> bytes:
    """Give what the canonical bytes of every owner of a tenant begin with; all of them lie below it and 0xff.

    Raises:
        EnvelopeInvalid: it is not 1 to 128 visible ASCII characters.
    """
    return bytes([_TENANT]) + lp16(_owner_part("owner.tenant_id", tenant_id))


def _encode_owner(owner: Owner) -> bytes:
    if owner.secret_name is not None and owner.tenant_id is None and owner.integration_id is None:
        return bytes([_SECRET]) + lp16(_owner_part("owner.secret_name", owner.secret_name))
    if owner.secret_name is None and owner.tenant_id is not None and owner.integration_id is not None:
        integration_id = _owner_part("owner.integration_id", owner.integration_id)
        return tenant_prefix(owner.tenant_id) + lp16(integration_id)
    raise EnvelopeInvalid("owner", "either a tenant's integration or a secret's name")


def _owner_part(name: str, text: str) -> bytes:
    if not 1 <= len(text) <= MAX_OWNER_PART or not all(_FIRST_VISIBLE <= ord(char) <= _LAST_VISIBLE for char in text):
        raise EnvelopeInvalid(name, f"not 1 to {MAX_OWNER_PART} visible ASCII characters")
    return text.encode("ascii")


class Header(NamedTuple):
    """The first 47 bytes of an envelope: which key, which version, which nonce. Not authentic before it is opened."""

    key_id: bytes
    key_version: int
    nonce: bytes
    suite: Suite = Suite.XAES_256_GCM

    @classmethod
    def parse(cls, envelope: bytes) -> "Header":
        """Read the header of an envelope.

        Raises:
            EnvelopeInvalid: it is none of version 1, or too short or too long for one.
        """
        if not HEADER_SIZE + TAG_SIZE <= len(envelope) <= HEADER_SIZE + MAX_PLAINTEXT + TAG_SIZE:
            raise EnvelopeInvalid("envelope", "too short or too long")
        magic, suite, key_id, key_version, nonce = _HEADER.unpack_from(envelope)
        if magic != _MAGIC:
            raise EnvelopeInvalid("magic", "not an envelope")
        if suite != Suite.XAES_256_GCM:
            raise EnvelopeInvalid("suite", "not XAES-256-GCM")
        if key_version == 0:
            raise EnvelopeInvalid("key_version", "counted from 1")
        return cls(key_id=key_id, key_version=key_version, nonce=nonce)

    def encode(self) -> bytes:
        """Write the 47 bytes.

        Raises:
            EnvelopeInvalid: a field is out of range.
        """
        if len(self.key_id) != KEY_ID_SIZE:
            raise EnvelopeInvalid("key_id", f"not {KEY_ID_SIZE} bytes")
        if not 1 <= self.key_version <= MAX_KEY_VERSION:
            raise EnvelopeInvalid("key_version", "counted from 1, four bytes")
        return _HEADER.pack(_MAGIC, self.suite, self.key_id, self.key_version, self.nonce)


def associated_data(header: bytes, owner: Owner, record: str | bytes) -> bytes:
    """Bind a ciphertext to its header, its owner and the place where it lives.

    Args:
        header: the 47 bytes.
        owner: whose it is.
        record: where it lives, such as `tokens/8f3c/access`; text counts as UTF-8; 1 to 1024 bytes.

    Raises:
        EnvelopeInvalid: `record` is empty or too long.
    """
    place = place_of(record)
    return b"".join((ENVELOPE_LABEL, header, owner.encode(), _LENGTH.pack(len(place)), place))


def place_of(record: str | bytes, plaintext: bytes = b"") -> bytes:
    """Check what a caller gives before anything is done with it; write the record in UTF-8.

    Raises:
        EnvelopeInvalid: `record` is empty, too long or no text, or the plaintext is too long.
    """
    if not isinstance(plaintext, bytes | bytearray | memoryview):
        raise EnvelopeInvalid("plaintext", "not bytes: encode a text first")
    if len(plaintext) > MAX_PLAINTEXT:
        raise EnvelopeInvalid("plaintext", f"longer than {MAX_PLAINTEXT} bytes")
    try:
        place = record.encode("utf-8") if isinstance(record, str) else record
    except UnicodeEncodeError:
        raise EnvelopeInvalid("record", "not a text that UTF-8 can write") from None
    if not 1 <= len(place) <= MAX_RECORD:
        raise EnvelopeInvalid("record", f"not 1 to {MAX_RECORD} bytes")
    return place


def encrypt_envelope(
    dek: Dek,
    *,
    key_id: bytes,
    key_version: int,
    owner: Owner,
    record: str | bytes,
    plaintext: bytes,
) -> bytes:
    """Encrypt `plaintext` of 0 to 1 MiB under a fresh random nonce.

    Raises:
        EnvelopeInvalid: an argument is beyond its limit; the message names it.
    """
    nonce = os.urandom(NONCE_SIZE)
    return _encrypt(dek, Header(key_id=key_id, key_version=key_version, nonce=nonce), owner, record, plaintext)


def decrypt_envelope(dek: Dek, envelope: bytes, *, owner: Owner, record: str | bytes) -> bytes:
    """Open an envelope.

    The caller still owes everything before it: the verified key record, the owner check, the state of the version.

    Raises:
        EnvelopeInvalid: not an envelope of version 1.
        DecryptionFailed: another key, owner or record, or changed bytes.
    """
    header = Header.parse(envelope)
    data = associated_data(envelope[:HEADER_SIZE], owner, record)
    try:
        return dek.cipher(header.nonce).decrypt(header.nonce[SUBKEY_NONCE_SIZE:], envelope[HEADER_SIZE:], data)
    except InvalidTag:
        raise DecryptionFailed("the ciphertext cannot be opened") from None


def _encrypt(dek: Dek, header: Header, owner: Owner, record: str | bytes, plaintext: bytes) -> bytes:
    """Encrypt under the header's nonce. Private, since a nonce used twice gives the plaintexts away."""
    if len(plaintext) > MAX_PLAINTEXT:
        raise EnvelopeInvalid("plaintext", f"longer than {MAX_PLAINTEXT} bytes")
    raw = header.encode()
    data = associated_data(raw, owner, record)
    return raw + dek.cipher(header.nonce).encrypt(header.nonce[SUBKEY_NONCE_SIZE:], plaintext, data)
