"""Ed25519 signatures with a label in front, so that a signature made for one purpose is worth nothing for another.

A signer is known by the first 16 bytes of the SHA-256 of its public key. Whom to believe is registry.py's business.
"""

import os
import stat
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cryptocore.errors import ConfigurationError, FormatError

SEALED_BATCH: Final = "keytrail/sealed-batch/v1"
KEY_RECORD: Final = "keytrail/key-record/v1"
APPROVAL: Final = "keytrail/approval/v1"
OUTBOX: Final = "keytrail/outbox/v1"
OUTBOX_SENT: Final = "keytrail/outbox-sent/v1"
OUTBOX_CHECKED: Final = "keytrail/outbox-checked/v1"
STATEMENT: Final = "keytrail/statement/v1"

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
SIGNER_ID_SIZE: Final = 16

_OTHERS_MAY: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_FILE: Final = 2 * KEY_SIZE + 1


class SignatureInvalid(FormatError):
    """The signature is not this key's over this label and message."""


class Signer:
    """A private key and what may be said about it aloud. Printing, comparing and pickling show no key."""

    __slots__ = ("_private", "public_key", "signer_id")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_key: Final = private.public_key().public_bytes_raw()
        self.signer_id: Final = signer_id_of(self.public_key)

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, raw: bytes) -> Self:
        """Take the 32 bytes of a key.

        Raises:
            ConfigurationError: another length.
        """
        if len(raw) != KEY_SIZE:
            raise ConfigurationError(f"a signing key has {KEY_SIZE} bytes, not {len(raw)}") from None
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a key from a file: its 32 bytes, or 64 hex digits and perhaps a newline.

        Raises:
            ConfigurationError: the file cannot be read, is readable by group or others, or holds something else.
        """
        try:
            with Path(path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(_MAX_FILE + 1)
        except OSError as err:
            raise ConfigurationError(f"signing key {path}: {err.strerror}") from err
        if not stat.S_ISREG(mode) or mode & _OTHERS_MAY:
            raise ConfigurationError(f"signing key {path}: must be a file that only its owner can read (mode 0600)")
        if len(content) == KEY_SIZE:
            return cls.from_private_bytes(content)
        try:
            return cls.from_private_bytes(bytes.fromhex(content.decode("ascii")))
        except ValueError:
            raise ConfigurationError(f"signing key {path}: neither 32 bytes nor 64 hex digits") from None

    def write_file(self, path: str | os.PathLike[str]) -> None:
        """Write the key as 64 hex digits into a new file that only its owner can read.

        Raises:
            ConfigurationError: the file exists or cannot be written.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as err:
            raise ConfigurationError(f"signing key {path}: {err.strerror}") from err
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(self.private_bytes().hex() + "\n")

    def private_bytes(self) -> bytes:
        """Give out the key itself, for whoever has to store it."""
        return self._private.private_bytes_raw()

    def sign(self, label: str, message: bytes) -> bytes:
        """Sign `label | 0x00 | message`."""
        return self._private.sign(_labelled(label, message))

    def __repr__(self) -> str:
        return f"Signer({self.signer_id.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("a signer holds a private key and is not pickled")


def signer_id_of(public_key: bytes) -> bytes:
    """Name a public key."""
    return sha256(public_key).digest()[:SIGNER_ID_SIZE]


def verify(public_key: bytes, label: str, message: bytes, signature: bytes) -> None:
    """Check a signature made by `Signer.sign`.

    Raises:
        SignatureInvalid: it does not hold, or the key is none.
    """
    try:
        _load(public_key).verify(signature, _labelled(label, message))
    except (InvalidSignature, ValueError) as err:
        raise SignatureInvalid("signature", f"does not hold for {label}") from err


@lru_cache(maxsize=1024)
def _load(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


def _labelled(label: str, message: bytes) -> bytes:
    return b"%b\0%b" % (label.encode("ascii"), message)
