import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from cryptocore import testing
from cryptocore.clock import SystemClock
from cryptocore.core import CryptoCore
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, ConfigurationError, CoreError, KeyUnavailable
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.store import cursors
from cryptocore.store.cursors import Progress
from cryptocore.store.key_store import KeyStore
from cryptocore.store.rotation_tables import WORK_CURSOR
from cryptocore.store.tables import KEY_VERSION
from cryptocore.testing import CoreUnderTest
from cryptocore.wrapping import LocalKeyWrapper, Unwrapped, VaultCallFailed, Wrapped

ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
RECORD = "tokens/1/access"


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}") as tested:
        yield tested


def owner(number: int) -> Owner:
    return Owner.tenant(f"t-{number}", "crm")


async def keys(core: CryptoCore, count: int) -> list[bytes]:
    return [
        await core.encrypt(b"token", owner=owner(number), record=RECORD, create_missing=True, **ADMIN)
        for number in range(count)
    ]


def kek_versions(core: CoreUnderTest) -> set[tuple[str, str]]:
    query = select(KEY_VERSION.c.kek_alias, KEY_VERSION.c.kek_version)
    return {tuple(row) for row in core.store.transaction(lambda it: it.execute(query).all())}


async def test_every_version_is_put_under_the_newest_kek_version_and_data_still_opens(core: CoreUnderTest) -> None:
    ciphertexts = await keys(core, 5)
    core.wrapper.rotate()
    told: list[Progress] = []

    progress = await core.rewrap(progress=told.append, **ADMIN)

    assert progress == Progress(total=5, done=5)
    assert told[-1] == progress
    assert kek_versions(core) == {(testing.ALIAS, "2")}
    core.wrapper.disable("1")
    core.clock.advance(3_000)
    for number, ciphertext in enumerate(ciphertexts):
        assert await core.decrypt(ciphertext, owner=owner(number), record=RECORD, **ADMIN) == b"token"
    await core.relay()
    events = core.events.only(Operation.REWRAP)
    assert [event.reason for event in events] == [Reason.SCHEDULED] * 5
    assert {event.key.revision for event in events if event.key} == {3}


async def test_revoked_archived_and_suspended_versions_are_rewrapped_and_keep_state_and_reason(
    core: CoreUnderTest,
) -> None:
    await keys(core, 3)
    ids = [(await core.describe(owner(number))).key_id for number in range(3)]
    await core.revoke(ids[0], reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)
    await core.archive(ids[1], reason=KeyReason.OFFBOARDED, **ADMIN)
    await core.suspend(ids[2], reason=KeyReason.OPERATOR, **ADMIN)
    core.wrapper.rotate()

    assert (await core.rewrap(**ADMIN)).done == 3

    versions = [core.store.newest(owner(number)) for number in range(3)]
    assert [(version.record.state, version.record.reason) for version in versions if version] == [
        (KeyState.REVOKED, KeyReason.COMPROMISE_SUSPECTED),
        (KeyState.ARCHIVED, KeyReason.OFFBOARDED),
        (KeyState.SUSPENDED, KeyReason.OPERATOR),
    ]
    assert kek_versions(core) == {(testing.ALIAS, "2")}


async def test_a_second_run_does_nothing_and_a_later_key_is_found_behind_the_cursor(core: CoreUnderTest) -> None:
    await keys(core, 2)
    core.wrapper.rotate()
    await core.rewrap(**ADMIN)

    assert await core.rewrap(**ADMIN) == Progress(total=0)
    await core.relay()
    assert len(core.events.only(Operation.REWRAP)) == 2


async def test_deks_move_under_another_kek(core: CoreUnderTest) -> None:
    ciphertexts = await keys(core, 2)
    other = LocalKeyWrapper("other-kek", name="other", clock=core.clock)
    core._keyring._wrappers = {testing.ALIAS: core.wrapper, "other-kek": other}

    assert (await core.rewrap(testing.ALIAS, to_alias="other-kek", **ADMIN)).done == 2

    assert kek_versions(core) == {("other-kek", "1")}
    core._keyring._wrappers = {"other-kek": other}
    assert await core.decrypt(ciphertexts[1], owner=owner(1), record=RECORD, **ADMIN) == b"token"


async def test_what_a_dead_process_claimed_is_found_in_the_look_from_the_start(core: CoreUnderTest) -> None:
    await keys(core, 4)
    core.wrapper.rotate()
    name = f"rewrap/{testing.ALIAS}/{testing.ALIAS}/2"
    core.store.transaction(cursors.begin(name))
    core.store.transaction(cursors.move(name, b"\xff" * 20))

    assert (await core.rewrap(**ADMIN)).done == 4


async def test_two_processes_at_once_rewrap_each_version_once(tmp_path: Path, core: CoreUnderTest) -> None:
    await keys(core, 12)
    core.wrapper.rotate()
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    async with testing.core(store_url=url) as other:
        other.store._registry = core.registry  # the same deployment
        other.parts.lifecycle.revisions._registry = core.registry
        other.parts.lifecycle.revisions._signer = core.parts.signer
        other._keyring._wrappers = {testing.ALIAS: core.wrapper}

        runs = await asyncio.gather(core.rewrap(**ADMIN), other.rewrap(**ADMIN))

    assert sum(run.done for run in runs) == 12
    assert kek_versions(core) == {(testing.ALIAS, "2")}
    assert {version.record.revision for number in range(12) if (version := core.store.newest(owner(number)))} == {3}


async def test_a_version_changed_while_the_vault_answered_is_left_to_the_look_from_the_start(
    core: CoreUnderTest,
) -> None:
    await keys(core, 3)
    key_id = (await core.describe(owner(1))).key_id
    core.wrapper.rotate()
    core._keyring._wrappers = {testing.ALIAS: Interrupted(core, key_id)}

    progress = await core.rewrap(**ADMIN)

    assert progress.done == 3
    newest = core.store.newest(owner(1))
    assert newest is not None
    assert (newest.record.state, newest.record.kek_version) == (KeyState.SUSPENDED, "2")
    assert newest.record.revision == 4


class Interrupted(LocalKeyWrapper):
    """Somebody suspends a key while its DEK is being wrapped."""

    def __init__(self, core: CoreUnderTest, key_id: str) -> None:
        super().__init__(testing.ALIAS, keys=core.wrapper._keys, clock=core.clock)
        self._core: CoreUnderTest | None = core
        self._key_id = key_id

    async def wrap(self, blob: bytes, *, version: str, call_ids: tuple[str, ...]) -> Wrapped:
        core, self._core = self._core, None
        if core is not None:
            await core.suspend(self._key_id, reason=KeyReason.OPERATOR, **ADMIN)
        return await super().wrap(blob, version=version, call_ids=call_ids)


async def test_a_kek_that_wraps_and_does_not_unwrap_changes_no_row(core: CoreUnderTest) -> None:
    await keys(core, 2)
    core.wrapper.rotate()
    core.wrapper.disable("2")
    core._keyring._wrappers = {testing.ALIAS: WrapsOnly(core)}

    progress = await core.rewrap(**ADMIN)

    assert progress.done == 0
    assert progress.failed == 4  # once behind the cursor, once from the start
    assert kek_versions(core) == {(testing.ALIAS, "1")}
    assert {(event.outcome, event.reason) for event in core.events.only(Operation.REWRAP)} == {
        (Outcome.DENIED, Reason.VAULT_DENIED)
    }


class WrapsOnly(LocalKeyWrapper):
    """A disabled KEK version, as Azure may treat it."""

    def __init__(self, core: CoreUnderTest) -> None:
        super().__init__(testing.ALIAS, keys=core.wrapper._keys, clock=core.clock)

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        if version == "2":
            raise VaultCallFailed(Reason.VAULT_DENIED, (), retryable=False)
        return await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)


async def test_a_run_stops_after_too_many_failures_in_a_row(core: CoreUnderTest) -> None:
    await keys(core, 60)
    core.wrapper.rotate()
    core.wrapper.disable("1")

    with pytest.raises(AccessDenied):
        await core.rewrap(**ADMIN)

    assert 20 <= len(core.events.only(Operation.REWRAP)) < 52  # thirty-two were under way at once


async def test_a_tampered_row_is_counted_and_the_rest_goes_on(core: CoreUnderTest) -> None:
    await keys(core, 3)
    core.wrapper.rotate()
    version = core.store.newest(owner(1))
    assert version is not None

    def tamper(connection: Any) -> None:
        connection.exec_driver_sql("DROP TRIGGER key_version_step")
        connection.execute(
            update(KEY_VERSION).where(KEY_VERSION.c.key_id == version.key_id).values(wrapped_dek=b"chosen")
        )

    core.store.transaction(tamper)

    progress = await core.rewrap(**ADMIN)

    assert (progress.done, progress.failed) == (2, 2)
    assert {event.reason for event in core.events.only(Operation.REWRAP) if event.reason} == {Reason.RECORD_INVALID}


async def test_without_the_store_nothing_begins(core: CoreUnderTest) -> None:
    await keys(core, 1)
    core.store.transaction(lambda connection: connection.exec_driver_sql("DROP TABLE key_history"))

    core.wrapper.rotate()
    progress = await core.rewrap(**ADMIN)

    assert progress.done == 0
    count = select(func.count()).select_from(WORK_CURSOR)
    assert core.store.transaction(lambda connection: connection.execute(count).scalar()) == 1
    core.store.transaction(lambda connection: connection.exec_driver_sql("DROP TABLE key_version"))
    with pytest.raises(KeyUnavailable):
        await core.rewrap(**ADMIN)


async def test_a_rewrap_of_a_kek_that_nobody_configured_is_refused_and_told(core: CoreUnderTest) -> None:
    with pytest.raises(CoreError):
        await core.rewrap("somebody-elses", **ADMIN)

    [event] = core.events.only(Operation.REWRAP)
    assert (event.outcome, event.reason, event.actor) == (Outcome.FAILED, Reason.VAULT_NOT_FOUND, ADMIN["actor"])


def test_two_stores_share_one_cursor(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keys.sqlite'}"
    registry = testing.register()
    stores = [KeyStore(url, registry=registry) for _ in range(2)]
    items = [bytes([number]) for number in range(10)]
    claim = cursors.claim("work", lambda _, behind: [item for item in items if item > behind][:3], lambda item: item)

    stores[0].transaction(cursors.begin("work"))
    stores[1].transaction(cursors.begin("work"))

    claimed = [stores[turn % 2].transaction(claim) for turn in range(5)]

    assert [list(page) for page in claimed] == [items[0:3], items[3:6], items[6:9], items[9:], []]
    for store in stores:
        store.close()


async def test_a_pace_is_kept() -> None:
    pace = cursors.Pace(50, SystemClock())
    began = time.monotonic()

    for _ in range(6):
        await pace.turn()

    assert time.monotonic() - began >= 0.1
    with pytest.raises(ConfigurationError):
        cursors.Pace(0, SystemClock())
