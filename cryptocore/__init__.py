"""Envelope encryption whose every use leaves a sealed audit event.

    core = CryptoCore.from_env()
    with acting(actor="user:4711", purpose="crm-sync"):
        token = await core.encrypt(b"...", owner=Owner.tenant("t-88", "crm"), record="tokens/8f3c/access")

The public names are loaded when they are first asked for: the monitor reads formats only and needs no key store.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptocore.cache import CacheLimits
    from cryptocore.context import acting
    from cryptocore.core import CryptoCore
    from cryptocore.emitter import Emitter
    from cryptocore.envelope import Owner
    from cryptocore.errors import (
        AccessDenied,
        AuditUnavailable,
        CoreError,
        DecryptionFailed,
        Denied,
        Failed,
        KeyRecordRollback,
        KeyUnavailable,
        Misuse,
    )
    from cryptocore.keyinfo import KeyInfo
    from cryptocore.keys import KeyReason, KeyState
    from cryptocore.registry import Registry
    from cryptocore.settings import CoreSettings
    from cryptocore.signing import Signer
    from cryptocore.store import KeyStore
    from cryptocore.trail import AuditTrail

__all__ = [
    "AccessDenied",
    "AuditTrail",
    "AuditUnavailable",
    "CacheLimits",
    "CoreError",
    "CoreSettings",
    "CryptoCore",
    "DecryptionFailed",
    "Denied",
    "Emitter",
    "Failed",
    "KeyInfo",
    "KeyReason",
    "KeyRecordRollback",
    "KeyState",
    "KeyStore",
    "KeyUnavailable",
    "Misuse",
    "Owner",
    "Registry",
    "Signer",
    "acting",
]

_HOMES = {
    "AuditTrail": "trail",
    "CacheLimits": "cache",
    "CoreSettings": "settings",
    "CryptoCore": "core",
    "Emitter": "emitter",
    "KeyInfo": "keyinfo",
    "KeyReason": "keys",
    "KeyState": "keys",
    "KeyStore": "store",
    "Owner": "envelope",
    "Registry": "registry",
    "Signer": "signing",
    "acting": "context",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cryptocore' has no attribute {name!r}")
    return getattr(import_module(f"cryptocore.{_HOMES.get(name, 'errors')}"), name)


def _refuse_two_distributions() -> None:
    """Both distributions bring this package; side by side, the order of installation would decide which is imported."""
    installed = [name for name in ("keytrail", "keytrail-core") if any(metadata.Distribution.discover(name=name))]
    if len(installed) > 1:
        raise ImportError(
            "keytrail and keytrail-core are both installed and both bring cryptocore: uninstall one of them"
        )


_refuse_two_distributions()
