"""Each cell of the table in docs/formats.md, and each arrow that is not in it, through the public face."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from cryptocore import testing
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, InvalidTransition
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.approvals import Action
from cryptocore.testing import CoreUnderTest
from tests.cryptocore.approving import APPROVERS, both
from tests.cryptocore.callers_rows import CallersRows

ADMIN: dict[str, Any] = {"actor": "user:1001", "purpose": "key-care"}
STATES = ("pre-activation", "active", "superseded", "suspended", "revoked", "archived", "destroyed")
NUMBERS = count()

# Per state: encrypt decrypt reencrypt rewrap | activate suspend resume revoke archive destroy
CELLS = {
    "pre-activation": "---+ +--+-+",
    "active":         "++++ -+-++-",
    "superseded":     "+*++ -+-++-",
    "suspended":      "---+ --+++-",
    "revoked":        "---+ -----+",
    "archived":       "---+ ---+-+",
    "destroyed":      "---- ------",
}  # fmt: skip
"""`+` done, `-` refused. `*`: decrypts until its retirement; that an owner with a superseded version encrypts is its
newest version's doing."""
ACTS = ("encrypt", "decrypt", "reencrypt", "rewrap", "activate", "suspend", "resume", "revoke", "archive", "destroy")


@pytest.fixture
async def core() -> AsyncIterator[CoreUnderTest]:
    async with testing.core(approvers=APPROVERS) as tested:
        yield tested


async def brought(core: CoreUnderTest, state: str) -> tuple[Owner, str, bytes]:
    """Bring version 1 of a new key into a state."""
    owner = Owner.tenant(f"t-{next(NUMBERS)}", "crm")
    key_id = (await core.create_key(owner, **ADMIN)).key_id
    if state == "pre-activation":
        return owner, key_id, b""
    await core.activate(key_id, **ADMIN)
    ciphertext = await core.encrypt(b"token", owner=owner, record="tokens/1", **ADMIN)
    if state == "superseded":
        await core.rotate(owner, reason=KeyReason.SCHEDULED, **ADMIN)
    elif state == "destroyed":
        await core.archive(key_id, reason=KeyReason.OPERATOR, **ADMIN)
        await destroyed(core, key_id)
    elif state != "active":
        act = {"suspended": "suspend", "revoked": "revoke", "archived": "archive"}[state]
        await getattr(core, act)(key_id, reason=KeyReason.OPERATOR, **ADMIN)
    return owner, key_id, ciphertext


async def destroyed(core: CoreUnderTest, key_id: str) -> None:
    asked = await core.request_destruction(await both(core, Action.DESTROY, key_id, 1), **ADMIN)
    core.clock.advance(7 * 86_400)
    await core.destroy(asked.id, **ADMIN)


async def act_on(core: CoreUnderTest, act: str, owner: Owner, key_id: str, ciphertext: bytes) -> bool:
    """Try an act on version 1; say whether it was done."""
    if act == "rewrap":
        core.wrapper.rotate()
        return (await core.rewrap(**ADMIN)).done > 0
    if act == "reencrypt":
        done = await core.reencrypt(f"rows-{owner.tenant_id}", CallersRows(owner, {"1": ciphertext}), **ADMIN)
        return not done.failed
    try:
        if act == "encrypt":
            await core.encrypt(b"token", owner=owner, record="tokens/1", **ADMIN)
        elif act == "decrypt":
            await core.decrypt(ciphertext, owner=owner, record="tokens/1", **ADMIN)
        elif act == "activate":
            await core.activate(key_id, **ADMIN)
        elif act == "destroy":
            await destroyed(core, key_id)
        else:
            await getattr(core, act)(key_id, version=1, reason=KeyReason.OPERATOR, **ADMIN)
    except (InvalidTransition, AccessDenied):
        return False
    return True


@pytest.mark.parametrize("state", STATES)
async def test_each_act_is_done_or_refused_as_the_table_says_and_a_refusal_is_told(
    core: CoreUnderTest, state: str
) -> None:
    for act, cell in zip(ACTS, CELLS[state].replace(" ", ""), strict=True):
        owner, key_id, ciphertext = await brought(core, state)
        if not ciphertext and act in ("decrypt", "reencrypt"):
            continue  # nothing was ever encrypted with it
        operation = Operation(act)
        before = len([event for event in core.events.only(operation) if event.outcome is Outcome.DENIED])

        done = await act_on(core, act, owner, key_id, ciphertext)

        assert done == (cell != "-"), f"{act} of a version that is {state}"
        denied = [event for event in core.events.only(operation) if event.outcome is Outcome.DENIED][before:]
        if act != "rewrap":  # which looks for what it may move, and asks for nothing else
            assert [event.reason for event in denied] == ([] if done else [Reason.KEY_STATE]), f"{act} while {state}"


async def test_a_superseded_version_decrypts_until_its_retirement_date_and_is_read_to_re_encrypt_after_it(
    core: CoreUnderTest,
) -> None:
    owner, _, ciphertext = await brought(core, "active")
    retire_at_ms = core.clock.now_us() // 1000 + 60_000
    await core.rotate(owner, reason=KeyReason.SCHEDULED, retire_at_ms=retire_at_ms, **ADMIN)
    assert await core.decrypt(ciphertext, owner=owner, record="tokens/1", **ADMIN) == b"token"
    core.clock.advance(60)

    with pytest.raises(AccessDenied):
        await core.decrypt(ciphertext, owner=owner, record="tokens/1", **ADMIN)
    done = await core.reencrypt("rows", CallersRows(owner, {"1": ciphertext}), **ADMIN)

    assert done.progress.done == 1
    assert (await core.describe(owner)).state is KeyState.ACTIVE
