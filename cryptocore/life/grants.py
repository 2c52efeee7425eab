"""Recovery grants: two people let `reencrypt` read the revoked versions of an owner's key, for a day at most.

A row alone grants nothing: the approvals in it are verified again, by the database's time, whenever one is used, and
their nonces must have been counted, as `grant_recovery` does in the transaction that writes the row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
from sqlalchemy import Connection, insert, select

from cryptocore.audit import no_arrow
from cryptocore.cache import key_ref
from cryptocore.envelope import Owner
from cryptocore.keys import KeyState
from cryptocore.life import approval_desk
from cryptocore.life.approval_pairs import Verified, two_people
from cryptocore.life.approvals import Action, ApprovalInvalid, SignedApproval
from cryptocore.registry import Registry
from cryptocore.store.key_store import KeyVersion, database_ms
from cryptocore.store.rotation_tables import RECOVERY_GRANT

LONGEST_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class RecoveryGrant:
    """Until when the revoked versions of an owner's key may be read in order to re-encrypt."""

    id: str
    owner: Owner
    key_id: str
    expires_ms: int


def granting(
    version: KeyVersion, approvals: Sequence[SignedApproval], registry: Registry, ident: bytes
) -> Callable[[Connection], RecoveryGrant]:
    """Register a grant for the key of a version, whose record the approvals name.

    Returns:
        What writes it in a transaction; it raises `Refusal` where the approvals do not hold, or last too long.
    """
    record = version.record
    names = (
        Action.RECOVERY_GRANT,
        version.key_id,
        version.number,
        record.revision,
        sha256(version.signed.record).digest(),
    )

    def write(connection: Connection) -> RecoveryGrant:
        if record.state is not KeyState.REVOKED:
            raise no_arrow(f"a key version that is {record.state} needs no recovery grant", key_ref(version))
        verified = approval_desk.use(connection, approvals, registry, names, key=key_ref(version))
        try:
            _check_length(verified)
        except ApprovalInvalid as err:
            raise approval_desk.not_approved(err, key_ref(version)) from None
        expires_ms = min(one.approval.expires_ms for one in verified)
        connection.execute(
            insert(RECOVERY_GRANT).values(
                grant_id=ident,
                owner=version.owner.encode(),
                key_id=version.key_id,
                approvals=msgspec.json.encode([signed.to_json() for signed in approvals]),
                granted_ms=database_ms(connection),
                expires_ms=expires_ms,
            ),
        )
        return RecoveryGrant(ident.hex(), version.owner, version.key_id.hex(), expires_ms)

    return write


def granted(key_id: bytes, registry: Registry) -> Callable[[Connection], bool]:
    """Say, by what two people signed, whether the revoked versions of a key may be read now."""
    query = select(RECOVERY_GRANT.c.approvals).where(RECOVERY_GRANT.c.key_id == key_id)

    def read(connection: Connection) -> bool:
        now_ms = database_ms(connection)
        rows = connection.execute(query.where(RECOVERY_GRANT.c.expires_ms > now_ms)).scalars()
        return any(_holds(connection, approvals, key_id, registry, now_ms) for approvals in rows.all())

    return read


def _holds(connection: Connection, stored: bytes, key_id: bytes, registry: Registry, now_ms: int) -> bool:
    try:
        carried = msgspec.json.decode(stored, type=list[dict[str, str]])
        approvals = [SignedApproval.decode(msgspec.json.encode(one)) for one in carried]
        verified = two_people(approvals, registry, action=Action.RECOVERY_GRANT, at_ms=now_ms)
        _check_length(verified)
    except (ApprovalInvalid, msgspec.MsgspecError):
        return False
    return all(one.approval.key_id == key_id and approval_desk.counted(connection, one) for one in verified)


def _check_length(verified: Sequence[Verified]) -> None:
    for one in verified:
        if one.approval.expires_ms - one.approval.not_before_ms > LONGEST_MS:
            raise ApprovalInvalid("expires_ms", "a recovery grant lasts 24 hours at most")
