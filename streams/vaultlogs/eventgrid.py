"""Event Grid's notifications of Key Vault, in its own schema and as CloudEvents: an object's news, without a caller."""

from typing import Final

from streams.vaultlogs.fields import Fields, Record, Shape, nested, text
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

_OURS: Final = "Microsoft.KeyVault."
_COLLECTIONS: Final = {"key": "keys", "secret": "secrets", "certificate": "certificates"}


def read(record: Record) -> Fields:
    """Read a notification.

    Raises:
        VaultRecordRejected: it is of another service of Azure.
    """
    cloud = "specversion" in record
    operation = text(record, "type" if cloud else "eventType")
    if operation is None or not operation.startswith(_OURS):
        raise VaultRecordRejected(Reason.OTHER_RESOURCE, "type" if cloud else "eventType", "no event of a key vault")
    resource_id = text(record, "source" if cloud else "topic")
    data = {name.strip(): value for name, value in nested(record, "data").items()}  # one name is "ObjectName "
    shape = Shape.CLOUD_EVENT if cloud else Shape.EVENT_GRID
    return Fields(
        shape=shape,
        time=record.get("time" if cloud else "eventTime"),
        operation=operation,
        resource_id=resource_id,
        object_id=text(data, "Id") or _object_id(data),
        event_id=f"{shape}:{text(record, 'id') or ''}",
        key_expires=data.get("EXP"),
    )


def _object_id(data: Record) -> str | None:
    """Put the object's id together where the event names only its parts."""
    vault, name, version = (text(data, part) for part in ("VaultName", "ObjectName", "Version"))
    collection = _COLLECTIONS.get((text(data, "ObjectType") or "").lower())
    if vault is None or name is None or collection is None:
        return None
    return f"https://{vault}.vault.azure.net/{collection}/{name}/{(version or '').strip()}"
