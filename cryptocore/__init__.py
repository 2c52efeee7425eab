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
    from cryptocore.incident_facts import Incident
    from cryptocore.incidents import Incidents
    from cryptocore.keyinfo import KeyInfo
    from cryptocore.keys import KeyReason, KeyState
    from cryptocore.registry import Registry
    from cryptocore.rotations import Rotation, RotationStep
    from cryptocore.rows import Row
    from cryptocore.settings import CoreSettings
    from cryptocore.signing import Signer
    from cryptocore.store import KeyStore
    from cryptocore.terms import Classification, IncidentKind
    from cryptocore.token_rows import Reach, TokenInfo
    from cryptocore.tokens import TokenVault
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
    "Classification": "terms",
    "CoreSettings": "settings",
    "CryptoCore": "core",
    "Emitter": "emitter",
    "Incident": "incident_facts",
    "IncidentKind": "terms",
    "Incidents": "incidents",
    "KeyInfo": "keyinfo",
    "KeyReason": "keys",
    "KeyState": "keys",
    "KeyStore": "store",
    "Owner": "envelope",
    "Reach": "token_rows",
    "Registry": "registry",
    "Rotation": "rotations",
    "RotationStep": "rotations",
    "Row": "rows",
    "Signer": "signing",
    "TokenInfo": "token_rows",
    "TokenVault": "tokens",
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
