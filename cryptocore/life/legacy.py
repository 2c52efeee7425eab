"""Ciphertexts of before: AES-256-GCM as Node writes it, in whatever order its parts were put together. Only read.

A DEK that was used this way is imported as a version that encrypts nothing (importing.py), and `reencrypt` moves its
ciphertexts from here into envelopes.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cryptocore.dek import DEK_SIZE
from cryptocore.envelope import Owner
from cryptocore.errors import ConfigurationError, EnvelopeInvalid

TAG_SIZE: Final = 16
IV_SIZES: Final = range(12, 17)


class Part(StrEnum):
    """A part of a ciphertext."""

    IV = "iv"
    TAG = "tag"
    CIPHERTEXT = "ciphertext"


class Encoding(StrEnum):
    """How bytes were stored."""

    RAW = "raw"
    HEX = "hex"
    BASE64 = "base64"


def _nothing(_owner: Owner, _record: str) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class LegacyCipher:
    """How a service wrote its ciphertexts.

    Attributes:
        order: of the parts, each once; the default is what most examples for Node do.
        iv_size: 12 to 16 bytes; Node's `createCipheriv` takes what it is given.
        encoding: of the whole, or of each part where a separator stands between them.
        separator: between encoded parts, such as `:`; empty: none.
        associated_data: what `setAAD` was given for an owner and a record.
    """

    order: tuple[Part, ...] = (Part.IV, Part.TAG, Part.CIPHERTEXT)
    iv_size: int = 12
    encoding: Encoding = Encoding.RAW
    separator: str = ""
    associated_data: Callable[[Owner, str], bytes] = _nothing

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(Part):
            raise ConfigurationError("the order of a legacy ciphertext names iv, tag and ciphertext, each once")
        if self.iv_size not in IV_SIZES:
            raise ConfigurationError(f"a legacy iv has {IV_SIZES.start} to {IV_SIZES.stop - 1} bytes")
        if self.separator and self.encoding is Encoding.RAW:
            raise ConfigurationError("raw bytes have no separator")
        if any(char.isalnum() or char in "+/=" or not char.isascii() for char in self.separator):
            raise ConfigurationError("a separator that the encoding uses itself separates nothing")

    def open(self, dek: bytes, stored: bytes, *, owner: Owner, record: str) -> bytes:
        """Open a ciphertext.

        Raises:
            EnvelopeInvalid: it does not have these parts, or it does not open; which is not said.
        """
        if len(dek) != DEK_SIZE:
            raise EnvelopeInvalid("dek", f"not {DEK_SIZE} bytes") from None
        parts = self._parts(stored)
        try:
            return AESGCM(dek).decrypt(
                parts[Part.IV], parts[Part.CIPHERTEXT] + parts[Part.TAG], self.associated_data(owner, record)
            )
        except InvalidTag:
            raise _unreadable() from None

    def _parts(self, stored: bytes) -> dict[Part, bytes]:
        if self.separator:
            pieces = stored.split(self.separator.encode())
            if len(pieces) != len(self.order):
                raise _unreadable()
            parts = dict(zip(self.order, map(self._decoded, pieces), strict=True))
        else:
            parts = self._cut(self._decoded(stored))
        if len(parts[Part.IV]) != self.iv_size or len(parts[Part.TAG]) != TAG_SIZE:
            raise _unreadable()
        return parts

    def _cut(self, raw: bytes) -> dict[Part, bytes]:
        body = len(raw) - self.iv_size - TAG_SIZE
        if body < 0:
            raise _unreadable()
        sizes = {Part.IV: self.iv_size, Part.TAG: TAG_SIZE, Part.CIPHERTEXT: body}
        parts, at = {}, 0
        for part in self.order:
            parts[part] = raw[at : at + sizes[part]]
            at += sizes[part]
        return parts

    def _decoded(self, text: bytes) -> bytes:
        try:
            match self.encoding:
                case Encoding.HEX:
                    return bytes.fromhex(text.decode("ascii"))
                case Encoding.BASE64:
                    return base64.b64decode(text, validate=True)
                case Encoding.RAW:
                    return text
        except (ValueError, binascii.Error):
            raise _unreadable() from None


def _unreadable() -> EnvelopeInvalid:
    return EnvelopeInvalid("ciphertext", "not one of this legacy form, or it does not open")
