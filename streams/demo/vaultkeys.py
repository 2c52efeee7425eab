"""The keys of one local vault and their life: versions, enabled and expiry, soft delete, purge.

Pure but for key generation. Refusals are `VaultError` with the status, code and wording family of the real service.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

KEY_SIZE = 2048
RETENTION_S = 90 * 24 * 3600
"""How long a deleted key can be recovered; then the vault purges it."""
OPERATIONS = ("encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey")
_OAEP = {
    "RSA-OAEP": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),  # noqa: S303 - the algorithm's name
    "RSA-OAEP-256": padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
}


class VaultError(Exception):
    """A refusal of the vault: HTTP status, error code, inner code and the sentence that its log repeats."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner


@dataclass(slots=True)
class KeyVersion:
    """One version; the private key never leaves it."""

    id: str
    private: rsa.RSAPrivateKey = field(repr=False)
    created_us: int
    enabled: bool = True
    expires_s: int | None = None
    operations: tuple[str, ...] = OPERATIONS


@dataclass(slots=True)
class VaultKey:
    """A key by name, its versions oldest first."""

    name: str
    versions: dict[str, KeyVersion]
    deleted_us: int | None = None

    def version(self, ident: str | None) -> KeyVersion:
        found = self.versions[next(reversed(self.versions))] if not ident else self.versions.get(ident)
        if found is None:
            raise _missing(f"{self.name}/{ident}")
        return found


class Keys:
    """All keys of one vault, deleted ones apart until they are purged.

    Args:
        host: the vault's host, for key ids.
        ids: source of version ids (n random bytes).
    """

    def __init__(self, host: str, *, ids: Callable[[int], bytes]) -> None:
        self.host = host
        self._ids = ids
        self._kept: dict[str, VaultKey] = {}
        self._deleted: dict[str, VaultKey] = {}

    def get(self, name: str) -> VaultKey:
        key = self._kept.get(name)
        if key is None:
            raise _missing(name)
        return key

    def names(self) -> list[str]:
        return list(self._kept)

    def deleted_names(self) -> list[str]:
        return list(self._deleted)

    def create(
        self, name: str, now_us: int, *, size: int = KEY_SIZE, operations: tuple[str, ...] = OPERATIONS
    ) -> KeyVersion:
        """Make the key, or its next version."""
        if name in self._deleted:
            raise VaultError(409, "Conflict", f"Key {name} is currently in a deleted but recoverable state.")
        private = rsa.generate_private_key(public_exponent=65537, key_size=size)
        version = KeyVersion(self._ids(16).hex(), private, now_us, operations=operations)
        self._kept.setdefault(name, VaultKey(name, {})).versions[version.id] = version
        return version

    def rotate(self, name: str, now_us: int) -> KeyVersion:
        """Make the next version of a key that is there, like the one before."""
        last = self.get(name).version(None)
        return self.create(name, now_us, size=last.private.key_size, operations=last.operations)

    def delete(self, name: str, now_us: int) -> VaultKey:
        key = self._deleted[name] = self.get(name)
        key.deleted_us = now_us
        return self._kept.pop(name)

    def deleted(self, name: str) -> VaultKey:
        key = self._deleted.get(name)
        if key is None:
            raise _missing(name)
        return key

    def purge(self, name: str) -> None:
        self.deleted(name)
        del self._deleted[name]

    def recover(self, name: str) -> VaultKey:
        key = self._kept[name] = self.deleted(name)
        key.deleted_us = None
        return self._deleted.pop(name)

    def kid(self, key: VaultKey, version: KeyVersion) -> str:
        return f"https://{self.host}/keys/{key.name}/{version.id}"

    def bundle(self, key: VaultKey, version: KeyVersion) -> dict[str, object]:
        """Return the key as the REST protocol shows it: a JsonWebKey of public numbers, and attributes."""
        numbers = version.private.public_key().public_numbers()
        jwk = {
            "kid": self.kid(key, version),
            "kty": "RSA",
            "key_ops": list(version.operations),
            "n": encode_value(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
            "e": encode_value(numbers.e.to_bytes(3)),
        }
        return {"key": jwk, "attributes": attributes_of(version)}


def attributes_of(version: KeyVersion) -> dict[str, object]:
    """Return the attributes of a version as lists and bundles show them."""
    created_s = version.created_us // 1_000_000
    attributes: dict[str, object] = {
        "enabled": version.enabled,
        "created": created_s,
        "recoveryLevel": "Recoverable+Purgeable",
    }
    if version.expires_s is not None:
        attributes["exp"] = version.expires_s
    return attributes


def operate(version: KeyVersion, verb: str, algorithm: str, value: bytes) -> bytes:
    """Wrap, unwrap, encrypt or decrypt.

    A disabled key refuses what needs its private half and still wraps, as reported of the real service; an expired one
    does both.

    Raises:
        VaultError: disabled, an algorithm that is not offered, or a value that does not open.
    """
    scheme = _OAEP.get(algorithm)
    if scheme is None:
        raise VaultError(400, "BadParameter", f"Property has invalid value: {algorithm}")
    needed = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}.get(verb, verb)
    if needed not in version.operations:
        raise VaultError(403, "Forbidden", f"Operation {needed} is not permitted on this key.", "KeyOperationForbidden")
    if verb in ("wrapkey", "encrypt"):
        return version.private.public_key().encrypt(value, scheme)
    if not version.enabled:
        raise VaultError(403, "Forbidden", f"Operation {needed} is not allowed on a disabled key.", "KeyDisabled")
    try:
        return version.private.decrypt(value, scheme)
    except ValueError:
        raise VaultError(400, "BadParameter", "The parameter is incorrect.") from None


def encode_value(value: bytes) -> str:
    """Write unpadded base64url."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode_value(text: str) -> bytes:
    """Read unpadded base64url.

    Raises:
        VaultError: it is not.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise VaultError(400, "BadParameter", "Property value is not base64url.") from None


def _missing(what: str) -> VaultError:
    return VaultError(404, "KeyNotFound", f"A key with (name/id) {what} was not found in this key vault.")
