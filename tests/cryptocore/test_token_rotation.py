"""When a regenerated token rotates its owner's DEK."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cryptocore import Classification, KeyReason, Owner, TokenVault, acting, testing
from cryptocore.care.terms import Terms, ThreatLevel
from cryptocore.testing import CoreUnderTest

CRM = Owner.tenant("t-88", "crm")
HOUR_S = 3_600


@pytest.fixture
async def core() -> AsyncIterator[CoreUnderTest]:
    async with testing.core() as tested:
        with acting(actor="user:1001", purpose="key-care"):
            yield tested


async def version_after(core: CoreUnderTest, vault: TokenVault) -> int:
    expires_at_ms = core.clock.now_us() // 1000 + 30 * 24 * HOUR_S * 1000
    await vault.regenerate(CRM, "access", b"new", expires_at_ms=expires_at_ms)
    assert await vault.use(CRM, "access") == b"new"
    return (await core.describe(CRM)).version


async def kept(core: CoreUnderTest, label: Classification | None, terms: Terms | None = None) -> TokenVault:
    vault = TokenVault(core, terms)
    expires_at_ms = core.clock.now_us() // 1000 + 30 * 24 * HOUR_S * 1000
    await vault.store(CRM, "access", b"old", expires_at_ms=expires_at_ms, create_missing=True)
    if label is not None:
        await core.label((await core.describe(CRM)).key_id, label, "payments")
    return vault


@pytest.mark.parametrize("label", [None, Classification.CONFIDENTIAL, Classification.RESTRICTED])
async def test_what_is_confidential_or_not_labelled_is_rotated_each_time(
    core: CoreUnderTest, label: Classification | None
) -> None:
    vault = await kept(core, label)

    assert [await version_after(core, vault) for _ in range(3)] == [2, 3, 4]


async def test_an_internal_key_is_rotated_at_most_once_a_day(core: CoreUnderTest) -> None:
    vault, seen = await kept(core, Classification.INTERNAL), []
    for _ in range(49):
        seen.append(await version_after(core, vault))
        core.clock.advance(HOUR_S)

    assert seen == [1] * 24 + [2] * 24 + [3]


async def test_a_raised_threat_level_shortens_the_interval(core: CoreUnderTest) -> None:
    vault = await kept(core, Classification.INTERNAL)
    until_ms = core.clock.now_us() // 1000 + 7 * 24 * HOUR_S * 1000
    await core.threats.set(ThreatLevel.SEVERE, until_ms=until_ms, reason="phishing")
    core.clock.advance(6 * HOUR_S - 1)
    before = await version_after(core, vault)
    core.clock.advance(1)

    assert (before, await version_after(core, vault)) == (1, 2)


async def test_a_deployment_may_give_its_own_interval(core: CoreUnderTest) -> None:
    packaged = Terms.load()
    hours = packaged.regenerated_hours | {Classification.CONFIDENTIAL: 2}
    vault = await kept(core, None, replace(packaged, regenerated_hours=hours))

    assert await version_after(core, vault) == 1
    core.clock.advance(2 * HOUR_S)
    assert await version_after(core, vault) == 2


async def test_a_version_that_was_changed_since_it_was_activated_is_rotated(core: CoreUnderTest) -> None:
    vault = await kept(core, Classification.INTERNAL)
    key = await core.describe(CRM)
    await core.suspend(key.key_id, reason=KeyReason.OPERATOR)
    await core.resume(key.key_id, reason=KeyReason.OPERATOR)

    assert await version_after(core, vault) == 2
