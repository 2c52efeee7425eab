"""Long work on keys, killed between its transactions and gone on with: nothing is lost and nothing is done twice."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from cryptocore.envelope import Header, Owner
from cryptocore.events import AuditEvent, decode_line
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life import reencrypt
from cryptocore.life.approvals import Action
from cryptocore.store.tables import AUDIT_OUTBOX, KEY_HISTORY
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import both
from tests.cryptocore.child_keys import ADMIN, OWNER, StoredRows, opened, work

ROOT = Path(__file__).parents[2]
KEYS = 5


async def prepared(core: CoreUnderTest, folder: Path, act: str) -> None:
    rows = StoredRows(folder)
    if act == "rewrap":
        for number in range(KEYS):
            await core.create_key(Owner.secret(f"secret-{number}"), **ADMIN)
        return
    for number in range(KEYS):
        ident = f"{number:04}"
        ciphertext = await core.encrypt(
            ident.encode(), owner=OWNER, record=f"tokens/{ident}", create_missing=True, **ADMIN
        )
        rows.run("INSERT INTO row VALUES (?, ?)", ident, ciphertext)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    if act == "destroy":
        rotation = await core.rotation(OWNER)
        await core.report_reencrypted(rotation.id, 0, **ADMIN)
        await core.retire(rotation.id, **ADMIN)
        await core.request_destruction(await both(core, Action.DESTROY, key_id, 1), **ADMIN)


def assert_every_revision_has_its_record_and_its_event(core: CoreUnderTest) -> None:
    history = core.store.transaction(lambda it: it.execute(select(KEY_HISTORY)).all())
    lines = core.store.transaction(lambda it: it.execute(select(AUDIT_OUTBOX.c.line)).scalars().all())
    told: Counter[tuple[bytes, int | None, int]] = Counter()
    for line in lines:
        event = decode_line(line)
        assert isinstance(event, AuditEvent)
        if event.key is not None and event.key.revision is not None:
            told[bytes.fromhex(event.key.id), event.key.version, event.key.revision] += 1
    assert told == {(row.key_id, row.version, row.revision): 1 for row in history}


async def assert_done(core: CoreUnderTest, folder: Path, act: str) -> None:
    if act == "rewrap":
        found = [core.store.newest(Owner.secret(f"secret-{number}")) for number in range(KEYS)]
        assert [(one.record.kek_version, one.record.revision) for one in found if one] == [("2", 2)] * KEYS
    elif act == "reencrypt":
        for ident, ciphertext in StoredRows(folder).run("SELECT id, ciphertext FROM row"):
            assert Header.parse(ciphertext).key_version == 2
            plaintext = await core.decrypt(ciphertext, owner=OWNER, record=f"tokens/{ident}", **ADMIN)
            assert plaintext == ident.encode()
    else:
        old = core.store.versions(bytes.fromhex((await core.describe(OWNER)).key_id))[0]
        assert (old.record.state, old.wrapped_dek, old.record.revision) == (KeyState.DESTROYED, b"", 6)
        assert await core.rotations() == []
    assert_every_revision_has_its_record_and_its_event(core)


@pytest.mark.parametrize(
    ("act", "number", "when"),
    [
        ("rewrap", 2, "after"),
        ("rewrap", 8, "before"),
        ("rewrap", 8, "after"),
        ("reencrypt", 7, "before"),
        ("reencrypt", 9, "after"),
        ("destroy", 5, "after"),
        ("destroy", 6, "after"),
        ("destroy", 7, "after"),
        ("destroy", 8, "before"),
    ],
)
async def test_killed_work_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, number: int, when: str
) -> None:
    monkeypatch.setattr(reencrypt, "BATCH", 2)
    (tmp_path / "child").mkdir()
    (tmp_path / "parent").mkdir()
    core = opened(tmp_path, tmp_path / "parent")
    async with core:
        await prepared(core, tmp_path, act)
        child = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.cryptocore.child_keys", str(tmp_path), act, str(number), when],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr

        await work(core, tmp_path, act)

        await assert_done(core, tmp_path, act)
    core.store.close()
