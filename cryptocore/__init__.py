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
    from cryptocore.care.incident_facts import Incident
    from cryptocore.care.incidents import Incidents
    from cryptocore.care.terms import Classification, IncidentKind
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
    from cryptocore.life.callers_rows import Row
    from cryptocore.life.rotations import Rotation, RotationStep
    from cryptocore.registry import Registry
    from cryptocore.settings import CoreSettings
    from cryptocore.signing import Signer
    from cryptocore.store.key_store import KeyStore
    from cryptocore.tokens.rows import Reach, TokenInfo
    from cryptocore.tokens.vault import TokenVault
    from cryptocore.trail import AuditTrail

__all__ = [
    "AccessDenied",
    "AuditTrail",
    "AuditUnavailable",
    "CacheLimits",
    "Classification",
    "CoreError",
    "CoreSettings",
    "CryptoCore",
    "DecryptionFailed",
    "Denied",
    "Emitter",
    "Failed",
    "Incident",
    "IncidentKind",
    "Incidents",
    "KeyInfo",
    "KeyReason",
    "KeyRecordRollback",
    "KeyState",
    "KeyStore",
    "KeyUnavailable",
    "Misuse",
    "Owner",
    "Reach",
    "Registry",
    "Rotation",
    "RotationStep",
    "Row",
    "Signer",
    "TokenInfo",
    "TokenVault",
    "acting",
]

_HOMES = {
    "AuditTrail": "trail",
    "CacheLimits": "cache",
    "Classification": "care.terms",
    "CoreSettings": "settings",
    "CryptoCore": "core",
    "Emitter": "emitter",
    "Incident": "care.incident_facts",
    "IncidentKind": "care.terms",
    "Incidents": "care.incidents",
    "KeyInfo": "keyinfo",
    "KeyReason": "keys",
    "KeyState": "keys",
    "KeyStore": "store.key_store",
    "Owner": "envelope",
    "Reach": "tokens.rows",
    "Registry": "registry",
    "Rotation": "life.rotations",
    "RotationStep": "life.rotations",
    "Row": "life.callers_rows",
    "Signer": "signing",
    "TokenInfo": "tokens.rows",
    "TokenVault": "tokens.vault",
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
