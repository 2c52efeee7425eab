"""What stands beside keys, on PostgreSQL as migrated, where time is the server's own."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import Connection

from cryptocore import certifying, destroying, testing
from cryptocore.approvals import Action, SignedApproval
from cryptocore.bare import BareWrap
from cryptocore.destruction import read_certificate
from cryptocore.envelope import Header, Owner
from cryptocore.errors import AccessDenied
from cryptocore.events import Operation, Outcome
from cryptocore.keys import KeyReason, KeyState
from cryptocore.legacy import LegacyCipher, Part
from cryptocore.rotations import RotationStep
from cryptocore.signing import Signer
from cryptocore.store import database_ms
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.approving import ADA, APPROVERS, BEN, approval
from tests.cryptocore.callers_rows import CallersRows
from tests.cryptocore.stores import postgres_database
from tests.cryptocore.test_core_reencrypt import bare, node

pytestmark = pytest.mark.servers

OWNER = Owner.tenant("t-88", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
WEEK_MS = 7 * 24 * 3_600_000


@pytest.fixture
async def cores(postgres_url: str) -> AsyncIterator[list[CoreUnderTest]]:
    """Two processes of one service on one database."""
    database = postgres_database(postgres_url)
    signer, wrapper = Signer.generate(), LocalKeyWrapper(testing.ALIAS)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                testing.core(store_url=database.url, signer=signer, approvers=APPROVERS, wrapper=wrapper)
            )
            for _ in range(2)
        ]


async def both(core: CoreUnderTest, action: Action, key_id: str, number: int) -> list[SignedApproval]:
    record = (await core.records(key_id))[number - 1]
    now_ms = time.time_ns() // 1_000_000
    return [approval(core, action, record, by, from_ms=now_ms - 60_000, hours=24) for by in (ADA, BEN)]


async def test_a_rotation_from_its_beginning_to_the_certificate(
    cores: list[CoreUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    core, other = cores
    rows = {"1": await core.encrypt(b"1", owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)}
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    rotation = await other.rotation(OWNER)
    assert (await other.reencrypt("tokens", CallersRows(OWNER, rows), **ADMIN)).progress.done == 1
    await core.report_reencrypted(rotation.id, 0, **ADMIN)
    await other.retire(rotation.id, **ADMIN)
    approvals = await both(core, Action.DESTROY, key_id, 1)
    asked = await core.request_destruction(approvals, **ADMIN)
    with pytest.raises(AccessDenied):
        await other.request_destruction(approvals, **ADMIN)

    def a_week_later(connection: Connection) -> int:
        return database_ms(connection) + WEEK_MS + 60_000

    monkeypatch.setattr(destroying, "database_ms", a_week_later)
    monkeypatch.setattr(certifying, "database_ms", lambda connection: a_week_later(connection) + 60_000)
    await other.destroy(asked.id, **ADMIN)
    done = await core.certify_destruction(asked.id)

    assert done.certificate is not None
    assert read_certificate(done.certificate, core.registry).unrecoverable_after == "not established"
    assert (await core.rotation(rotation.id)).step is RotationStep.FINISHED
    assert await core.rotations() == []
    [old, _] = core.store.versions(bytes.fromhex(key_id))
    assert (old.record.state, old.wrapped_dek, old.record.revision) == (KeyState.DESTROYED, b"", 6)


async def test_two_processes_rewrap_each_version_once(cores: list[CoreUnderTest]) -> None:
    core, other = cores
    for number in range(10):
        await core.create_key(Owner.secret(f"secret-{number}"), **ADMIN)
    core.wrapper.rotate()

    runs = await asyncio.gather(core.rewrap(**ADMIN), other.rewrap(**ADMIN))

    assert sum(run.done for run in runs) == 10
    found = [core.store.newest(Owner.secret(f"secret-{number}")) for number in range(10)]
    assert [(one.record.kek_version, one.record.revision) for one in found if one] == [("2", 2)] * 10


async def test_a_revoked_version_is_read_under_a_grant_and_an_imported_dek_moves(cores: list[CoreUnderTest]) -> None:
    core, other = cores
    rows = {"1": await core.encrypt(b"1", owner=OWNER, record="tokens/1", create_missing=True, **ADMIN)}
    dek = os.urandom(32)
    imported = bare(core, dek, BareWrap.RSA_OAEP_256)
    rows["2"] = b"".join(node(dek, b"2", tuple(Part)))
    info = await core.import_key(imported, OWNER, **ADMIN)
    assert await other.import_key(imported, OWNER, **ADMIN) == info
    key_id = (await core.rotate(OWNER, reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)).key_id
    await core.revoke(key_id, version=1, reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)
    held = CallersRows(OWNER, rows)
    assert (await other.reencrypt("tokens", held, legacy=LegacyCipher(), **ADMIN)).failed == ("1",)

    await core.grant_recovery(await both(core, Action.RECOVERY_GRANT, key_id, 1), **ADMIN)
    done = await other.reencrypt("tokens", held, legacy=LegacyCipher(), **ADMIN)

    assert (done.progress.done, done.progress.skipped) == (1, 1)
    assert {Header.parse(ciphertext).key_version for ciphertext in held.held.values()} == {2}
    told = [event for event in other.events.only(Operation.REENCRYPT) if event.outcome is Outcome.SUCCEEDED]
    assert [event.recovery for event in told] == [False, True]
