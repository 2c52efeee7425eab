"""The budget of requests to a vault: data uses are refused before control acts, and the vault's own word holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore import CacheLimits, KeyReason, KeyUnavailable, Owner, acting, testing
from cryptocore.events import Operation, Outcome, Reason, VaultAttempt
from cryptocore.testing import ManualClock
from cryptocore.throttle import CONTROL_WAIT_S, VaultBudget
from cryptocore.wrapping import LocalKeyWrapper, Unwrapped, VaultCallFailed

VAULT = "kv-prod"
OWNER = Owner.tenant("t-88", "crm")


def budget_on(clock: ManualClock, *, rate: float = 10, burst: int = 10, reserve: int = 3) -> VaultBudget:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return VaultBudget(rate_per_s=rate, burst=burst, reserve=reserve, clock=clock, sleep=sleep)


async def test_data_uses_may_take_all_but_the_reserve_and_control_acts_the_rest_and_then_wait() -> None:
    clock = ManualClock()
    budget = budget_on(clock)

    assert [await budget.take(VAULT, control=False) for _ in range(9)] == [True] * 7 + [False] * 2
    assert [await budget.take(VAULT, control=True) for _ in range(3)] == [True] * 3
    before = clock.monotonic()
    assert await budget.take(VAULT, control=True)
    assert clock.monotonic() - before == pytest.approx(0.1, abs=0.01)


async def test_tokens_come_back_with_time_and_each_vault_has_its_own() -> None:
    clock = ManualClock()
    budget = budget_on(clock)
    assert [await budget.take(VAULT, control=False) for _ in range(8)][-1] is False
    assert await budget.take("kv-eu", control=False)

    clock.advance(0.35)

    assert [await budget.take(VAULT, control=False) for _ in range(4)] == [True] * 3 + [False]


async def test_what_the_vault_asks_for_holds_for_both_and_a_control_act_does_not_wait_for_ever() -> None:
    clock = ManualClock()
    budget = budget_on(clock)
    budget.told_to_wait(VAULT, 5)

    assert not await budget.take(VAULT, control=False)
    before = clock.monotonic()
    assert await budget.take(VAULT, control=True)
    assert clock.monotonic() - before == pytest.approx(5, abs=0.01)
    budget.told_to_wait(VAULT, CONTROL_WAIT_S + 1)
    assert not await budget.take(VAULT, control=True)


async def test_requests_beyond_the_first_are_counted_too() -> None:
    budget = budget_on(ManualClock())
    budget.used(VAULT, 6)

    assert [await budget.take(VAULT, control=False) for _ in range(2)] == [True, False]


@given(
    gaps=st.lists(st.floats(0, 2), max_size=60),
    rate=st.floats(0.5, 50),
    burst=st.integers(2, 40),
    share=st.floats(0, 0.9),
)
async def test_no_more_data_uses_than_the_rate_and_the_burst_allow(
    gaps: list[float], rate: float, burst: int, share: float
) -> None:
    clock = ManualClock()
    reserve = int(burst * share)
    budget, started, taken = budget_on(clock, rate=rate, burst=burst, reserve=reserve), clock.monotonic(), 0
    for gap in gaps:
        clock.advance(gap)
        taken += await budget.take(VAULT, control=False)

    assert taken <= burst - reserve + (clock.monotonic() - started) * rate + 1e-3


@pytest.mark.parametrize("wrong", [{"rate_per_s": 0}, {"burst": 5, "reserve": 5}, {"reserve": -1}])
def test_a_budget_without_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a budget has"):
        VaultBudget(**wrong)  # type: ignore[arg-type]


# --- a core with a budget --------------------------------------------------------------------------------------------


class Busy(LocalKeyWrapper):
    """A KEK whose vault answers 429 when told to."""

    retry_after_s: float | None = None
    calls = 0

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        self.calls += 1
        if self.retry_after_s is not None:
            attempt = VaultAttempt(call_id=call_ids[0], started_at=testing.START, http_status=429)
            raise VaultCallFailed(Reason.VAULT_THROTTLED, (attempt,), retryable=True, retry_after_s=self.retry_after_s)
        return await super().unwrap(wrapped_dek, version=version, call_ids=call_ids)


@asynccontextmanager
async def limited(tmp_path: Path, **budget: float) -> AsyncIterator[tuple[testing.CoreUnderTest, Busy]]:
    """A core of which each decrypt needs the vault, with a budget."""
    wrapper = Busy(testing.ALIAS)
    limits = CacheLimits(dek_max_age_s=0, failure_s=0, vault_outage_grace_s=0)
    core = testing.make_core(tmp_path, limits=limits, wrapper=wrapper)
    core.parts.calls._budget = budget_on(core.clock, **budget)  # type: ignore[arg-type]
    async with core:
        with acting(actor="user:4711", purpose="crm-sync"):
            yield core, wrapper


async def test_a_storm_of_unwraps_is_refused_as_throttled_and_the_rotation_still_goes_through(tmp_path: Path) -> None:
    async with limited(tmp_path, burst=12, reserve=4) as (core, wrapper):
        stored = await core.encrypt(b"token", owner=OWNER, record="r", create_missing=True)  # two control acts, one use
        refused = []
        for _ in range(9):
            try:
                await core.decrypt(stored, owner=OWNER, record="r")
            except KeyUnavailable as error:
                refused.append(error)
        calls = wrapper.calls
        await core.rotate(OWNER, reason=KeyReason.COMPROMISE_SUSPECTED)

        assert calls == 2 + 5, "without a token the vault is not asked"
        assert [error.retryable for error in refused] == [True] * 4
        last = core.events.only(Operation.DECRYPT)[-1]
        assert (last.outcome, last.reason) == (Outcome.FAILED, Reason.VAULT_THROTTLED)
        intents = [event for event in core.events.only(Operation.UNWRAP) if event.call_ids]
        assert len(intents) == wrapper.calls, "no intent without a call"


async def test_after_a_429_nobody_asks_before_the_time_that_the_vault_named(tmp_path: Path) -> None:
    async with limited(tmp_path) as (core, wrapper):
        stored = await core.encrypt(b"token", owner=OWNER, record="r", create_missing=True)
        wrapper.retry_after_s = 8
        with pytest.raises(KeyUnavailable, match="vault_throttled"):
            await core.decrypt(stored, owner=OWNER, record="r")
        wrapper.retry_after_s, asked = None, wrapper.calls
        with pytest.raises(KeyUnavailable, match="vault_throttled"):
            await core.decrypt(stored, owner=OWNER, record="r")
        assert wrapper.calls == asked

        core.clock.advance(8)
        assert await core.decrypt(stored, owner=OWNER, record="r") == b"token"
