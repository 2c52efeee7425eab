"""From an act to the record that Azure writes of it: the vault's own log, or the Activity Log."""

import random
import uuid
from typing import Any, Final

from bench.month.acts import Act, identity, oid
from bench.month.plan import START_S
from cryptocore.clock import rfc3339
from streams.demo.identities import Identity
from streams.demo.simclock import SimClock
from streams.demo.vaultlog import Entry, VaultLog
from streams.simulated import SUBSCRIPTION

SETTING_DELETED: Final = "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/DELETE"
SETTING_WRITTEN: Final = "MICROSOFT.INSIGHTS/DIAGNOSTICSETTINGS/WRITE"
_AUDIT_ON: Final = '{"properties":{"logs":[{"categoryGroup":"audit","enabled":true}]}}'
_CRYPTO: Final = frozenset({"KeyWrap", "KeyUnwrap"})
_FORBIDDEN: Final = 403


def resource_id(vault: str) -> str:
    """The vault's resource id, in capitals as Azure writes it."""
    group = f"/SUBSCRIPTIONS/{SUBSCRIPTION}/RESOURCEGROUPS/PRODUCTION"
    return f"{group}/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/{vault}".upper()


def record(act: Act, number: int) -> dict[str, Any]:
    """The record of an act; `number` makes it distinct, and the same each time."""
    if act.operation in (SETTING_DELETED, SETTING_WRITTEN):
        return _activity(act, number)
    log = VaultLog(
        f"{act.vault}.vault.azure.net",
        subscription=SUBSCRIPTION,
        clock=SimClock(START_S * 1_000_000 + act.at_us),
        jitter=random.Random(number),
    )
    log.write(_entry(act, number))
    return log.records[0]


def _entry(act: Act, number: int) -> Entry:
    kind = "keys" if act.operation.startswith("Key") else "secrets"
    kind = "deletedkeys" if act.operation == "KeyPurge" else kind
    place = f"https://{act.vault}.vault.azure.net/{kind}"
    if act.name:
        place += f"/{act.name}" + (f"/{act.version}" if act.version else "")
    caller: Identity | None = identity(act.principal, act.address) if act.principal else None
    extra: dict[str, Any] = {"algorithm": "RSA-OAEP-256"} if act.operation in _CRYPTO else {}
    if act.change is not None:
        extra["keyProperties"] = act.change
    return Entry(
        operation=act.operation,
        status=act.status,
        uri=f"{place}?api-version=7.6",
        correlation_id=act.correlation or str(uuid.UUID(int=number)),
        client="azsdk-python-keyvault-keys/4.10.0",
        identity=caller,
        address=act.address,
        object_id=place if caller is not None and act.name else None,
        description=act.description or None,
        authorized=act.status != _FORBIDDEN,
        extra=extra,
    )


def _activity(act: Act, number: int) -> dict[str, Any]:
    """The end of an administrative act on a diagnostic setting, as the Activity Log exports it."""
    setting = f"{resource_id(act.vault)}/providers/microsoft.insights/diagnosticSettings/audit"
    written = {"requestbody": _AUDIT_ON} if act.operation == SETTING_WRITTEN else {}
    return {
        "time": rfc3339(START_S * 1_000_000 + act.at_us)[:-1] + "0Z",
        "resourceId": setting,
        "operationName": act.operation,
        "category": "Administrative",
        "resultType": "Success",
        "resultSignature": "Succeeded.",
        "durationMs": "0",
        "callerIpAddress": act.address,
        "correlationId": str(uuid.UUID(int=number)),
        "identity": {
            "claims": {"http://schemas.microsoft.com/identity/claims/objectidentifier": oid(act.principal)},
        },
        "level": "Information",
        "properties": {"statusCode": "OK", "eventCategory": "Administrative", **written},
    }
