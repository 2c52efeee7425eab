"""The operations that Key Vault logs, and what each does to its object.

The names are those of Key Vault's own list. Secret, Certificate and Backup operations are known by their first word;
what is in neither is unknown: kept, indexed, counted, never guessed at.
"""

from functools import lru_cache
from typing import Final

from alerts.model import AccessClass

AUTHENTICATION: Final = "Authentication"
KEY_UPDATE: Final = "KeyUpdate"

_USE: Final = "KeySign KeyVerify KeyWrap KeyUnwrap KeyEncrypt KeyDecrypt SecretGet"
_READ: Final = "KeyGet KeyGetDeleted KeyRotationPolicyGet VaultGet"
_LIST: Final = "KeyList KeyListVersions KeyListDeleted VaultList"
_ADMIN: Final = (
    "KeyCreate KeyImport KeyDelete KeyUpdate KeyPurge KeyBackup KeyRestore KeyRecover KeyRotate KeyRotateIfDue "
    "KeyRotationPolicySet Authentication VaultPut VaultDelete VaultPatch VaultRecover VaultPurge"
)
_NOTIFICATION: Final = "KeyNearExpiryEventGridNotification KeyExpiredEventGridNotification"

KNOWN: Final[dict[str, AccessClass]] = {
    name: access_class
    for names, access_class in (
        (_USE, AccessClass.USE),
        (_READ, AccessClass.READ),
        (_LIST, AccessClass.LIST),
        (_ADMIN, AccessClass.ADMIN),
        (_NOTIFICATION, AccessClass.NOTIFICATION),
    )
    for name in names.split()
}
_CANONICAL: Final = {name.lower(): name for name in KNOWN}
_FAMILIES: Final = ("Secret", "Certificate", "Backup")


@lru_cache(1024)
def classify(operation: str) -> tuple[str, AccessClass]:
    """Return the operation in Key Vault's own spelling, and its class.

    A 401 challenge is told from other authentications by the normaliser, which sees who asked.
    """
    name = _CANONICAL.get(operation.lower(), operation)
    known = KNOWN.get(name)
    if known is not None:
        return name, known
    if name.startswith(_FAMILIES):
        return name, _by_last_word(name)
    return name, AccessClass.UNKNOWN


def _by_last_word(name: str) -> AccessClass:
    if name.endswith("EventGridNotification"):
        return AccessClass.NOTIFICATION
    if "List" in name:
        return AccessClass.LIST
    if name.endswith(("Get", "GetDeleted")):
        return AccessClass.READ
    return AccessClass.ADMIN
