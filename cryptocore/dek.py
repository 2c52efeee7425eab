"""A DEK in use: it makes the key of each message, and does not show itself."""

from typing import Final, NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from cryptocore.errors import EnvelopeInvalid

DEK_SIZE: Final = 32
SUBKEY_NONCE_SIZE: Final = 12
"""The first bytes of a nonce choose the message's key; the rest is the nonce of AES-256-GCM under it."""

_FIRST_BLOCK: Final = b"\0\1X\0"
_SECOND_BLOCK: Final = b"\0\2X\0"


class Dek:
    """Derives message keys by the counter KDF of SP 800-108r1 with CMAC, label `X` (https://c2sp.org/XAES-256-GCM).

    The library's own KDF sets AES up for each message anew, which costs more than the message's encryption; here it is
    set up once, and each of the two blocks of a message key is one CMAC from there.
    """

    __slots__ = ("_mac", "_raw")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: bytes) -> None:
        if len(raw) != DEK_SIZE:
            raise EnvelopeInvalid("dek", f"not {DEK_SIZE} bytes") from None
        self._raw = raw
        self._mac = CMAC(AES(raw))

    def reveal(self) -> bytes:
        """Give out the 32 bytes."""
        return self._raw

    def cipher(self, nonce: bytes) -> AESGCM:
        """Set up AES-256-GCM for one message."""
        return AESGCM(self.subkey(nonce))

    def subkey(self, nonce: bytes) -> bytes:
        """Derive the key of the message with this nonce."""
        context = nonce[:SUBKEY_NONCE_SIZE]
        first, second = self._mac.copy(), self._mac.copy()
        first.update(_FIRST_BLOCK + context)
        second.update(_SECOND_BLOCK + context)
        return first.finalize() + second.finalize()

    def __repr__(self) -> str:
        return "Dek(...)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("a DEK is not compared")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DEK is neither pickled nor copied")
