"""Where approvals are used: judged by the database's time, their nonces counted once, in the transaction of the act."""

from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import Connection, insert, select

from cryptocore.audit import Refusal
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.errors import AccessDenied
from cryptocore.events import KeyRef, Outcome, Reason
from cryptocore.life.approval_pairs import Verified, two_people
from cryptocore.life.approvals import Action, ApprovalInvalid, SignedApproval
from cryptocore.registry import Registry
from cryptocore.store.key_store import database_ms
from cryptocore.store.rotation_tables import APPROVAL_NONCE

Names = tuple[Action, bytes, int, int, bytes]


def of_file(action: Action, content: bytes) -> Names:
    """Name the very bytes of a file or a JSON text, for the actions whose subject is one."""
    return action, bytes(KEY_ID_SIZE), 0, 0, sha256(content).digest()


def use(
    connection: Connection,
    approvals: Sequence[SignedApproval],
    registry: Registry,
    names: Names,
    *,
    key: KeyRef | None = None,
) -> tuple[Verified, ...]:
    """Check that two people allow exactly this, now, and count their nonces.

    Args:
        connection: of the transaction that does what is approved.
        approvals: two of them.
        registry: of this deployment.
        names: action, key id, version, revision and subject (`Approval.names`), as they are now.
        key: for the refusal.

    Raises:
        Refusal: they do not, or were used before.
    """
    try:
        verified = two_people(approvals, registry, action=names[0], at_ms=database_ms(connection))
        for one in verified:
            _check_names(one, names)
            _count(connection, one)
    except ApprovalInvalid as err:
        raise not_approved(err, key) from None
    return verified


def counted(connection: Connection, one: Verified) -> bool:
    """Say whether the nonce of an approval was counted, for this very approval."""
    approval, row = one.approval, APPROVAL_NONCE.c
    query = select(row.action, row.signer_id, row.subject_sha256).where(row.nonce == approval.nonce)
    found = connection.execute(query).first()
    return found is not None and tuple(found) == (int(approval.action), approval.signer_id, approval.subject_sha256)


def not_approved(err: ApprovalInvalid, key: KeyRef | None = None) -> Refusal:
    """Refuse for want of approvals."""
    message = f"not approved by two people: {err.field}: {err.problem}"
    return Refusal(Outcome.DENIED, Reason.KEY_STATE, AccessDenied, message, key=key)


def _check_names(one: Verified, names: Names) -> None:
    if one.approval.names != names:
        raise ApprovalInvalid("subject_sha256", "not what is to be done now")


def _count(connection: Connection, one: Verified) -> None:
    approval = one.approval
    where = APPROVAL_NONCE.c.nonce == approval.nonce
    if connection.execute(select(APPROVAL_NONCE.c.nonce).where(where)).first() is not None:
        raise ApprovalInvalid("nonce", "used before")
    connection.execute(  # the same nonce in two transactions at once: the primary key lets one of them through
        insert(APPROVAL_NONCE).values(
            nonce=approval.nonce,
            action=int(approval.action),
            signer_id=approval.signer_id,
            subject_sha256=approval.subject_sha256,
            used_ms=database_ms(connection),
        ),
    )
