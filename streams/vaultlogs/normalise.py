"""One Key Vault log record of any shape, made into a VaultAccess: pure, and the only place that decides what it says.

1. read the shape; 2. time; 3. operation and class; 4. vault and object; 5. caller; 6. outcome; 7. what changed;
8. the access id. A record that cannot be read, or must not be trusted, is rejected with a reason; nothing else is ever
raised, whatever the JSON. Whether the record is new, and what follows from it, is the vault step's to say.
"""

import hashlib
from typing import Final

from alerts.model import AccessClass, AccessOutcome, KeyChange, Principal, VaultAccess
from streams.vaultlogs import activity
from streams.vaultlogs.fields import Fields, Record, Shape, from_json, truth, whole_number
from streams.vaultlogs.moments import from_epoch_seconds, moment
from streams.vaultlogs.networks import located
from streams.vaultlogs.objects import place
from streams.vaultlogs.operations import AUTHENTICATION, KEY_UPDATE, classify
from streams.vaultlogs.outcomes import denial_of, http_status, outcome_of, status_of_phrase
from streams.vaultlogs.principals import principal_of
from streams.vaultlogs.rejection import Reason, VaultRecordRejected
from streams.vaultlogs.shapes import read

__all__ = ("Reason", "VaultRecordRejected", "normalise")

_LABEL: Final = b"keytrail/vault-access/v1\x00"
_NOTIFYING: Final = frozenset({Shape.EVENT_GRID, Shape.CLOUD_EVENT})
_MAX_OPERATIONS: Final = 32
_CHALLENGED: Final = 401


def normalise(original: Record, *, resource_id: str | None = None) -> VaultAccess:
    """Normalise one record.

    Args:
        original: the record as decoded from JSON, as received.
        resource_id: the vault's resource id as the feed knows it; where the record has one, they must agree.

    Raises:
        VaultRecordRejected: with the reason; never anything else.
    """
    fields = read(original)
    if fields.operation is None:
        raise VaultRecordRejected(Reason.OPERATION, "operationName", "missing")
    time, time_us = moment(fields.time)
    operation, access_class = _classified(fields, fields.operation)
    where = place(fields, operation, resource_id)
    principal = principal_of(fields.claims)
    status = http_status(fields.status)
    if operation == AUTHENTICATION and _is_challenge(fields, principal, status):
        access_class = AccessClass.CHALLENGE
    outcome, denial, status = _ended(fields, access_class, status)
    address, network = located(fields)
    about_key = fields.shape in _NOTIFYING and where.kind == "key"
    key_change = _key_change(fields) if operation == KEY_UPDATE or about_key else None
    role, given_to = activity.role(fields) if operation == activity.ROLE_WRITTEN else (None, None)
    kept = (principal.id, principal.app_id, principal.upn, principal.resource, fields.tls_version, network)
    return VaultAccess(
        time=time,
        operation=operation,
        access_class=access_class,
        outcome=outcome,
        denial=denial,
        http_status=status,
        vault=where.vault,
        object_kind=where.kind,
        object_name=where.name,
        object_version=where.version,
        principal=principal,
        address=address,
        network=network,
        tls_version=fields.tls_version,
        correlation_id=None if fields.correlation_id is None else fields.correlation_id.lower(),
        shape=fields.shape,
        key_change=key_change,
        access_id=_access_id(fields, resource_id, (*filter(None, kept), *_asked(key_change))),
        resource_id=_lower(fields.resource_id or resource_id),
        time_us=time_us,
        audit_log=activity.audit_log(fields) if operation == activity.SETTING_WRITTEN else None,
        role=role,
        given_to=given_to,
    )


def _classified(fields: Fields, operation: str) -> tuple[str, AccessClass]:
    if fields.shape is Shape.ACTIVITY_LOG:
        return operation.lower(), AccessClass.ADMIN
    if fields.shape in _NOTIFYING:
        return operation, AccessClass.NOTIFICATION
    return classify(operation)


def _is_challenge(fields: Fields, principal: Principal, status: int | None) -> bool:
    """Exactly the pair that every client start leaves: nobody has asked for nothing yet, and was told to sign in."""
    if status is None:
        status = status_of_phrase(fields.signature)
    return status == _CHALLENGED and principal.id is None and principal.upn is None and fields.object_id is None


def _ended(
    fields: Fields, access_class: AccessClass, status: int | None
) -> tuple[AccessOutcome | None, str | None, int | None]:
    """Return outcome, denial and status as they are shown."""
    if access_class is AccessClass.NOTIFICATION:
        return None, None, None
    if access_class is AccessClass.CHALLENGE:
        return None, None, status
    if fields.shape is Shape.ACTIVITY_LOG:
        return _administered(fields)
    judged = status if status is not None else status_of_phrase(fields.signature)
    if judged is None:
        if access_class is AccessClass.UNKNOWN:
            return None, None, None
        raise VaultRecordRejected(Reason.STATUS, "httpStatusCode", "missing, and resultSignature tells no status")
    return outcome_of(judged), denial_of(judged, fields), status


def _administered(fields: Fields) -> tuple[AccessOutcome | None, str | None, int | None]:
    progress = (fields.progress or "").lower()
    status = None if progress in activity.STARTED else status_of_phrase(fields.signature)
    if status is not None:
        return outcome_of(status), denial_of(status, fields), status
    if progress in activity.SUCCEEDED:
        return AccessOutcome.SUCCEEDED, None, None
    return AccessOutcome.FAILED if progress in activity.FAILED else None, None, None


def _key_change(fields: Fields) -> KeyChange | None:
    """Return what a KeyUpdate asked for, or a notification says of a key; what is not said stays unknown."""
    enabled = truth(fields.key_enabled)
    seconds = whole_number(fields.key_expires)
    expires_at = None if seconds is None else from_epoch_seconds(seconds)
    operations = fields.key_operations
    if isinstance(operations, str):
        operations = from_json(operations) if operations[:1] == "[" else operations.split(",")
    allowed = None
    if isinstance(operations, list):
        allowed = tuple(str(one).strip() for one in operations[:_MAX_OPERATIONS] if isinstance(one, str))
    if enabled is None and expires_at is None and allowed is None:
        return None
    return KeyChange(enabled, expires_at, allowed)


def _asked(change: KeyChange | None) -> tuple[str, ...]:
    return () if change is None or change.operations is None else change.operations


def _access_id(fields: Fields, resource_id: str | None, kept: tuple[str, ...]) -> str:
    """Name the access as every copy of its record does, whatever way and shape it came in (docs/formats.md).

    `kept` are the record's other texts: what cannot be UTF-8 is rejected here, before anybody has to write it.
    """
    status = whole_number(fields.status)
    try:
        "".join(kept).encode()
        parts = [
            (fields.resource_id or resource_id or "").lower().encode(),
            str(fields.time).encode(),
            (fields.operation or "").encode(),
            (fields.correlation_id or fields.event_id or "").encode(),
            (fields.object_id or fields.request_uri or fields.reference or "").encode(),
            b"" if status is None else str(status).encode(),
        ]
        digest = hashlib.sha256(_LABEL + b"".join([len(part).to_bytes(2, "big") + part for part in parts]))
    except UnicodeEncodeError as error:
        raise VaultRecordRejected(Reason.TEXT, "record", "holds half a surrogate pair") from error
    except OverflowError as error:
        raise VaultRecordRejected(
            Reason.TOO_LONG, "record", "a field of the access id is beyond 65,535 bytes"
        ) from error
    return digest.hexdigest()


def _lower(value: str | None) -> str | None:
    return None if value is None else value.lower()
