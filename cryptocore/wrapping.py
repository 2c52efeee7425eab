"""The DEK under a KEK: the blob that is wrapped, what is checked when it comes back, and the port of whoever wraps.

The blob names the key version and the owner inside the ciphertext, so that a wrapped DEK moved to another row opens as
nothing. Errors here are raised `from None`: what they would chain may hold key material.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NoReturn, Protocol
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.padding import OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cryptocore.clock import Clock, SystemClock, rfc3339
from cryptocore.dek import DEK_SIZE
from cryptocore.envelope import KEY_ID_SIZE, MAX_KEY_VERSION, Owner, Suite
from cryptocore.errors import Failed, FormatError
from cryptocore.events import Reason, VaultAttempt
from cryptocore.life.bare import PADDINGS, BareWrap

BLOB_SIZE: Final = 65
COMMITMENT_SIZE: Final = 32
BINDING_LABEL: Final = b"keytrail/dek-binding/v1\0"
COMMITMENT_LABEL: Final = b"keytrail/dek-commitment/v1\0"

_BLOB_FORMAT: Final = b"\x01"
_KEY: Final = struct.Struct(">B16sI")
_DEK_AT: Final = 1 + COMMITMENT_SIZE


class BlobInvalid(FormatError):
    """What came out of the KEK is not the DEK of this key version and owner."""


class WrapAlgorithm(IntEnum):
    """How a DEK is wrapped; the number is the `wrap_alg` byte of key records."""

    RSA_OAEP_256 = 1
    LOCAL = 2


class Secret:
    """Key material in memory: it does not print, pickle, copy, hash or compare, and shows itself only when asked."""

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def reveal(self) -> bytes:
        """Give out the bytes."""
        return self._raw

    def same_as(self, other: "Secret") -> bool:
        """Compare in constant time."""
        return compare_digest(self._raw, other.reveal())

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are compared by same_as, in constant time")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


def build_blob(dek: bytes, suite: Suite, key_id: bytes, version: int, owner: Owner) -> bytes:
    """Write what is wrapped: `0x01 | binding(32) | DEK(32)`.

    Raises:
        BlobInvalid: an argument has another size.
    """
    if len(dek) != DEK_SIZE:
        raise BlobInvalid("dek", f"not {DEK_SIZE} bytes") from None
    return _BLOB_FORMAT + _binding(suite, key_id, version, owner) + dek


def open_blob(blob: bytes, suite: Suite, key_id: bytes, version: int, owner: Owner) -> bytes:
    """Take the DEK out of what was unwrapped; what is compared is compared in constant time.

    Raises:
        BlobInvalid: it is no blob, or that of another key version or owner.
    """
    if len(blob) != BLOB_SIZE:
        raise BlobInvalid("blob", f"not {BLOB_SIZE} bytes") from None
    expected = _BLOB_FORMAT + _binding(suite, key_id, version, owner)
    if not compare_digest(blob[:_DEK_AT], expected):
        raise BlobInvalid("binding", "made for another key version or owner") from None
    return blob[_DEK_AT:]


def commitment(dek: bytes, suite: Suite, key_id: bytes, version: int) -> bytes:
    """Commit to a DEK: the key record holds this, so that an unwrapped DEK can be told from any other.

    Raises:
        BlobInvalid: an argument has another size.
    """
    if len(dek) != DEK_SIZE:
        raise BlobInvalid("dek", f"not {DEK_SIZE} bytes") from None
    info = COMMITMENT_LABEL + _key(suite, key_id, version)
    return HKDF(algorithm=SHA256(), length=COMMITMENT_SIZE, salt=b"", info=info).derive(dek)


def check_commitment(expected: bytes, dek: bytes, suite: Suite, key_id: bytes, version: int) -> None:
    """Compare an unwrapped DEK with its record's commitment, in constant time.

    Raises:
        BlobInvalid: it is another DEK.
    """
    if not compare_digest(commitment(dek, suite, key_id, version), expected):
        raise BlobInvalid("commitment", "not that of this DEK") from None


def _binding(suite: Suite, key_id: bytes, version: int, owner: Owner) -> bytes:
    return sha256(BINDING_LABEL + _key(suite, key_id, version) + owner.encode()).digest()


def _key(suite: Suite, key_id: bytes, version: int) -> bytes:
    if len(key_id) != KEY_ID_SIZE or not 1 <= version <= MAX_KEY_VERSION:
        raise BlobInvalid("key", f"an id of {KEY_ID_SIZE} bytes and a version from 1") from None
    return _KEY.pack(suite, key_id, version)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """The answer to a wrap: the wrapped DEK, the KEK version that wrapped it, and every request it took."""

    wrapped_dek: bytes = field(repr=False)
    kek_version: str
    attempts: tuple[VaultAttempt, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Unwrapped:
    """The answer to an unwrap: the blob, and every request it took."""

    blob: bytes = field(repr=False)
    attempts: tuple[VaultAttempt, ...]


class VaultCallFailed(Failed):
    """No attempt succeeded. It holds no SDK object: those hold the request's body.

    Attributes:
        reason: what the audit event says.
        attempts: every request that was made, perhaps none.
        retry_after_s: how long the vault asked to be left alone.
    """

    def __init__(
        self,
        reason: Reason,
        attempts: tuple[VaultAttempt, ...],
        *,
        retryable: bool,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"the vault call failed: {reason}", retryable=retryable)
        self.reason = reason
        self.attempts = attempts
        self.retry_after_s = retry_after_s


class KeyWrapper(Protocol):
    """One KEK. `kek_alias` is what key records name; `vault` and `name`, in lower case, are what events name."""

    kek_alias: str
    vault: str
    name: str

    def draw_call_ids(self) -> tuple[str, ...]:
        """Draw the id of every request that one call may make; they go into the intent before the call."""

    async def current_version(self) -> str:
        """Name the KEK version that new wraps use."""

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        """Wrap under exactly this KEK version.

        Raises:
            VaultCallFailed: it could not be had.
        """

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        """Unwrap with exactly this KEK version.

        Raises:
            VaultCallFailed: it could not be had.
        """


def algorithm_of(wrapper: KeyWrapper) -> WrapAlgorithm:
    """Say what key records made with this wrapper name."""
    return WrapAlgorithm.LOCAL if isinstance(wrapper, LocalKeyWrapper) else WrapAlgorithm.RSA_OAEP_256


_OAEP: Final = PADDINGS[BareWrap.RSA_OAEP_256]
_PUBLIC_EXPONENT: Final = 65537
_RSA_BITS: Final = 2048


def _draw_uuid() -> str:
    return str(uuid4())


class LocalKeyWrapper:
    """A KEK in this process, for tests and the demo. No vault sees its calls, so no vault log accounts for them.

    Reached through this constructor only; no setting leads here.

    Args:
        kek_alias: what key records name.
        keys: KEK versions, oldest first; one is drawn where none is given.
        clock: for the times of its attempts.
        draw_id: gives a new UUID.
    """

    vault = "local"

    def __init__(
        self,
        kek_alias: str,
        *,
        keys: Mapping[str, RSAPrivateKey] | None = None,
        name: str = "local-kek",
        clock: Clock | None = None,
        draw_id: Callable[[], str] = _draw_uuid,
    ) -> None:
        self.kek_alias = kek_alias
        self.name = name
        self._keys = dict(keys or {})
        self._disabled: set[str] = set()
        self._clock = clock or SystemClock()
        self._draw_id = draw_id
        if not self._keys:
            self.rotate()

    def rotate(self) -> str:
        """Draw a new KEK version and name it; the old ones still unwrap."""
        version = str(len(self._keys) + 1)
        self._keys[version] = generate_private_key(_PUBLIC_EXPONENT, _RSA_BITS)
        return version

    def disable(self, version: str) -> None:
        """Refuse this version from now on."""
        self._disabled.add(version)

    def draw_call_ids(self) -> tuple[str, ...]:
        """Draw one id: a call in the process is made once."""
        return (self._draw_id(),)

    async def current_version(self) -> str:
        return next(reversed(self._keys))

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        started_at = self._now()
        key = self._key(version, call_ids, started_at)
        wrapped_dek = key.public_key().encrypt(blob, _OAEP)
        return Wrapped(wrapped_dek=wrapped_dek, kek_version=version, attempts=self._attempts(call_ids, started_at))

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        return self._unwrapped(wrapped_dek, _OAEP, version, call_ids)

    async def unwrap_bare(
        self, wrapped_dek: bytes, *, algorithm: BareWrap, version: str, call_ids: tuple[str, ...]
    ) -> Unwrapped:
        return self._unwrapped(wrapped_dek, PADDINGS[algorithm], version, call_ids)

    def _unwrapped(self, wrapped_dek: bytes, padding: OAEP, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        started_at = self._now()
        key = self._key(version, call_ids, started_at)
        try:
            blob = key.decrypt(wrapped_dek, padding)
        except ValueError:
            attempts = self._attempts(call_ids, started_at)
            raise VaultCallFailed(Reason.VAULT_ERROR, attempts, retryable=False) from None
        return Unwrapped(blob=blob, attempts=self._attempts(call_ids, started_at))

    def _key(self, version: str, call_ids: tuple[str, ...], started_at: str) -> RSAPrivateKey:
        key = self._keys.get(version)
        if key is None or version in self._disabled:
            reason = Reason.VAULT_NOT_FOUND if key is None else Reason.VAULT_DENIED
            raise VaultCallFailed(reason, self._attempts(call_ids, started_at), retryable=False)
        return key

    def _attempts(self, call_ids: tuple[str, ...], started_at: str) -> tuple[VaultAttempt, ...]:
        return (VaultAttempt(call_id=call_ids[0], started_at=started_at, ended_at=self._now()),)

    def _now(self) -> str:
        return rfc3339(self._clock.now_us())
