"""How keys and tokens live in the simulated week: kept, regenerated, rotated to the end, compromised, destroyed.

Acts like those of attacks.py, all honest; each says in a line what came of it.
"""

from collections.abc import AsyncIterator

from cryptocore import acting
from cryptocore.errors import Denied
from cryptocore.keyinfo import KeyInfo
from cryptocore.life.approvals import Action, Approval, SignedApproval, sign_approval
from cryptocore.life.callers_rows import Row
from cryptocore.life.copies import Copies
from cryptocore.life.destruction import read_certificate
from cryptocore.tokens.moving import reencrypt_tokens
from streams.demo.company import ADMIN, LEAVING, LENA, TOM
from streams.demo.fleet import Process
from streams.demo.stage import Stage

_DAY_MS = 24 * 3600 * 1000
COPIES = Copies.parse(
    """
complete = true
reviewed = 2026-11-02
reviewed_by = "user:lena"

[[copy]]
name = "wal-archive"
retention_days = 35
"""
)


class OwnersRows:
    """The rows of one owner in the company's table, as `reencrypt` moves them."""

    def __init__(self, stage: Stage, service: str) -> None:
        self._owner = stage.owner(service)
        self._rows = stage.rows.by_owner.setdefault(self._owner, [])

    async def after(self, row_id: str) -> AsyncIterator[Row]:
        for place, (record, ciphertext) in enumerate(list(self._rows)):
            if f"{place:04d}" > row_id:
                yield Row(f"{place:04d}", ciphertext, self._owner, record)

    async def replace(self, row: Row, ciphertext: bytes) -> bool:
        place = int(row.id)
        if self._rows[place] != (row.record, row.ciphertext):
            return False
        self._rows[place] = row.record, ciphertext
        return True


async def keep_tokens(stage: Stage) -> str:
    """Services put the tokens of their tenants' other systems into the vault of tokens."""
    now_ms = stage.world.clock.now_ms()
    for service, name, days in (("crm-sync", "refresh", 60), ("invoicing", "refresh", 60), ("mailer", "access", 1)):
        process, owner = stage.process(service), stage.owner(service)
        tokens = process.core.tokens
        expires_at_ms, purpose = now_ms + days * _DAY_MS, "store-token"
        actor = f"job:{service}"
        await tokens.store(owner, name, b"a simulated token", expires_at_ms=expires_at_ms, actor=actor, purpose=purpose)
        await tokens.use(owner, name, actor=actor, purpose="nightly-sync")
    return "3 kept, each with the day it ends; each used once"


async def regenerate(stage: Stage) -> str:
    """A tenant regenerates its token: the value before is erased, and its DEK rotated, as policy asks."""
    admin, owner = stage.process(ADMIN).core, stage.owner("crm-sync")
    expires_at_ms = stage.world.clock.now_ms() + 60 * _DAY_MS
    with acting(actor="user:1117", purpose="user-request"):
        await admin.tokens.regenerate(owner, "refresh", b"a new simulated token", expires_at_ms=expires_at_ms)
    rotation = await admin.rotation(owner)
    days = (rotation.due_ms - rotation.opened_ms) // _DAY_MS
    return f"version {rotation.version} of its key is to be gone in {days} days"


async def finish_rotation(stage: Stage) -> str:
    """What is still under the old version is re-encrypted; the old version is retired."""
    admin, owner = stage.process(ADMIN).core, stage.owner("crm-sync")
    rotation = await admin.rotation(owner)
    with acting(actor="job:key-admin", purpose="key-care"):
        moved = await admin.reencrypt("access tokens", OwnersRows(stage, "crm-sync"))
        kept = await reencrypt_tokens(admin, owner)
        left = len(moved.failed) + len(kept.failed)
        await admin.report_reencrypted(rotation.id, left)
        await admin.retire(rotation.id)
    return f"{moved.progress.done + kept.progress.done} rows moved, {left} left; version {rotation.version} is archived"


async def rotate_kek(stage: Stage) -> str:
    """The KEK of the European tenants gets a new version, and every DEK is put under it."""
    process, alias = stage.process(ADMIN), "tenant-kek-eu"
    with acting(actor="user:1001", purpose="key-care"):
        await process.core.keks.rotate(alias)
        process.kek_acts += 1
        done = await process.core.rewrap(alias, concurrency=1)
    return f"{done.done} DEKs are under the new version, {done.failed} are not"


async def compromise(stage: Stage) -> str:
    """A tenant reports a leaked backup: its key is compromised. From now on nobody may decrypt with it."""
    admin, owner = stage.process(ADMIN).core, stage.owner("invoicing")
    await stage.stock(stage.process("invoicing"), owner)
    stage.world.revoked.add(owner)
    key = await admin.describe(owner)
    done = await admin.compromise(
        key.key_id, "a backup of the tenant's was found on the web", actor="user:1009", purpose="incident"
    )
    incident = "no incident" if done.incident is None else f"incident {done.incident.id}"
    return (
        f"{incident}: {len(done.revoked)} version revoked, {done.tokens} token erased; "
        f"somebody decides whether to tell {', '.join(done.notify)}"
    )


async def use_expired(stage: Stage) -> str:
    """The mailer's token is over its day, and the mailer asks for it all the same."""
    try:
        await stage.process("mailer").core.tokens.use(
            stage.owner("mailer"), "access", actor="job:mailer", purpose="nightly-sync"
        )
    except Denied:
        return "it is over, so nobody gets it"
    return "it was handed out"


async def ask_destruction(stage: Stage) -> str:
    """Nothing is left under the compromised version: two people ask for its destruction."""
    admin, owner = stage.process(ADMIN), stage.owner("invoicing")
    stage.rows.by_owner.pop(owner, None)
    rotation = await admin.core.rotation(owner)
    old = [one for one in await admin.core.versions(rotation.key_id) if one.version == rotation.version]
    with acting(actor="user:1009", purpose="incident"):
        await admin.core.report_reencrypted(rotation.id, 0)
        asked = await admin.core.request_destruction(await _approved(stage, admin, old), cooling_off_days=1)
    stage.world.destructions.append(asked.id)
    return f"{LENA} and {TOM} signed; it can be called off until {asked.request.due_at[:16]}"


async def destroy(stage: Stage) -> str:
    """The cooling-off is over: the wrapped DEK is overwritten, and a certificate says so."""
    admin, ident = stage.process(ADMIN).core, stage.world.destructions.pop()
    await admin.destroy(ident, actor="user:1009", purpose="incident")
    await stage.wait(61)
    done = await admin.certify_destruction(ident, copies=COPIES)
    if done.certificate is None:
        return "overwritten"
    certificate = read_certificate(done.certificate, stage.world.registry)
    return f"overwritten; out of every backup by {certificate.unrecoverable_after[:10]}"


async def offboard(stage: Stage) -> str:
    """A tenant leaves: its tokens end, its keys are archived, and two people ask for their destruction."""
    admin = stage.process(ADMIN)
    mine = [each.owner for each in stage.world.company.owned if each.owner.ref().tenant_id == LEAVING]
    stage.world.revoked.update(mine)
    with acting(actor="user:1001", purpose="offboarding"):
        gone = await admin.core.offboard(LEAVING)
        approvals = await _approved(stage, admin, list(gone.awaiting))
        asked = await admin.core.offboard(LEAVING, approvals=approvals)
    due = "" if asked.destruction is None else f", to be destroyed from {asked.destruction.request.due_at[:10]}"
    return f"{len(gone.archived)} keys archived{due}"


async def clean_up(stage: Stage) -> str:
    """The clean-up erases what has expired."""
    done = await stage.process(ADMIN).core.tokens.purge_expired(
        dry_run=False, actor="job:clean-up", purpose="token-clean-up"
    )
    return f"{len(done.tokens)} token erased"


async def _approved(stage: Stage, admin: Process, versions: list[KeyInfo]) -> list[SignedApproval]:
    """Both sign the records of these versions as they are now."""
    now_ms, approvals = stage.world.clock.now_ms(), []
    for version in versions:
        record = (await admin.core.records(version.key_id))[version.version - 1]
        for person in (LENA, TOM):
            signer = stage.world.approvers[person]
            made = Approval.of_key(
                Action.DESTROY,
                record,
                not_before_ms=now_ms,
                expires_ms=now_ms + _DAY_MS,
                nonce=stage.world.ids(16),
                signer_id=signer.signer_id,
            )
            approvals.append(sign_approval(made, signer))
    return approvals
