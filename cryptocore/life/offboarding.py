"""A tenant leaves: its tokens end, its keys are archived, then destroyed by one request with one certificate.

The first call restricts and needs the database only. Destruction needs two people: the call says which records they
have to approve, and a later call with their approvals asks for it. Everything is read from what is there, so a call
that was cut off is simply repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from cryptocore.audit import Subject
from cryptocore.core_keys import Told
from cryptocore.envelope import tenant_prefix
from cryptocore.errors import InvalidTransition, KeyUnavailable
from cryptocore.keyinfo import KeyInfo, key_info
from cryptocore.keys import KeyAct, KeyReason, KeyState, permits
from cryptocore.life.approvals import Approval, SignedApproval
from cryptocore.life.destruction import COOLING_OFF_DAYS, Destruction
from cryptocore.store.key_store import KeyVersion
from cryptocore.store.tables import KEY_VERSION
from cryptocore.tokens.rows import Reach
from cryptocore.tokens.vault import TokenVault

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore


@dataclass(frozen=True, slots=True)
class Offboarding:
    """How far a tenant's departure is.

    Attributes:
        tokens: that ended by this call.
        archived: key versions, by this call.
        awaiting: versions that are to be destroyed: two people approve each as it is described here.
        destruction: what was asked for, once it was; its certificate covers every version.
    """

    tenant_id: str
    tokens: int
    archived: tuple[KeyInfo, ...]
    awaiting: tuple[KeyInfo, ...]
    destruction: Destruction | None


async def offboard(
    core: "CryptoCore",
    tenant_id: str,
    *,
    subject: Subject,
    approvals: Sequence[SignedApproval] = (),
    cooling_off_days: int = COOLING_OFF_DAYS,
) -> Offboarding:
    """Take a tenant as far as it goes.

    1. Its tokens are invalidated.
    2. Its keys are archived; those that were revoked stay so.
    3. With the approvals of every version: their destruction is requested.

    Raises:
        InvalidTransition: the tenant has no key, or approvals do not cover every version.
        AccessDenied: the approvals do not hold.
        KeyUnavailable: the store does not answer, or is not to be believed; repeat the call.
    """
    acting: Told = {"actor": subject.actor, "purpose": subject.purpose}
    key_ids = await core.parts.ask(lambda connection: _key_ids(connection, tenant_id))
    if not key_ids:
        raise InvalidTransition("the tenant has no key")
    # 1
    reason = KeyReason.OFFBOARDED
    reach = Reach(tenant_id=tenant_id)
    tokens = await TokenVault(core).invalidate_all(reach, reason=reason, actor=subject.actor, purpose=subject.purpose)
    # 2
    archived: list[KeyInfo] = []
    for key_id in key_ids:
        for version in await core.parts.read(core.parts.store.versions, key_id):
            if permits(version.record.state, version.newest, KeyAct.ARCHIVE):
                one: Told = {"version": version.number, **acting}
                archived += await core.archive(key_id.hex(), reason=reason, **one)
    left = [version for key_id in key_ids for version in await _left(core, key_id)]
    # 3
    destruction = await _requested(core, key_ids, left)
    if approvals and destruction is None:
        _check_cover(approvals, left)
        destruction = await core.request_destruction(
            approvals, cooling_off_days=cooling_off_days, actor=subject.actor, purpose=subject.purpose
        )
    return Offboarding(tenant_id, tokens, tuple(archived), tuple(key_info(one) for one in left), destruction)


def _key_ids(connection: Connection, tenant_id: str) -> list[bytes]:
    """Find the keys whose owner begins with the tenant."""
    prefix = tenant_prefix(tenant_id)
    theirs = (KEY_VERSION.c.owner > prefix) & (KEY_VERSION.c.owner < prefix + b"\xff")
    return sorted(connection.execute(select(KEY_VERSION.c.key_id).where(theirs).distinct()).scalars())


async def _left(core: "CryptoCore", key_id: bytes) -> list[KeyVersion]:
    versions = await core.parts.read(core.parts.store.versions, key_id)
    return [version for version in versions if version.record.state is not KeyState.DESTROYED]


async def _requested(core: "CryptoCore", key_ids: Sequence[bytes], left: Sequence[KeyVersion]) -> Destruction | None:
    """Find the request that covers what is left, or the last one for these keys when nothing is.

    Raises:
        KeyUnavailable: there is none, but rows that are not believed: one of them may be it.
    """
    ours = {key_id.hex() for key_id in key_ids}
    wanted = {(one.key_id.hex(), one.number) for one in left}
    for destruction in await core.destructions():
        named = {(item.key_id, item.version) for item in destruction.request.items}
        if {key_id for key_id, _ in named} <= ours and wanted <= named:
            return destruction
    if disbelieved := await core.disbelieved_destructions():
        raise KeyUnavailable(
            f"{len(disbelieved)} destructions are not to be believed, the tenant's may be among them: "
            f"{disbelieved[0].id}: {disbelieved[0].problem}",
            retryable=False,
        )
    return None


def _check_cover(approvals: Sequence[SignedApproval], left: Sequence[KeyVersion]) -> None:
    named = [Approval.decode(one.approval) for one in approvals]
    approved = {(one.key_id, one.key_version) for one in named}
    missing = [one for one in left if (one.key_id, one.number) not in approved]
    if missing:
        raise InvalidTransition(f"{len(missing)} of the tenant's {len(left)} key versions are not approved yet")
