from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, ConfigurationError, InvalidTransition, KeyUnavailable
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.approvals import Action
from cryptocore.life.rotations import DAY_MS, RotationStep
from cryptocore.store.rotation_tables import ROTATION
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import APPROVERS, both

OWNER = Owner.tenant("t-88", "crm")
OTHER = Owner.tenant("t-99", "crm")
ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
RECORD = "tokens/1"


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[CoreUnderTest]:
    async with testing.core(store_url=f"sqlite:///{tmp_path / 'keys.sqlite'}", approvers=APPROVERS) as tested:
        yield tested


async def made(core: CoreUnderTest, owner: Owner = OWNER) -> bytes:
    return await core.encrypt(b"token", owner=owner, record=RECORD, create_missing=True, **ADMIN)


def now_ms(core: CoreUnderTest) -> int:
    return core.clock.now_us() // 1000


async def test_a_rotation_goes_from_step_to_step_until_the_old_wrapped_dek_is_gone(core: CoreUnderTest) -> None:
    ciphertext = await made(core)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    rotation = await core.rotation(OWNER)
    steps = [rotation.step]

    steps.append((await core.report_reencrypted(rotation.id, 12, **ADMIN)).step)
    steps.append((await core.report_reencrypted(rotation.id, 0, **ADMIN)).step)
    assert await core.decrypt(ciphertext, owner=OWNER, record=RECORD, **ADMIN) == b"token"
    steps.append((await core.retire(rotation.id, note="done", **ADMIN)).step)
    with pytest.raises(AccessDenied):
        await core.decrypt(ciphertext, owner=OWNER, record=RECORD, **ADMIN)
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id, 1), **ADMIN)
    core.clock.advance(7 * 86_400)
    await core.destroy(asked.id, **ADMIN)
    steps.append((await core.rotation(rotation.id)).step)

    assert steps == [
        RotationStep.REENCRYPT,
        RotationStep.REENCRYPT,
        RotationStep.RETIRE,
        RotationStep.OVERWRITE,
        RotationStep.FINISHED,
    ]
    assert await core.rotations() == []
    assert [known.id for known in await core.rotations(finished=True)] == [rotation.id]
    await core.relay()
    reports = [event.note for event in core.events.only(Operation.ROTATE) if event.key and event.key.revision is None]
    assert reports == [f"rotation {rotation.id}: 12 rows left", f"rotation {rotation.id}: 0 rows left"]


@pytest.mark.parametrize(
    ("reason", "days"),
    [(KeyReason.SCHEDULED, 30), (KeyReason.TOKEN_REGENERATED, 30), (KeyReason.COMPROMISE_SUSPECTED, 7)],
)
async def test_a_rotation_is_unfinished_after_thirty_days_or_a_week_after_a_compromise(
    core: CoreUnderTest, reason: KeyReason, days: int
) -> None:
    await made(core)
    await core.rotate(OWNER, reason=reason, **ADMIN)
    rotation = await core.rotation(OWNER)

    assert rotation.due_ms - rotation.opened_ms == days * DAY_MS
    assert not rotation.unfinished(now_ms(core) + days * DAY_MS - 1)
    assert rotation.unfinished(now_ms(core) + days * DAY_MS)
    assert await core.rotations(due_before_ms=rotation.due_ms - 1) == []
    assert [late.id for late in await core.rotations(due_before_ms=rotation.due_ms)] == [rotation.id]


async def test_nothing_is_retired_while_rows_are_left_or_nobody_said_so(core: CoreUnderTest) -> None:
    await made(core)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    rotation = await core.rotation(OWNER)

    with pytest.raises(InvalidTransition):
        await core.retire(rotation.id, **ADMIN)
    await core.report_reencrypted(rotation.id, 1, **ADMIN)
    with pytest.raises(InvalidTransition):
        await core.retire(rotation.id, **ADMIN)

    told = core.events.only(Operation.ARCHIVE)
    assert [(event.outcome, event.reason) for event in told] == [(Outcome.DENIED, Reason.KEY_STATE)] * 2
    assert (await core.rotation(rotation.id)).state is KeyState.ACTIVE


async def test_an_old_version_with_rows_left_is_not_destroyed(core: CoreUnderTest) -> None:
    await made(core)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    await core.archive(key_id, version=1, reason=KeyReason.OPERATOR, **ADMIN)

    with pytest.raises(InvalidTransition):
        await core.request_destruction(await both(core, Action.DESTROY, key_id, 1), **ADMIN)


async def test_each_old_version_has_a_rotation_of_its_own(core: CoreUnderTest) -> None:
    await made(core)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    core.clock.advance(3_600)
    await core.rotate(OWNER, reason=KeyReason.TOKEN_REGENERATED, **ADMIN)

    found = await core.rotations(owner=OWNER)

    assert [(rotation.version, rotation.next_version) for rotation in found] == [(1, 2), (2, 3)]
    assert await core.rotations(owner=OTHER) == []


async def test_to_retire_twice_changes_nothing(core: CoreUnderTest) -> None:
    await made(core)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    rotation = await core.rotation(OWNER)
    await core.report_reencrypted(rotation.id, 0, **ADMIN)
    await core.retire(rotation.id, **ADMIN)

    again = await core.retire(rotation.id, **ADMIN)

    assert again.step is RotationStep.OVERWRITE
    assert (await core.versions(key_id))[0].revision == 4


async def test_what_is_no_rotation_is_not_found(core: CoreUnderTest) -> None:
    with pytest.raises(AccessDenied):
        await core.rotation(OWNER)
    with pytest.raises(AccessDenied):
        await core.report_reencrypted("00" * 16, 0, **ADMIN)
    with pytest.raises(ConfigurationError):
        await core.rotation("no id")
    with pytest.raises(ConfigurationError):
        await core.report_reencrypted("00" * 16, -1, **ADMIN)


# --- changes of owner


async def test_the_new_owner_keeps_the_key_he_has(core: CoreUnderTest) -> None:
    await made(core)
    await made(core, OTHER)
    theirs = await core.describe(OTHER)

    assert await core.change_owner(OWNER, OTHER, **ADMIN) == theirs
    assert (await core.rotation(OWNER)).next_key_id == theirs.key_id


async def test_every_version_that_still_decrypts_gets_a_rotation_to_the_new_owner(core: CoreUnderTest) -> None:
    await made(core)
    await core.rotate(OWNER, reason=KeyReason.COMPROMISE_SUSPECTED, **ADMIN)
    due_ms = (await core.rotation(OWNER)).due_ms

    new = await core.change_owner(OWNER, OTHER, **ADMIN)

    found = await core.rotations(owner=OWNER)
    assert {(rotation.version, rotation.next_key_id) for rotation in found} == {(1, new.key_id), (2, new.key_id)}
    assert min(rotation.due_ms for rotation in found) == due_ms  # what was urgent stays urgent


@pytest.mark.parametrize("act", ["suspend", "none", "self"])
async def test_a_change_of_owner_that_cannot_be_is_refused_and_told(core: CoreUnderTest, act: str) -> None:
    if act != "none":
        await made(core)
    to = OWNER if act == "self" else OTHER
    if act == "suspend":
        await made(core, OTHER)
        await core.suspend((await core.describe(OTHER)).key_id, reason=KeyReason.OPERATOR, **ADMIN)

    with pytest.raises(InvalidTransition):
        await core.change_owner(OWNER, to, **ADMIN)

    assert core.events.only(Operation.ROTATE)[-1].outcome is Outcome.DENIED
    if act != "none":
        assert await made(core)


async def test_a_rotation_that_somebody_wrote_over_is_not_believed_and_ends_nothing(core: CoreUnderTest) -> None:
    await made(core)
    await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)
    rotation = await core.rotation(OWNER)

    core.store.transaction(lambda it: it.execute(update(ROTATION).values(rows_left=0, finished_ms=1)))
    assert (await core.rotation(rotation.id)).step is RotationStep.RETIRE
    core.store.transaction(lambda it: it.execute(update(ROTATION).values(reason="whim")))

    with pytest.raises(KeyUnavailable):
        await core.rotation(rotation.id)


async def test_an_owner_whose_newest_key_is_archived_gets_another_although_an_old_version_still_decrypts(
    core: CoreUnderTest,
) -> None:
    ciphertext = await made(core)
    key_id = (await core.rotate(OWNER, reason=KeyReason.SCHEDULED, **ADMIN)).key_id
    await core.archive(key_id, version=2, reason=KeyReason.OPERATOR, **ADMIN)
    core.clock.advance(1)
    await core.suspend(key_id, version=1, reason=KeyReason.OPERATOR, **ADMIN)
    await core.resume(key_id, version=1, reason=KeyReason.OPERATOR, **ADMIN)

    new = await core.create_key(OWNER, **ADMIN)

    assert new.key_id != key_id
    assert await core.decrypt(ciphertext, owner=OWNER, record=RECORD, **ADMIN) == b"token"
