"""What the local vault can be asked: one table of requests, one small function each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from streams.demo.identities import Identity
from streams.demo.vaultkeys import (
    KEY_SIZE,
    OPERATIONS,
    RETENTION_S,
    Keys,
    KeyVersion,
    VaultError,
    VaultKey,
    attributes_of,
    decode_value,
    encode_value,
    operate,
)
from streams.demo.vaultlog import Entry, VaultLog

KEY_SIZES = (2048, 3072, 4096)


@dataclass(slots=True)
class Vault:
    """One vault behind the server. `correlation` says whose id its log shows: reports on the real service differ."""

    host: str
    keys: Keys
    log: VaultLog
    correlation: Literal["client", "service"] = "service"
    throttled: int = 0


@dataclass(slots=True)
class Call:
    """One request on its way: what was asked of which vault by whom."""

    vault: Vault
    identity: Identity
    method: str
    parts: list[str]
    body: dict[str, Any]
    entry: Entry

    def name(self, at: int) -> str:
        return self.parts[at].lower()


Act = Callable[[Call, int], dict[str, Any]]


def _list_keys(call: Call, _now_us: int) -> dict[str, Any]:
    call.entry.object_id = None
    return {"value": [{"kid": f"https://{call.vault.host}/keys/{name}"} for name in call.vault.keys.names()]}


def _list_versions(call: Call, _now_us: int) -> dict[str, Any]:
    key = call.vault.keys.get(call.name(1))
    versions = key.versions.values()
    return {"value": [{"kid": call.vault.keys.kid(key, one), "attributes": attributes_of(one)} for one in versions]}


def _list_deleted(call: Call, _now_us: int) -> dict[str, Any]:
    call.entry.object_id = None
    return {"value": [{"kid": f"https://{call.vault.host}/keys/{name}"} for name in call.vault.keys.deleted_names()]}


def _get(call: Call, _now_us: int) -> dict[str, Any]:
    key, version = _version(call)
    return call.vault.keys.bundle(key, version)


def _create(call: Call, now_us: int) -> dict[str, Any]:
    size = call.body.get("key_size", KEY_SIZE)
    if size not in KEY_SIZES:
        raise VaultError(400, "BadParameter", "Property key_size has invalid value.")
    operations = tuple(call.body.get("key_ops") or OPERATIONS)
    return _made(call, call.vault.keys.create(call.name(1), now_us, size=size, operations=operations))


def _rotate(call: Call, now_us: int) -> dict[str, Any]:
    return _made(call, call.vault.keys.rotate(call.name(1), now_us))


def _made(call: Call, version: KeyVersion) -> dict[str, Any]:
    key = call.vault.keys.get(call.name(1))
    call.entry.object_id = call.vault.keys.kid(key, version)
    call.entry.extra["keyProperties"] = {"type": "RSA", "size": version.private.key_size}
    return call.vault.keys.bundle(key, version)


def _backup(call: Call, _now_us: int) -> dict[str, Any]:
    key = call.vault.keys.get(call.name(1))
    call.entry.extra["keyProperties"] = {"type": "RSA", "size": KEY_SIZE}
    return {"value": encode_value(f"backup of {key.name}: no key material".encode())}


def _update(call: Call, _now_us: int) -> dict[str, Any]:
    key, version = _version(call)
    wanted = call.body.get("attributes") or {}
    properties: dict[str, Any] = {"type": "RSA", "size": KEY_SIZE, "attributes": wanted}
    version.enabled = bool(wanted.get("enabled", version.enabled))
    version.expires_s = wanted.get("exp", version.expires_s)
    if call.body.get("key_ops") is not None:
        version.operations = tuple(call.body["key_ops"])
        properties["operations"] = list(version.operations)
    call.entry.extra["keyProperties"] = properties
    return call.vault.keys.bundle(key, version)


def _delete(call: Call, now_us: int) -> dict[str, Any]:
    key = call.vault.keys.delete(call.name(1), now_us)
    return _deleted_bundle(call, key)


def _get_deleted(call: Call, _now_us: int) -> dict[str, Any]:
    return _deleted_bundle(call, call.vault.keys.deleted(call.name(1)))


def _recover(call: Call, _now_us: int) -> dict[str, Any]:
    key = call.vault.keys.recover(call.name(1))
    return call.vault.keys.bundle(key, key.version(None))


def _purge(call: Call, _now_us: int) -> dict[str, Any]:
    call.vault.keys.purge(call.name(1))
    return {}


def _crypto(call: Call, _now_us: int) -> dict[str, Any]:
    key, version = _version(call)
    verb = call.name(3)
    algorithm = str(call.body.get("alg"))
    call.entry.extra["algorithm"] = algorithm
    result = operate(version, verb, algorithm, decode_value(str(call.body.get("value", ""))))
    return {"kid": call.vault.keys.kid(key, version), "value": encode_value(result)}


def _get_secret(call: Call, _now_us: int) -> dict[str, Any]:
    return {"value": "a secret of the simulation", "id": f"https://{call.vault.host}/secrets/{call.name(1)}"}


def _version(call: Call) -> tuple[VaultKey, KeyVersion]:
    key = call.vault.keys.get(call.name(1))
    return key, key.version(call.name(2) if len(call.parts) > 2 else None)  # noqa: PLR2004


def _deleted_bundle(call: Call, key: VaultKey) -> dict[str, Any]:
    bundle = call.vault.keys.bundle(key, key.version(None))
    deleted_s = (key.deleted_us or 0) // 1_000_000
    return bundle | {
        "recoveryId": f"https://{call.vault.host}/deletedkeys/{key.name}",
        "deletedDate": deleted_s,
        "scheduledPurgeDate": deleted_s + RETENTION_S,
    }


# Method and path ("*" = any one part) → logged operation, needed permission, what it does.
_ROUTES: tuple[tuple[str, tuple[str, ...], str, str, Act], ...] = (
    ("GET", ("keys",), "KeyList", "list", _list_keys),
    ("GET", ("keys", "*", "versions"), "KeyListVersions", "list", _list_versions),
    ("GET", ("keys", "*"), "KeyGet", "get", _get),
    ("GET", ("keys", "*", "*"), "KeyGet", "get", _get),
    ("POST", ("keys", "*", "create"), "KeyCreate", "create", _create),
    ("POST", ("keys", "*", "rotate"), "KeyRotate", "rotate", _rotate),
    ("POST", ("keys", "*", "backup"), "KeyBackup", "backup", _backup),
    ("PATCH", ("keys", "*"), "KeyUpdate", "update", _update),
    ("PATCH", ("keys", "*", "*"), "KeyUpdate", "update", _update),
    ("DELETE", ("keys", "*"), "KeyDelete", "delete", _delete),
    ("POST", ("keys", "*", "*", "wrapkey"), "KeyWrap", "wrapKey", _crypto),
    ("POST", ("keys", "*", "*", "unwrapkey"), "KeyUnwrap", "unwrapKey", _crypto),
    ("POST", ("keys", "*", "*", "encrypt"), "KeyEncrypt", "encrypt", _crypto),
    ("POST", ("keys", "*", "*", "decrypt"), "KeyDecrypt", "decrypt", _crypto),
    ("GET", ("deletedkeys",), "KeyListDeleted", "list", _list_deleted),
    ("GET", ("deletedkeys", "*"), "KeyGetDeleted", "get", _get_deleted),
    ("POST", ("deletedkeys", "*", "recover"), "KeyRecover", "recover", _recover),
    ("DELETE", ("deletedkeys", "*"), "KeyPurge", "purge", _purge),
    ("GET", ("secrets", "*"), "SecretGet", "secrets/get", _get_secret),
    ("GET", ("secrets", "*", "*"), "SecretGet", "secrets/get", _get_secret),
)


def route(call: Call) -> tuple[str, str, Act]:
    """Return the logged operation, the permission it needs and what it does.

    Raises:
        VaultError: 400, a request that the local vault does not know.
    """
    for method, pattern, operation, permission, act in _ROUTES:
        fits = len(pattern) == len(call.parts) and all(
            want in ("*", part.lower()) for want, part in zip(pattern, call.parts, strict=True)
        )
        if fits and method == call.method:
            return operation, permission, act
    raise VaultError(400, "BadParameter", "The local vault does not know this request.")
